"""The file of the golden frame: what is written is read, and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import Thing, make_instances, raw_outputs, small_manifest
from yolact_runtime.errors import BundleError
from yolact_runtime.golden import (
    OTHER_BACKENDS,
    Expectation,
    Golden,
    Tolerance,
    encode_golden,
    read_golden,
    sample,
)
from yolact_runtime.model.network_outputs import RawOutputs

MANIFEST = small_manifest()
OUTPUTS = {name: sample(array) for name, array in raw_outputs(MANIFEST, [Thing((0.2, 0.2, 0.8, 0.8))]).items()}
TOLERANCE = Tolerance(dict.fromkeys(RawOutputs._fields, 0.01), 0.02, 0.9, 0.8, 0.7)


def make_golden(seed: int = 0) -> Golden:
    rng = np.random.default_rng(seed)
    boxes = [(1.0, 2.0, 20.0, 22.0), (5.0, 5.0, 39.0, 29.0), (0.0, 0.0, 4.0, 4.0), (10.0, 3.0, 12.0, 30.0)]
    instances = make_instances(30, 40, boxes, [0, 2, 1, 0])
    rescored = dataclasses.replace(instances, mask_confidence=instances.confidence * np.float32(0.5))
    exact = {"onnxruntime-cpu": dataclasses.replace(TOLERANCE, matched=1.0), OTHER_BACKENDS: TOLERANCE}
    return Golden(
        rng.integers(0, 256, (30, 40, 3), np.uint8),
        MANIFEST.class_names,
        MANIFEST.detection,
        0.3,
        sample(rng.normal(size=(1, 3, 32, 48))),
        sample(rng.normal(size=(90, 4))),
        {
            "fp32": Expectation("ONNX Runtime", OUTPUTS, rescored, exact),
            "int8": Expectation("rounded", OUTPUTS, instances, {OTHER_BACKENDS: TOLERANCE}),
            "fp16": Expectation("finds nothing", OUTPUTS, None, {OTHER_BACKENDS: TOLERANCE}),
        },
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    golden = make_golden()
    content = encode_golden(golden)
    assert encode_golden(make_golden()) == content
    (tmp_path / "golden.npz").write_bytes(content)
    found = read_golden(tmp_path / "golden.npz")
    np.testing.assert_array_equal(found.frame, golden.frame)
    assert (found.class_names, found.detection, found.min_confidence) == (MANIFEST.class_names, MANIFEST.detection, 0.3)
    np.testing.assert_array_equal(found.tensor, golden.tensor)
    np.testing.assert_array_equal(found.prior, golden.prior)
    assert set(found.expectations) == set(golden.expectations)
    for precision, expected in golden.expectations.items():
        mine = found.expectations[precision]
        assert (mine.made_by, mine.tolerance) == (expected.made_by, expected.tolerance)
        for name in RawOutputs._fields:
            np.testing.assert_array_equal(mine.outputs[name], expected.outputs[name])
        if expected.instances is None:
            assert mine.instances is None
            continue
        assert mine.instances is not None
        assert mine.instances.mask == expected.instances.mask
        np.testing.assert_array_equal(mine.instances.xyxy, expected.instances.xyxy)
        np.testing.assert_array_equal(mine.instances.class_id, expected.instances.class_id)
        assert (mine.instances.mask_confidence is None) == (expected.instances.mask_confidence is None)


def test_a_backend_that_computes_in_its_own_way_has_an_expectation_of_its_own() -> None:
    golden = make_golden()
    own = dataclasses.replace(golden.expectations["int8"], made_by="the CPU")
    golden = dataclasses.replace(golden, expectations={**golden.expectations, "int8 on onnxruntime-cpu": own})
    found = [golden.expectation("int8", backend) for backend in ("onnxruntime-cpu", "tensorrt")]
    assert [one.made_by for one in found if one is not None] == ["the CPU", "rounded"]
    assert golden.expectation("int4", "tensorrt") is None


def test_a_backend_without_a_tolerance_of_its_own_has_that_of_all_others() -> None:
    expectation = make_golden().expectations["fp32"]
    assert expectation.tolerance_of("onnxruntime-cpu").matched == 1.0
    assert expectation.tolerance_of("tensorrt").matched == 0.7


@examples(60)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_a_sample_is_spread_over_the_array(shape: list[int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = sample(array)
    assert found.dtype == np.float32
    if array.size <= 1024:
        assert found.tolist() == array.ravel().tolist()
        return
    assert len(found) == 1024
    assert (found >= 0).all()
    assert found.max() < array.size
    # Golden-ratio steps: no part of the array of a thirtieth is without one.
    gaps = np.diff(np.sort(np.append(found, [0, array.size])))
    assert gaps.max() <= array.size / 300


def test_a_sample_of_a_view_is_that_of_its_values() -> None:
    array = np.random.default_rng(0).normal(size=(40, 50, 3)).astype(np.float32)
    np.testing.assert_array_equal(sample(array.transpose(2, 0, 1)), sample(array.transpose(2, 0, 1).copy()))
    assert not np.shares_memory(sample(array[:2, :2]), array)


# --- damaged files ----------------------------------------------------------------------------------------------------


@examples(150)
@given(st.data())
def test_a_damaged_file_is_refused_or_still_a_golden_frame(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    content = bytearray(encode_golden(make_golden()))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    path.write_bytes(bytes(content[:length]))
    with contextlib.suppress(BundleError):
        assert read_golden(path).frame.shape[2] == 3


def entries(**changes: Any) -> bytes:
    """The file with some arrays replaced, or removed by None."""
    with np.load(io.BytesIO(encode_golden(make_golden()))) as arrays:
        there = {name: arrays[name] for name in arrays.files}
    there |= {name.replace("__", "/"): value for name, value in changes.items()}
    content = io.BytesIO()
    np.savez(content, **{name: value for name, value in there.items() if value is not None})
    return content.getvalue()


def document(**changes: Any) -> np.ndarray:
    with np.load(io.BytesIO(encode_golden(make_golden()))) as arrays:
        found = json.loads(arrays["document"].tobytes())
    return np.frombuffer(json.dumps(found | changes).encode(), np.uint8)


def limits(**changes: float) -> np.ndarray:
    """The document with another limit of an output, or of the instances."""
    whole = dataclasses.asdict(TOLERANCE)
    for name, value in changes.items():
        (whole["outputs"] if name in whole["outputs"] else whole)[name] = value
    return document(expectations={"fp32": {"made_by": "", "tolerance": {OTHER_BACKENDS: whole}}})


@pytest.mark.parametrize(
    "changes",
    [
        {"frame": None},
        {"frame": np.zeros((3, 4), np.uint8)},
        {"frame": np.zeros((3, 4, 4), np.uint8)},
        {"frame": np.zeros((0, 4, 3), np.uint8)},
        {"frame": np.zeros((3, 4, 3), np.float32)},
        {"tensor": np.zeros(3, np.complex64)},
        {"prior": np.array(["a", "b"])},
        {"fp32__prototype": None},
        {"fp32__confidence": np.zeros(3, np.float32)},
        {"fp32__run_start": np.zeros(1, np.int64)},
        {"fp32__run_end": np.full(10_000, 10**9, np.int64)},
        {"document": np.zeros(0, np.uint8)},
        {"document": document(version=2)},
        {"document": document(expectations=[])},
        {"document": document(expectations={"fp32": {"made_by": "", "tolerance": {}}})},
        {"document": document(min_confidence="high")},
        {"document": document(min_confidence=float("nan"))},
        {"document": document(min_confidence=-3)},
        {"document": limits(prototype=0.0)},
        {"document": limits(prototype=float("inf"))},
        {"document": limits(prototype=float("nan"))},
        {"document": limits(confidence=-0.1)},
        {"document": limits(matched=2)},
        {"frame": np.zeros((1, 20_000, 3), np.uint8)},
        {"tensor": np.full(3, np.inf, np.float32)},
        {"fp32__class_logit": np.full(3, np.nan, np.float32)},
        {"document": document(detection={"top_k": 0})},
    ],
    ids=str,
)
def test_a_file_with_other_contents_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "golden.npz").write_bytes(entries(**changes))
    with pytest.raises(BundleError, match="is not a golden frame that this release reads"):
        read_golden(tmp_path / "golden.npz")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("code of the file was run",))

    content = io.BytesIO()
    np.savez(content, frame=np.array([Trap()], object))
    (tmp_path / "golden.npz").write_bytes(content.getvalue())
    with pytest.raises(BundleError, match="is not a golden frame"):
        read_golden(tmp_path / "golden.npz")


def test_a_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, frame=np.zeros(70 << 20, np.uint8))
    (tmp_path / "golden.npz").write_bytes(content.getvalue())
    with pytest.raises(BundleError, match="unpacks to more than 64 MiB"):
        read_golden(tmp_path / "golden.npz")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*golden.npz: No such file"):
        read_golden(tmp_path / "golden.npz")
