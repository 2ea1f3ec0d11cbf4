"""The kernels that make arrays of the whole frame of the masks' bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kernel_host import needs_kernels
from support.mask_scenes import assemble, dense, id_map, make_scene, unpack
from support.properties import example_count, examples
from yolact_plugins import reference

pytestmark = needs_kernels()


@examples(25)
@given(st.integers(0, 2**32 - 1))
def test_views_are_those_of_the_bits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = map(int, rng.choice([1, 31, 32, 33, 70], 1)), int(rng.choice([1, 255, 256, 257, 600]))
    result = assemble(make_scene(rng, int(rng.choice([0, 1, 5, 20])), (*height, width), (3, 9, 9)), seed=seed % 5)
    masks = unpack(result)
    assert (dense(result) == masks).all()
    assert (id_map(result) == reference.id_map(masks)).all()


@pytest.mark.parametrize("seed", range(3 if example_count(30) > 2 else 1))
def test_as_many_masks_as_there_can_be_lie_over_one_another(seed: int) -> None:
    rng = np.random.default_rng(3)
    scene = make_scene(rng, 256, (40, 300), (4, 10, 10))
    scene.xyxy[:] = rng.uniform(0, 1, (256, 4)).astype(np.float32)
    result = assemble(scene, room=0, seed=seed)
    masks = unpack(result)
    found = id_map(result)
    assert (found == reference.id_map(masks)).all()
    assert len(np.unique(found)) > 30
    assert (dense(result) == masks).all()
