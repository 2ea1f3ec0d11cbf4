"""Instances become detections of the package supervision: every pixel of every mask, compact, with names."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import make_instances
from yolact_runtime.errors import MissingDependencyError, ShapeError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what supervision and its own dependencies say at import
    import supervision as sv

ROOT = Path(__file__).parents[3]
NAMES = ("cat", "dog", "bird")
COMPACT = hasattr(sv, "CompactMask")
BOXES = [(0.0, 0.0, 4.0, 3.0), (2.0, 1.0, 5.0, 6.0), (1.0, 1.0, 2.0, 2.0)]


def dense_of(mask: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(mask, bool)


@st.composite
def scenes(draw: st.DrawFn) -> Instances:
    """Masks that are empty, full, at borders and scattered; boxes that have nothing to do with them."""
    count, height, width = draw(st.integers(0, 4)), draw(st.integers(1, 14)), draw(st.integers(1, 14))
    dense = np.zeros((count, height, width), bool)
    for mask in dense:
        kind = draw(st.sampled_from(["empty", "full", "border", "noise", "box"]))
        if kind == "full":
            mask[:] = True
        elif kind == "border":
            mask[draw(st.sampled_from([0, -1]))] = True
            mask[:, draw(st.sampled_from([0, -1]))] = True
        elif kind == "noise":
            flags = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
            mask[:] = np.array(flags).reshape(height, width)
        elif kind == "box":
            mask[draw(st.integers(0, height)) :, draw(st.integers(0, width)) :] = True
    sides = st.floats(-5, 20, width=32)
    boxes = np.array([[draw(sides) for _ in range(4)] for _ in range(count)], np.float32).reshape(count, 4)
    scores = np.linspace(0.9, 0.1, count, dtype=np.float32)
    rescored = scores * np.float32(0.5) if draw(st.booleans()) else None
    classes = np.array([draw(st.integers(0, 2)) for _ in range(count)], np.int32)
    return Instances(boxes, Masks.from_dense(dense), scores, classes, rescored, draw(st.sampled_from([NAMES, None])))


@examples(200)
@given(scenes())
def test_detections_have_every_pixel_and_field(instances: Instances) -> None:
    detections, dense = instances.to_supervision(), instances.mask.dense()
    assert isinstance(detections.mask, sv.CompactMask if COMPACT else np.ndarray)
    assert detections.mask.shape == dense.shape
    assert (dense_of(detections.mask) == dense).all()
    # As supervision itself makes boxes of masks, but where there is nothing to make one of.
    filled = dense.any(axis=(1, 2))
    assert (detections.xyxy[filled] == sv.mask_to_xyxy(dense)[filled]).all()
    assert (detections.xyxy[~filled] == instances.xyxy[~filled]).all()
    assert detections.xyxy.dtype == np.float32
    assert (detections.confidence == instances.confidence).all()
    assert (detections.class_id == instances.class_id).all()
    assert (detections.data["network_xyxy"] == instances.xyxy).all()
    assert ("class_name" in detections.data) == (instances.class_names is not None)
    if instances.class_names is not None:
        assert detections.data["class_name"].tolist() == [NAMES[i] for i in instances.class_id]
        assert detections.data["class_name"].dtype.kind == "U"
    assert ("mask_confidence" in detections.data) == (instances.mask_confidence is not None)
    if instances.mask_confidence is not None:
        assert (detections.data["mask_confidence"] == instances.mask_confidence).all()


@examples(50)
@given(scenes().filter(len), st.data())
def test_what_supervision_selects_and_merges_stays_exact(instances: Instances, data: st.DataObject) -> None:
    detections, dense = instances.to_supervision(), instances.mask.dense()
    flags = np.array(data.draw(st.lists(st.booleans(), min_size=len(dense), max_size=len(dense))))
    chosen: Any = detections[flags]
    assert (dense_of(chosen.mask) == dense[flags]).all()
    merged = sv.Detections.merge([detections, detections])
    assert (dense_of(merged.mask) == np.concatenate([dense, dense])).all()
    assert (detections.area == instances.mask.area()).all()


@pytest.mark.skipif(not COMPACT, reason="this supervision has no compact masks")
def test_the_networks_boxes_would_cut_masks_and_that_is_why_they_are_data() -> None:
    dense = np.zeros((1, 20, 20), bool)
    dense[0, 2:18, 2:18] = True
    box = np.array([[4, 4, 16, 16]], np.float32)
    instances = Instances(box, Masks.from_dense(dense), np.ones(1, np.float32), np.zeros(1, np.int32))
    assert dense_of(sv.CompactMask.from_dense(dense, box, (20, 20))).sum() < dense.sum()
    assert dense_of(instances.to_supervision().mask).sum() == dense.sum()


@pytest.mark.skipif(not COMPACT, reason="this supervision has no compact masks")
def test_memory_follows_the_outlines() -> None:
    boxes = [(10.0 * i, 10.0 * i, 10.0 * i + 100, 10.0 * i + 100) for i in range(40)]
    instances = make_instances(500, 600, boxes)
    compact: Any = instances.to_supervision().mask
    assert sum(runs.nbytes for runs in compact._rles) < instances.mask.dense().nbytes / 100


def test_a_supervision_without_compact_masks_gets_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    if COMPACT:
        monkeypatch.delattr(sv, "CompactMask")
    instances = make_instances(6, 8, BOXES)
    detections = instances.to_supervision()
    assert isinstance(detections.mask, np.ndarray)
    assert (detections.mask == instances.mask.dense()).all()


def test_without_supervision_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "yolact-deploy\[supervision\]"') as raised:
        make_instances(6, 8, BOXES).to_supervision()
    assert raised.value.package == "supervision"


def test_a_supervision_that_lacks_something_itself_is_not_called_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "supervision.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "supervision")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        make_instances(6, 8, BOXES).to_supervision()


def test_a_class_without_a_name_is_an_error() -> None:
    found = make_instances(6, 8, BOXES, class_id=[0, 1, 3])
    named = Instances(found.xyxy, found.mask, found.confidence, found.class_id, None, NAMES)
    with pytest.raises(ShapeError, match="class_id 3 has no name"):
        named.to_supervision()


# --- dense, under the same names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("boxes", [BOXES, []])
def test_supervision_takes_as_dict(boxes: list[tuple[float, float, float, float]]) -> None:
    instances = make_instances(6, 8, boxes, class_id=list(range(len(boxes))))
    assert {name: value.dtype for name, value in instances.as_dict().items()} == {  # type: ignore[attr-defined]
        "xyxy": np.float32,
        "mask": bool,
        "confidence": np.float32,
        "class_id": np.int32,
    }
    detections = sv.Detections(**instances.as_dict())
    assert len(detections) == len(boxes)
    assert (detections.mask == instances.mask.dense()).all()
    assert (detections.class_id == instances.class_id).all()
    assert (detections.xyxy == instances.xyxy).all()
    assert (detections.area == instances.mask.area()).all()


TYPED = """
import supervision as sv
from yolact_runtime import Instance, Instances, InstancesDict, Mask, Segmenter
import numpy as np

