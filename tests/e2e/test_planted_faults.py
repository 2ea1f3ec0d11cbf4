"""Planted faults: the self-test catches each of them by computing alone.

Every fault is planted so that hashes, sizes and the manifests inside the networks fit: nothing else can find it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from support.golden_bundles import SHAPES, GoldenBundle, file_of
from support.scenes import Thing, raw_outputs, small_manifest
from yolact_export.pipeline import export_checkpoint
from yolact_plugins import reference
from yolact_runtime import Segmenter
from yolact_runtime import frame_path as frame_path_module
from yolact_runtime.backends import onnxruntime as backend_module
from yolact_runtime.cpu import postprocess as postprocess_module
from yolact_runtime.errors import SelfTestError
from yolact_runtime.masks.masks import Masks
from yolact_runtime.model.bundle import read_manifest
from yolact_runtime.model.manifest import InputSpec, Manifest, PriorSpec

CPU = "onnxruntime-cpu"
THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]
OUTPUTS = raw_outputs(small_manifest(), THINGS)
Plant = Callable[[GoldenBundle, pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another training of another width for the same classes, input and priors."""
    bundle = tmp_path_factory.mktemp("pruned") / "pruned.bundle"
    export_checkpoint(SHAPES.with_name("shapes.pruned.pth"), bundle)
    return bundle


@pytest.fixture
def bundle(shapes: Path, tmp_path: Path) -> GoldenBundle:
    return GoldenBundle.copy(shapes, tmp_path / "copy.bundle")


# --- faults of the manifest -------------------------------------------------------------------------------------------


def input_spec(**changes: Any) -> Plant:
    return manifest_with(lambda m: dataclasses.replace(m, input=dataclasses.replace(m.input, **changes)))


def priors(change: Callable[[PriorSpec], PriorSpec]) -> Plant:
    return manifest_with(lambda m: dataclasses.replace(m, priors=change(m.priors)))


def manifest_with(change: Callable[[Manifest], Manifest], embedded: bool = True) -> Plant:
    return lambda bundle, _: bundle.edit_manifest(change, embedded)


def _replaced(**changes: Any) -> Callable[[PriorSpec], PriorSpec]:
    return lambda spec: dataclasses.replace(spec, **changes)


def rename_a_class(manifest: Manifest) -> Manifest:
    return dataclasses.replace(manifest, class_names=("person", *manifest.class_names[1:]))


def swap_classes(manifest: Manifest) -> Manifest:
    first, second, *rest = manifest.class_names
    return dataclasses.replace(manifest, class_names=(second, first, *rest))


MANIFEST_FAULTS: dict[str, Plant] = {
    "no mean": input_spec(mean_bgr=(0.0, 0.0, 0.0)),
    "mean in the order of RGB": input_spec(mean_bgr=(123.68, 116.78, 103.94)),
    "mean of another training": input_spec(mean_bgr=(127.5, 127.5, 127.5)),
    "no standard deviation": input_spec(std_bgr=(1.0, 1.0, 1.0)),
    "one standard deviation for all": input_spec(std_bgr=(58.0, 58.0, 58.0)),
    "standard deviation of values up to 1": input_spec(std_bgr=(0.225, 0.224, 0.229)),
    "swapped channels": input_spec(channel_order="BGR"),
    "scales a tenth larger": priors(
        lambda p: dataclasses.replace(p, scales_px=tuple(tuple(1.1 * s for s in level) for level in p.scales_px))
    ),
    "scales in the other order": priors(lambda p: dataclasses.replace(p, scales_px=p.scales_px[::-1])),
    "scales of the next level": priors(lambda p: dataclasses.replace(p, scales_px=(*p.scales_px[1:], p.scales_px[-1]))),
    "aspect ratios in another order": priors(_replaced(aspect_ratios=(1.0, 2.0, 0.5))),
    "aspect ratios of another model": priors(_replaced(aspect_ratios=(1.0, 1 / 3, 3.0))),
    "the other kind of priors": priors(lambda p: dataclasses.replace(p, square=not p.square)),
    "variances swapped": priors(_replaced(variances=(0.2, 0.1))),
    "variances of one": priors(_replaced(variances=(1.0, 1.0))),
    "a class renamed": manifest_with(rename_a_class),
    "two classes swapped": manifest_with(swap_classes),
    "a manifest that is not the network's": manifest_with(
        lambda m: dataclasses.replace(m, input=dataclasses.replace(m.input, mean_bgr=(0.0, 0.0, 0.0))), embedded=False
    ),
    "a class renamed in the manifest alone": manifest_with(rename_a_class, embedded=False),
}


