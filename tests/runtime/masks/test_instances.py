from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.scenes import make_instances
from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks

BOXES = [(0.0, 0.0, 4.0, 3.0), (2.0, 1.0, 5.0, 6.0), (1.0, 1.0, 2.0, 2.0)]


def test_length_and_frame() -> None:
    instances = make_instances(6, 8, BOXES)
    assert (len(instances), instances.height, instances.width) == (3, 6, 8)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(2), [0, 1]),
        (slice(None), [0, 1, 2]),
        (slice(10, None), []),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        ([], []),
        (np.array([True, False, True]), [0, 2]),
        (np.array([1, 1]), [1, 1]),
    ],
)
def test_a_selection_selects_every_field(index: Any, expected: list[int]) -> None:
    instances = make_instances(6, 8, BOXES, class_id=[5, 6, 7], mask_confidence=[0.1, 0.2, 0.3])
    selected = instances[index]
    assert len(selected) == len(expected)
    assert selected.class_id.tolist() == [5 + i for i in expected]
    assert selected.xyxy.tolist() == [list(BOXES[i]) for i in expected]
    assert selected.confidence.tolist() == [instances.confidence[i] for i in expected]
    assert selected.mask_confidence is not None
    assert selected.mask_confidence.tolist() == [np.float32(0.1 * (i + 1)) for i in expected]
    assert (selected.mask.dense() == instances.mask.dense()[expected]).all()
    assert (selected.height, selected.width) == (6, 8)


def test_a_selection_without_mask_confidence_has_none() -> None:
    assert make_instances(6, 8, BOXES)[:1].mask_confidence is None


def _fields(**changes: Any) -> dict[str, Any]:
    return {
        "xyxy": np.zeros((2, 4), np.float32),
        "mask": Masks.empty(2, 3, 4),
        "confidence": np.zeros(2, np.float32),
        "class_id": np.zeros(2, np.int32),
        **changes,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"xyxy": np.zeros((1, 4), np.float32)},
        {"xyxy": np.zeros((2, 5), np.float32)},
        {"xyxy": np.zeros(2, np.float32)},
        {"mask": Masks.empty(1, 3, 4)},
        {"confidence": np.zeros(3, np.float32)},
        {"class_id": np.zeros(0, np.int32)},
        {"mask_confidence": np.zeros(1, np.float32)},
        {"confidence": np.zeros((2, 1), np.float32)},
        {"class_id": np.zeros((2, 2), np.int32)},
        {"class_id": 0},
        {"mask_confidence": np.float32(0)},
        {"xyxy": [[0, 1, 2, 3]]},
    ],
)
def test_fields_that_disagree_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match="instances disagree"):
        Instances(**_fields(**changes))
    Instances(**_fields())
