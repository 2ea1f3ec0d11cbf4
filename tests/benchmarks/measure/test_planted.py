from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import Thing, raw_outputs, small_manifest
from yolact_benchmarks.measure.planted import PlantedBackend, planted_outputs
from yolact_benchmarks.measure.scenes import COCO_550, make_outputs
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.backends import FakeBackend
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.errors import UsageError
from yolact_runtime.model.manifest import Manifest

LIKE = make_outputs(1, 0.1, seed=0)
ONE_CLASS = dataclasses.replace(COCO_550, class_names=("balloon",))


def found(manifest: Manifest, like: dict[str, np.ndarray], count: int, seed: int) -> int:
    options = SegmenterOptions(min_confidence=0.3)
    post = Postprocessor.of(manifest, options.nms_settings(manifest))
    return len(post(planted_outputs(manifest, like, count, seed), 270, 480))


@pytest.mark.parametrize("count", [0, 1, 10, 100])
def test_exactly_so_many_are_found(count: int) -> None:
    assert found(COCO_550, LIKE, count, seed=count) == count


@pytest.mark.parametrize("seed", range(6))
def test_a_hundred_of_one_class_do_not_suppress_each_other(seed: int) -> None:
    like = {**LIKE, "class_logit": LIKE["class_logit"][..., :2]}
    assert found(ONE_CLASS, like, 100, seed) == 100


@given(st.integers(0, 30), st.integers(0, 2**31))
@examples(30)
def test_a_small_model_too(count: int, seed: int) -> None:
    manifest = small_manifest()
    assert found(manifest, raw_outputs(manifest, []), count, seed) == count


def test_masks_are_neither_empty_nor_whole_boxes() -> None:
    post = Postprocessor.of(COCO_550, SegmenterOptions(min_confidence=0.3).nms_settings(COCO_550))
    instances = post(planted_outputs(COCO_550, LIKE, 100), 1080, 1920)
    sides = instances.xyxy[:, 2:] - instances.xyxy[:, :2]
    share = instances.mask.area() / sides.prod(axis=1)
    assert 0.3 < np.median(share) < 0.8
    assert np.mean(sides.prod(axis=1)) / (1080 * 1920) == pytest.approx(0.025, rel=0.2)


def test_shapes_and_types_are_those_of_the_network() -> None:
    like = {name: array.astype(np.float16) for name, array in LIKE.items()}
    outputs = planted_outputs(COCO_550, like, 10)
    assert {name: (array.shape, array.dtype) for name, array in outputs.items()} == {
        name: (array.shape, array.dtype) for name, array in like.items()
    }
    again = planted_outputs(COCO_550, like, 10)
    assert all(np.array_equal(outputs[name], again[name]) for name in outputs)


def test_more_than_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="can return 0 to 100 instances, found 101"):
        planted_outputs(COCO_550, LIKE, 101)
    manifest = small_manifest()
    with pytest.raises(UsageError, match="0 to 30 instances, found 31"):
        planted_outputs(manifest, raw_outputs(manifest, []), 31)


def test_the_network_runs_all_the_same_and_stays_open() -> None:
    manifest = small_manifest()
    raw = raw_outputs(manifest, [Thing((0.1, 0.1, 0.5, 0.5))])
    network = FakeBackend([raw])
    options = SegmenterOptions(min_confidence=0.3)
    planted = PlantedBackend(network, planted_outputs(manifest, raw, 5))
    with Segmenter(manifest, planted, None, options) as segmenter:
        assert len(segmenter(np.zeros((20, 30, 3), np.uint8))) == 5
    assert len(network.tensors) == 1
    assert len(Segmenter(manifest, network, None, options)(np.zeros((20, 30, 3), np.uint8))) == 1