# --- other files ------------------------------------------------------------------------------------------------------


def file_in_place_of(precision: str, other: str) -> Plant:
    return lambda bundle, _: bundle.put_network(precision, bundle.folder / file_of(other))


FILE_FAULTS: dict[str, tuple[str, Plant]] = {
    f"{other} in place of {precision}": (precision, file_in_place_of(precision, other))
    for precision, other in (
        ("fp32", "fp16"),
        ("fp32", "int8"),
        ("fp32", "int8-cpu"),
        ("fp16", "int8"),
        ("fp16", "int8-cpu"),
        ("int8", "fp32"),
        ("int8", "fp16"),
        ("int8-cpu", "fp32"),
        ("int8-cpu", "fp16"),
    )
}


# --- faults of the network --------------------------------------------------------------------------------------------


def weights(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """The first weight of the first convolution whose name holds `name`."""
    node = next(n for n in model.graph.node if n.op_type == "Conv" and name in n.name)
    return next(t for t in model.graph.initializer if t.name == node.input[1])


def change_weights(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    def edit(model: onnx.ModelProto) -> None:
        tensor = weights(model, name)
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))

    return lambda bundle, _: bundle.edit_network("fp32", edit)


def change_all_weights(change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    def edit(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.ndim == 4:
                tensor.CopyFrom(numpy_helper.from_array(change(values), tensor.name))

    return lambda bundle, _: bundle.edit_network("fp32", edit)


def flip_bit(values: np.ndarray, bit: int) -> np.ndarray:
    flat = values.reshape(-1).view(np.uint32)
    flat[len(flat) // 2] ^= np.uint32(1 << bit)
    return values


def replace_operator(kind: str, other: str) -> Plant:
    def edit(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == kind)
        node.op_type = other
        del node.attribute[:]

    return lambda bundle, _: bundle.edit_network("fp32", edit)


def resize_mode(name: str, value: bytes) -> Plant:
    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == "Resize" and attribute.name == name:
                    attribute.s = value

    return lambda bundle, _: bundle.edit_network("fp32", edit)


def noise(values: np.ndarray, share: float) -> np.ndarray:
    random = np.random.default_rng(0)
    return (values * (1 + share * random.normal(size=values.shape))).astype(np.float32)


def scale_first(values: np.ndarray, factor: float) -> np.ndarray:
    values[0] *= np.float32(factor)
    return values


NETWORK_FAULTS: dict[str, Plant] = {
    "an earlier checkpoint, half a percent away": change_all_weights(functools.partial(noise, share=0.005)),
    "weights without training": change_all_weights(functools.partial(noise, share=1.0)),
    "a dead channel in the first convolution": change_weights("backbone", functools.partial(scale_first, factor=0.0)),
    "prototypes in another order": change_weights("proto_net.10", lambda v: v[::-1].copy()),
    "coefficients negated": change_weights("mask_layer", lambda v: -v),
    "one class's logits doubled": change_weights("conf_layer", functools.partial(scale_first, factor=2.0)),
    "boxes negated": change_weights("bbox_layer", lambda v: -v),
    "a flipped exponent bit": change_weights("backbone", functools.partial(flip_bit, bit=29)),
    "a flipped sign in the pyramid": change_weights("fpn", lambda v: -v),
    "a kernel transposed": change_weights("backbone", lambda v: v.transpose(0, 1, 3, 2).copy()),
    "coefficients without tanh": replace_operator("Tanh", "Identity"),
    "a ReLU left out": replace_operator("Relu", "Identity"),
    "nearest neighbours in the pyramid": resize_mode("mode", b"nearest"),
    "corners aligned in the pyramid": resize_mode("coordinate_transformation_mode", b"align_corners"),
}


# --- faults of the code, the library and the machine ------------------------------------------------------------------


def patched(module: Any, name: str, wrong: Callable[..., Any]) -> Plant:
    """`wrong` is called with the right function first."""

    def plant(_: GoldenBundle, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, name, functools.partial(wrong, getattr(module, name)))

    return plant


def nearest(_: Any, frame: np.ndarray, spec: InputSpec) -> np.ndarray:
    rows = np.arange(spec.height) * len(frame) // spec.height
    columns = np.arange(spec.width) * frame.shape[1] // spec.width
    return reference.preprocess(
        frame[rows][:, columns], spec.height, spec.width, spec.mean_bgr, spec.std_bgr, spec.channel_order
    )


def letterbox(right: Any, frame: np.ndarray, spec: InputSpec) -> np.ndarray:
    height, width = frame.shape[:2]
    padded = np.zeros((max(height, width),) * 2 + (3,), np.uint8)
    padded[:height, :width] = frame
    return right(padded, spec)


def corners_aligned(_: Any, frame: np.ndarray, spec: InputSpec) -> np.ndarray:
    y, x = (np.linspace(0, n - 1, m) for n, m in zip(frame.shape, (spec.height, spec.width), strict=False))
    image = frame.astype(np.float64)
    top, left = y.astype(int), x.astype(int)
    low = (
        image[top] * (1 - (y - top))[:, None, None]
        + image[np.minimum(top + 1, len(image) - 1)] * (y - top)[:, None, None]
    )
    share = (x - left)[None, :, None]
    stretched = low[:, left] * (1 - share) + low[:, np.minimum(left + 1, image.shape[1] - 1)] * share
    return reference.preprocess(
        stretched.astype(np.float32), spec.height, spec.width, spec.mean_bgr, spec.std_bgr, spec.channel_order
    )


def moved_masks(right: Any, *arguments: Any) -> Masks:
    return Masks.from_dense(np.roll(right(*arguments).dense(), 12, axis=2))


def outputs_by(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Plant:
    """The library computes something else."""

    def plant(_: GoldenBundle, patch: pytest.MonkeyPatch) -> None:
        right = backend_module.OnnxRuntimeBackend.infer
        patch.setattr(
            backend_module.OnnxRuntimeBackend, "infer", lambda self, tensor: change(dict(right(self, tensor)))
        )

    return plant


def one_output(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    return outputs_by(lambda outputs: {**outputs, name: change(outputs[name])})


def scored(right: Any, logit: np.ndarray, threshold: float) -> Any:
    found = right(logit, threshold)
    return found._replace(score=np.roll(found.score, 1, axis=1))


def confidence_squared(right: Any, *arguments: Any) -> Any:
    found = right(*arguments)
    return found._replace(confidence=found.confidence**2)


CODE_FAULTS: dict[str, Plant] = {
    "nearest neighbours": patched(frame_path_module, "stretch", nearest),
    "a letterbox": patched(frame_path_module, "stretch", letterbox),
    "corners aligned": patched(frame_path_module, "stretch", corners_aligned),
    "a frame that is RGB": patched(
        frame_path_module, "stretch", lambda right, f, spec: right(f[..., ::-1].copy(), spec)
    ),
    "a frame upside down": patched(frame_path_module, "stretch", lambda right, f, spec: right(f[::-1].copy(), spec)),
    "values up to 1": patched(frame_path_module, "stretch", lambda right, f, spec: right(f, spec) / np.float32(255)),
    "boxes in the order of rows": patched(
        postprocess_module, "decode", lambda right, *given: right(*given)[:, [1, 0, 3, 2]]
    ),
    "boxes of centre and size": patched(
        postprocess_module, "decode", lambda right, r, p, v: np.concatenate([p[:, :2], p[:, :2] + p[:, 2:]], axis=1)
    ),
    "masks moved by twelve pixels": patched(postprocess_module, "assemble_masks", moved_masks),
    "masks of the wrong prototypes": patched(
        postprocess_module, "assemble_masks", lambda right, p, *rest: right(p[::-1].copy(), *rest)
    ),
    "masks turned inside out": patched(
        postprocess_module, "assemble_masks", lambda right, p, c, *rest: right(p, -c, *rest)
    ),
    "classes shifted by one": patched(postprocess_module, "find_candidates", scored),
    "another scale of confidence": patched(postprocess_module, "select", confidence_squared),
    "no suppression": patched(
        postprocess_module,
        "select",
        lambda right, c, xyxy, settings, size: right(c, xyxy, dataclasses.replace(settings, iou_threshold=1.0), size),
    ),
    "corners not scaled to the frame": patched(
        postprocess_module, "to_pixels", lambda right, xyxy, height, width: right(xyxy, width, height)
    ),
    "outputs rounded to float16": outputs_by(
        lambda outputs: {name: array.astype(np.float16).astype(np.float32) for name, array in outputs.items()}
    ),
    "a percent of noise": outputs_by(lambda outputs: {name: noise(array, 0.01) for name, array in outputs.items()}),
    "outputs of nothing": outputs_by(lambda outputs: {name: np.zeros_like(array) for name, array in outputs.items()}),
    "outputs of the frame before": outputs_by(
        lambda outputs: {name: np.roll(array, 1, axis=1) for name, array in outputs.items()}
    ),
    "a prototype of -Inf": one_output("prototype", lambda array: np.where(array == array.max(), -np.inf, array)),
    "logits that are not numbers": one_output("class_logit", lambda array: array * np.float32(np.nan)),
    "coefficients negated by the library": one_output("mask_coefficient", np.negative),
}


@pytest.mark.parametrize("name", MANIFEST_FAULTS)
def test_a_wrong_manifest_is_caught(bundle: GoldenBundle, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    MANIFEST_FAULTS[name](bundle, monkeypatch)
    # Limits are widest where most is lost.
    for precision in ("fp32", "int8"):
        check_caught(bundle, precision)


@pytest.mark.parametrize("name", FILE_FAULTS)
def test_a_network_of_another_precision_is_caught(
    bundle: GoldenBundle, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    precision, plant = FILE_FAULTS[name]
    plant(bundle, monkeypatch)
    check_caught(bundle, precision)


@pytest.mark.parametrize("name", NETWORK_FAULTS)
def test_a_wrong_network_is_caught(bundle: GoldenBundle, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    NETWORK_FAULTS[name](bundle, monkeypatch)
    check_caught(bundle, "fp32")


@pytest.mark.parametrize("name", CODE_FAULTS)
def test_wrong_code_and_wrong_libraries_are_caught(
    bundle: GoldenBundle, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    CODE_FAULTS[name](bundle, monkeypatch)
    check_caught(bundle, "fp32")


def check_caught(bundle: GoldenBundle, precision: str) -> None:
    with pytest.raises(SelfTestError, match=r"self-test of .* failed .*\n  "):
        Segmenter.open(bundle.folder, CPU, precision=precision, self_test=True)


def test_another_models_file_is_caught(bundle: GoldenBundle, pruned: Path) -> None:
    bundle.put_network("fp32", pruned / file_of("fp32"))
    check_caught(bundle, "fp32")


def test_another_models_golden_frame_is_caught(bundle: GoldenBundle, pruned: Path) -> None:
    (bundle.folder / "golden.npz").write_bytes((pruned / "golden.npz").read_bytes())
    bundle.write(read_manifest(bundle.folder))
    check_caught(bundle, "fp32")


def test_fifty_faults_are_planted() -> None:
    assert len(MANIFEST_FAULTS) + len(FILE_FAULTS) + len(NETWORK_FAULTS) + len(CODE_FAULTS) >= 50