def check(segmenter: Segmenter, frame: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]) -> None:
    instances = segmenter(frame)
    dense = sv.Detections(**instances.as_dict())
    compact: sv.Detections = instances.to_supervision()
    fields: InstancesDict = instances.as_dict()
    reveal_type(instances[0])
    reveal_type(instances[np.flatnonzero(instances.class_id == 1)])
    reveal_type(instances[[0, 2]])
    reveal_type(instances[instances.confidence.argmax()])
    for instance in instances:
        reveal_type(instance.class_name)
        reveal_type(instance.mask)
    reveal_type(instances.mask[:2])
    reveal_type(instances.mask[-1].bounds())
    instances["xyxy"]  # E: index
    instances.xyxy.wrong  # E: attr-defined
"""


@pytest.mark.checks
def test_a_program_that_uses_the_results_type_checks(tmp_path: Path) -> None:
    """With strict rules, those of this project, whose cache makes it quick after ``mypy`` itself."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    program = tmp_path / "program.py"
    program.write_text(TYPED)
    words = ["--no-error-summary", str(program)]
    done = subprocess.run([sys.executable, "-m", "mypy", *words], capture_output=True, text=True, timeout=600, cwd=ROOT)
    said = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    revealed = [line.split('"')[1].split(".")[-1] for line in said if "Revealed type" in line]
    assert revealed == [
        "Instance",
        "Instances",
        "Instances",
        "Instance",
        "str | None",
        "Mask",
        "Masks",
        "tuple[int, int, int, int]",
    ], done.stdout
    wanted = [line.partition("# E: ")[2] for line in TYPED.splitlines() if "# E: " in line]
    errors = [line.rpartition("[")[2].rstrip("]") for line in said if line.startswith("error")]
    assert errors == wanted, done.stdout
