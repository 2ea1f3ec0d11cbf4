"""Small models, scenes and bundles for the tests of the runtime; everything is hand-made, nothing is trained.

A scene is a list of :class:`Thing`. The raw outputs of a network that detects exactly these objects come from
:func:`raw_outputs`, and :func:`write_bundle` puts them into a real ONNX model inside a real bundle.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_runtime.backends import FakeBackend
from yolact_runtime.cpu.camera_frame import CameraFrame
from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks
from yolact_runtime.model.bundle import MANIFEST_NAME, file_sha256
from yolact_runtime.model.manifest import METADATA_KEY, Artefact, InputSpec, Manifest, PriorSpec
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = [
    "CLASS_NAMES",
    "DEFAULT_PROTOTYPE",
    "Thing",
    "camera_frames",
    "encode_boxes",
    "fake_segmenter",
    "make_instances",
    "mask_iou_model",
    "network_model",
    "raw_outputs",
    "small_manifest",
    "with_precisions",
    "write_bundle",
]

Float = npt.NDArray[np.float32]
CLASS_NAMES = ("cat", "dog", "bird")
_BACKGROUND_LEAD = 20.0
"""Logit of the background where no thing is: its best foreground score is far below any threshold."""


def _default_prototype() -> Float:
    """Return ``(3, 8, 12)`` prototypes: everything inside, the left half inside, the top half inside."""
    prototype = np.full((3, 8, 12), -6, np.float32)
    prototype[0] = 6
    prototype[1, :, :6] = 6
    prototype[2, :4] = 6
    return prototype


DEFAULT_PROTOTYPE = _default_prototype()


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object that a scene's network detects.

    Attributes:
        xyxy: Box of the object, relative to the image.
        class_id: Class index, from 0.
        confidence: Softmax score of its class; the rest belongs to the background.
        prototype: Index of the prototype that is its mask before the crop.
    """

    xyxy: tuple[float, float, float, float]
    class_id: int = 0
    confidence: float = 0.9
    prototype: int = 0


def small_manifest(**changes: Any) -> Manifest:
    """Return the manifest of a model with a 32 x 48 input (rows x columns), 90 priors and three classes.

    The arguments replace fields.
    """
    manifest = Manifest(
        name="small",
        class_names=CLASS_NAMES,
        input=InputSpec(32, 48, (103.94, 116.78, 123.68), (57.38, 57.12, 58.40)),
        priors=PriorSpec(((4, 6), (2, 3)), ((8.0,), (16.0,)), (1.0, 0.5, 2.0), square=False),
        provenance={"made by": "tests"},
    )
    return dataclasses.replace(manifest, **changes)


def encode_boxes(xyxy: Float, priors: Float, variances: tuple[float, float] = (0.1, 0.2)) -> Float:
    """Return regressions that decode to `xyxy`, computed in float64."""
    boxes, anchors = xyxy.astype(np.float64), priors.astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size / 2
    regression = np.concatenate(
        [
            (centre - anchors[:, :2]) / (variances[0] * anchors[:, 2:]),
            np.log(size / anchors[:, 2:]) / variances[1],
        ],
        axis=1,
    )
    return regression.astype(np.float32)


def raw_outputs(manifest: Manifest, things: Sequence[Thing], prototype: Float = DEFAULT_PROTOTYPE) -> dict[str, Float]:
    """Return the outputs of a network that detects exactly `things`; thing ``i`` is at prior ``i``."""
    priors = make_priors(manifest.priors, manifest.input.height, manifest.input.width)
    box_regression = np.zeros((1, len(priors), 4), np.float32)
    class_logit = np.zeros((1, len(priors), len(manifest.class_names) + 1), np.float32)
    class_logit[..., 0] = _BACKGROUND_LEAD
    mask_coefficient = np.zeros((1, len(priors), len(prototype)), np.float32)
    for i, thing in enumerate(things):
        box = np.array([thing.xyxy], np.float32)
        box_regression[0, i] = encode_boxes(box, priors[[i]], manifest.priors.variances)[0]
        class_logit[0, i] = -30
        class_logit[0, i, 0] = np.log(1 - thing.confidence)
        class_logit[0, i, 1 + thing.class_id] = np.log(thing.confidence)
        mask_coefficient[0, i, thing.prototype] = 1
    return {
        "box_regression": box_regression,
        "class_logit": class_logit,
        "mask_coefficient": mask_coefficient,
        "prototype": prototype[None].copy(),
    }


