"""The golden frame of a bundle: what is drawn, what is chosen, and how far a backend may be from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.precision_trials import MANIFEST
from support.quantised import float_network
from support.recorder import Recorder
from support.scenes import Thing, small_manifest, write_bundle
from yolact_calibration.float16.conversion import to_float16
from yolact_export import golden as golden_module
from yolact_export.bundle_writer import write_manifest
from yolact_export.golden import write_golden
from yolact_runtime.errors import BackendError
from yolact_runtime.golden import OTHER_BACKENDS, Golden, read_golden
from yolact_runtime.model.bundle import file_sha256, read_manifest
from yolact_runtime.model.manifest import InputSpec, Manifest

CPU = "onnxruntime-cpu"
NETWORK = "model.fp32.onnx"
BRIGHT = small_manifest(input=InputSpec(32, 48, (0.0, 0.0, 0.0), (57.38, 57.12, 58.40)))


def write(
    folder: Path, things: list[Thing], manifest: Manifest = BRIGHT, mask_iou: list[float] | None = None
) -> Golden:
    """Of a network that sees these things in every frame."""
    write_bundle(folder, things, manifest, mask_iou)
    manifest = write_golden(folder, read_manifest(folder))
    assert read_manifest(folder) == manifest
    assert manifest.artefacts["golden.npz"].sha256 == file_sha256(folder / "golden.npz")
    return read_golden(folder / "golden.npz")


def things(*confidences: float) -> list[Thing]:
    return [
        Thing((0.1 * i, 0.1 * i, 0.1 * i + 0.3, 0.1 * i + 0.4), class_id=i % 3, confidence=confidence)
        for i, confidence in enumerate(confidences)
    ]


def test_what_stands_out_is_expected(tmp_path: Path) -> None:
    golden = write(tmp_path, things(0.9, 0.8, 0.75, 0.1))
    instances = golden.expectations["fp32"].instances
    assert instances is not None
    np.testing.assert_allclose(instances.confidence, [0.9, 0.8, 0.75], rtol=1e-5)
    assert golden.min_confidence == pytest.approx((0.75 + 0.1) / 2, abs=1e-5)
    assert golden.class_names == BRIGHT.class_names


@pytest.mark.parametrize("confidences", [(), (0.15, 0.14), (0.26, 0.19, 0.12, 0.06)])
def test_where_nothing_stands_out_outputs_alone_are_compared(tmp_path: Path, confidences: tuple[float, ...]) -> None:
    golden = write(tmp_path, things(*confidences))
    assert golden.expectations["fp32"].instances is None
    assert len(golden.expectations["fp32"].outputs["box_regression"]) == 360


def test_masks_that_are_rescored_have_their_confidence_too(tmp_path: Path) -> None:
    instances = write(tmp_path, things(0.9, 0.8), mask_iou=[0.5, 1.0, 2.0]).expectations["fp32"].instances
    assert instances is not None
    assert instances.mask_confidence is not None
    assert (instances.mask_confidence > 0).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((32, 48), (270, 480)), ((54, 96), (300, 400)), ((64, 64), (270, 480)), ((96, 54), (270, 480))],
)
def test_the_frame_has_another_aspect_than_the_input(size: tuple[int, int], expected: tuple[int, int]) -> None:
    manifest = dataclasses.replace(BRIGHT, input=dataclasses.replace(BRIGHT.input, height=size[0], width=size[1]))
    assert golden_module._size(manifest) == expected


def test_a_random_network_in_two_precisions(tmp_path: Path) -> None:
    model = float_network()
    onnx.save(model, tmp_path / NETWORK)
    onnx.save(to_float16(model).model, tmp_path / "model.fp16.onnx")
    names = {NETWORK: "fp32", "model.fp16.onnx": "fp16"}
    write_golden(tmp_path, write_manifest(tmp_path, MANIFEST, dict.fromkeys(names, "network"), names))
    golden = read_golden(tmp_path / "golden.npz")
    single, half, half_here = (golden.expectations[name] for name in ("fp32", "fp16", "fp16 on onnxruntime-cpu"))
    assert "rounded to float16 as an engine does" in half.made_by
    assert "rounded" not in half_here.made_by
    for name, values in single.outputs.items():
        assert not np.array_equal(values, half.outputs[name])
        np.testing.assert_allclose(values, half.outputs[name], atol=0.05 * np.abs(values).max())
        # Float16's own rounding is within its limit, and beyond that of float32.
        assert half.tolerance_of("tensorrt").outputs[name] >= 0.01
        assert single.tolerance_of(CPU).outputs[name] == 1e-4
        assert single.tolerance_of(OTHER_BACKENDS).outputs[name] == 0.01
        # ONNX Runtime on a CPU rounds at few places, and another machine's does as this one's.
        assert half_here.tolerance_of(CPU).outputs[name] < 0.005


def test_a_network_that_does_not_look_at_the_picture_is_called_that(tmp_path: Path) -> None:
    model = float_network()
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            zeros = np.zeros(onnx.numpy_helper.to_array(tensor).shape, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
    onnx.save(model, tmp_path / NETWORK)
    told = Recorder()
    write_golden(tmp_path, write_manifest(tmp_path, MANIFEST, {NETWORK: "network"}), told)
    assert told.warnings == ["the network's outputs do not depend on the picture: it is not trained, or damaged"]


def overflowing() -> onnx.ModelProto:
    """A network whose prototypes are infinite."""
    model = float_network()
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("proto_net.10.bias"))
    values = np.full(onnx.numpy_helper.to_array(tensor).shape, np.inf, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return model


def test_a_lower_precision_that_does_not_give_numbers_has_no_expectation(tmp_path: Path) -> None:
    onnx.save(float_network(), tmp_path / NETWORK)
    onnx.save(to_float16(overflowing()).model, tmp_path / "model.fp16.onnx")
    names = {NETWORK: "fp32", "model.fp16.onnx": "fp16"}
    told = Recorder()
    write_golden(tmp_path, write_manifest(tmp_path, MANIFEST, dict.fromkeys(names, "network"), names), told)
    assert set(read_golden(tmp_path / "golden.npz").expectations) == {"fp32"}
    (warning,) = told.warnings
    assert warning.startswith('the golden frame has no expectation for fp16: the network output "prototype"')


def test_a_network_that_does_not_give_numbers_has_no_golden_frame(tmp_path: Path) -> None:
    onnx.save(overflowing(), tmp_path / NETWORK)
    with pytest.raises(BackendError, match="NaN or infinity"):
        write_golden(tmp_path, write_manifest(tmp_path, MANIFEST, {NETWORK: "network"}))
    assert not (tmp_path / "golden.npz").exists()