def camera_frames(rng: np.random.Generator, height: int, width: int) -> list[CameraFrame]:
    """Return frames in every format, with even and odd sides, gaps between rows, and both layouts of NV12 and YUYV."""

    def noise(*shape: int) -> npt.NDArray[np.uint8]:
        return rng.integers(0, 256, shape, np.uint8)

    chroma = noise(-(-height // 2), -(-width // 2), 2)
    frames = [
        CameraFrame(noise(height, width, 3), "bgr"),
        CameraFrame(noise(height, width, 3), "rgb"),
        CameraFrame(noise(height, width, 4), "bgra"),
        CameraFrame(noise(height, width), "nv12", chroma),
        CameraFrame(noise(height, width + 6, 3)[:, 3:-3], "bgr"),
    ]
    if width % 2 == 0:
        frames += [CameraFrame(noise(height, width, 2), "yuyv"), CameraFrame(noise(height, width // 2, 4), "yuyv")]
    if width % 2 == 0 and height % 2 == 0:
        frames.append(CameraFrame(noise(height * 3 // 2, width), "nv12"))
    return frames


def fake_segmenter(
    scenes: Sequence[Sequence[Thing]],
    options: SegmenterOptions | None = None,
    manifest: Manifest | None = None,
    mask_iou: FakeBackend | None = None,
) -> tuple[Segmenter, FakeBackend]:
    """Create a segmenter whose network detects one scene after the other; return it with its backend."""
    manifest = manifest or small_manifest()
    backend = FakeBackend([raw_outputs(manifest, things) for things in scenes])
    return Segmenter(manifest, backend, mask_iou, options or SegmenterOptions()), backend


def make_instances(
    height: int,
    width: int,
    boxes: Sequence[tuple[float, float, float, float]],
    class_id: Sequence[int] | None = None,
    mask_confidence: Sequence[float] | None = None,
) -> Instances:
    """Make instances whose masks fill their boxes; confidences fall from 0.9 in steps of 0.01."""
    dense = np.zeros((len(boxes), height, width), bool)
    for mask, box in zip(dense, boxes, strict=True):
        left, top, right, bottom = (max(int(value), 0) for value in box)
        mask[top:bottom, left:right] = True
    return Instances(
        np.array(boxes, np.float32).reshape(-1, 4),
        Masks.from_dense(dense),
        (0.9 - 0.01 * np.arange(len(boxes))).astype(np.float32),
        np.array([0] * len(boxes) if class_id is None else class_id, np.int32),
        None if mask_confidence is None else np.array(mask_confidence, np.float32),
    )


def network_model(manifest: Manifest, outputs: Mapping[str, Float]) -> bytes:
    """Make an ONNX model that returns `outputs` for bright frames and only background for dark ones."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = [1, 3, manifest.input.height, manifest.input.width]
    constants = {f"constant_{name}": array for name, array in outputs.items()}
    constants["background"] = np.zeros((1, 1, outputs["class_logit"].shape[2]), np.float32)
    constants["background"][..., 0] = 100
    nodes = [
        helper.make_node("Identity", [f"constant_{name}"], [name]) for name in outputs if name != "class_logit"
    ] + [
        # Darkness (0 for bright frames) times 100 on the background's logit.
        helper.make_node("Neg", ["image"], ["negative"]),
        helper.make_node("ReduceMean", ["negative", "image_axes"], ["dark"], keepdims=0),
        helper.make_node("Relu", ["dark"], ["darkness"]),
        helper.make_node("Mul", ["darkness", "background"], ["lead"]),
        helper.make_node("Add", ["constant_class_logit", "lead"], ["class_logit"]),
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    initializers.append(numpy_helper.from_array(np.array([0, 1, 2, 3], np.int64), "image_axes"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in outputs.items()],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    embedded = dataclasses.replace(manifest, artefacts={})
    helper.set_model_props(model, {METADATA_KEY: embedded.to_json()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def mask_iou_model(factors: Sequence[float]) -> bytes:
    """Make an ONNX model ``mask (n, 1, Hp, Wp) -> mask_iou (n, C - 1)``: a mask's mean times a factor per class."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["mask", "axes"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "factors"], ["mask_iou"]),
        ],
        "mask_iou",
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, None, None])],
        [helper.make_tensor_value_info("mask_iou", TensorProto.FLOAT, ["n", len(factors)])],
        [
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
            numpy_helper.from_array(np.array([factors], np.float32), "factors"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def write_bundle(
    folder: Path,
    things: Sequence[Thing],
    manifest: Manifest | None = None,
    mask_iou: Sequence[float] | bytes | None = None,
) -> Path:
    """Write a complete bundle folder for ONNX Runtime.

    Args:
        folder: Folder to write; it is created if missing.
        things: Objects that the network detects in bright frames.
        manifest: Manifest of the bundle; None takes :func:`small_manifest`.
        mask_iou: Factors of a mask-IoU network, see :func:`mask_iou_model`, or such a network; with it, the model is a
            YOLACT++.

    Returns:
        Path of the bundle, which is `folder`.
    """
    manifest = dataclasses.replace(manifest or small_manifest(), mask_rescoring=mask_iou is not None)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"network": network_model(manifest, raw_outputs(manifest, things))}
    if mask_iou is not None:
        contents["mask_iou"] = mask_iou if isinstance(mask_iou, bytes) else mask_iou_model(mask_iou)
    artefacts = {}
    for role, content in contents.items():
        path = folder / f"{'model' if role == 'network' else role}.{manifest.precision}.onnx"
        path.write_bytes(content)
        artefacts[path.name] = Artefact(role, manifest.precision, file_sha256(path), len(content))
    manifest = dataclasses.replace(manifest, artefacts=artefacts)
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return folder


def with_precisions(folder: Path, *precisions: str) -> None:
    """Change the precisions of a bundle's networks; what they compute stays the same."""
    content = (folder / "model.fp32.onnx").read_bytes()
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    artefacts = {name: entry for name, entry in document["artefacts"].items() if entry["role"] != "network"}
    (folder / "model.fp32.onnx").unlink()
    for precision in precisions:
        network = folder / f"model.{precision}.onnx"
        network.write_bytes(content)
        artefacts[network.name] = dataclasses.asdict(Artefact("network", precision, file_sha256(network), len(content)))
    path.write_text(json.dumps({**document, "artefacts": artefacts}))
