"""The part of the model that each node of an ONNX network belongs to, read without the onnx package.

``yolact-export`` writes it into each node, as the entry ``yolact.part`` of its ``metadata_props``. One vocabulary
serves calibration, profiles and reports.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from yolact_runtime.errors import BundleError
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.protobuf import fields

__all__ = [
    "BOX_HEAD",
    "CLASS_HEAD",
    "FIELDS",
    "FPN_DOWNSAMPLE",
    "FPN_LATERAL",
    "FPN_PREDICTION",
    "FPN_UPSAMPLE",
    "MASK_HEAD",
    "MASK_IOU",
    "NORMALISATION",
    "OFFSETS",
    "PROPERTY",
    "PROTONET",
    "STEM",
    "UPFEATURE",
    "derive_parts",
    "read_parts",
    "residual_stage",
    "stage_at",
    "stride_of",
]

PROPERTY = "yolact.part"
"""Key of the entry in a node's ``metadata_props``."""

NORMALISATION = "normalisation"
STEM = "stem"
OFFSETS = "deformable offsets"
FPN_LATERAL, FPN_UPSAMPLE = "fpn lateral", "fpn upsample"
FPN_PREDICTION, FPN_DOWNSAMPLE = "fpn prediction", "fpn downsample"
PROTONET = "protonet"
UPFEATURE, BOX_HEAD, CLASS_HEAD, MASK_HEAD = "upfeature", "box head", "class head", "mask head"
MASK_IOU = "mask IoU"

FIELDS = {
    "ModelProto": {"graph": 7},
    "GraphProto": {"node": 1, "input": 11, "output": 12, "value_info": 13},
    "ValueInfoProto": {"name": 1, "type": 2},
    "TypeProto": {"tensor_type": 1},
    "TypeProto.Tensor": {"shape": 2},
    "TensorShapeProto": {"dim": 1},
    "TensorShapeProto.Dimension": {"dim_value": 1},
    "NodeProto": {"input": 1, "output": 2, "name": 3, "metadata_props": 9},
    "StringStringEntryProto": {"key": 1, "value": 2},
}
"""Message -> field -> number, of all that is read."""

# Additions to the name of a tensor in the names of the nodes that quantise or cast it.
_ADDED = frozenset(
    ["weight", "bias", "float", "half", "single", "quantize", "dequantize", "dequantized", "quantized", "cast"]
)
# What only a ResNet has; the blocks of DarkNet and MobileNetV2 share the rest of its names.
_RESNET = re.compile(r"backbone\.layers\.\d+\.\d+\.conv1$")
# The first that matches a name.
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"normalisation$", NORMALISATION),
    (r".*\.conv_offset_mask\b", OFFSETS),
    (r"image$|backbone\.(conv1|relu|maxpool|conv_stem|_preconv\.\d|layers\.0\.[02])$", STEM),
    (r"fpn\.lat_layers\.", FPN_LATERAL),
    (r"fpn\.(resize|add)\.", FPN_UPSAMPLE),
    (r"fpn\.pred_layers\.", FPN_PREDICTION),
    (r"fpn\.downsample_layers\.", FPN_DOWNSAMPLE),
    (r"proto_net\.|prototype$", PROTONET),
    (r"prediction_layers\.0\.upfeature\.", UPFEATURE),
    (r"prediction_layers\.0\.bbox_layer\b|box_regression$", BOX_HEAD),
    (r"prediction_layers\.0\.conf_layer\b|class_logit$", CLASS_HEAD),
    (r"prediction_layers\.0\.mask_layer\b|mask_coefficient$", MASK_HEAD),
    (r"maskiou_net\.|mask_iou$", MASK_IOU),
)
_OTHER = "other"
_Message = dict[str, list[int | memoryview]]


def residual_stage(index: int) -> str:
    """Return the part name of a stage of a ResNet: ``res2`` for the first one, at stride 4."""
    return f"res{index + 2}"


def stage_at(stride: int | None) -> str:
    """Return the part name of what a backbone computes at a stride; ``None``: the stride is unknown."""
    return "backbone" if stride is None else f"backbone /{stride}"


def stride_of(image_height: int, height: int) -> int:
    """Return the ratio of two heights in pixels, rounded to a power of two."""
    return 1 << round(math.log2(max(image_height / height, 1)))


def read_parts(file: ModelFile) -> dict[str, str]:
    """Read the part of each node of a network, by the node's name and by those of the tensors that it makes.

    Libraries name what they run after either. An older network does not hold the parts; they are derived from its
    names then, as :func:`derive_parts` says.

    Raises:
        BundleError: The file is not an ONNX model.
    """
    try:
        return _parts(memoryview(file.content))
    except (ValueError, TypeError, IndexError) as error:
        raise BundleError(
            f"{file.path} is not a whole ONNX model ({error}); was its copy or download cut short?"
        ) from error


def derive_parts(strides: Mapping[str, int | None]) -> dict[str, str]:
    """Derive parts from the names of nodes, for networks that were exported before the parts were written.

    Args:
        strides: Name of each node, and the stride of its output to the image; ``None`` where it is unknown. It names
            the parts of backbones that are no ResNets.

    Returns:
        Part of each node by its name; ``"other"`` for a name that ``yolact-export`` does not write.
    """
    is_resnet = any(_RESNET.match(name) for name in strides)
    return {name: _derived(_without_additions(name), stride, is_resnet) for name, stride in strides.items()}


def _without_additions(name: str) -> str:
    # Not by a pattern, which would try every beginning of a name: minutes for a hundred thousand characters.
    words = name.split(".")
    while len(words) > 1 and words[-1] in _ADDED:
        words.pop()
    return ".".join(words)


def _derived(name: str, stride: int | None, is_resnet: bool) -> str:
    for pattern, part in _PATTERNS:
        if re.match(pattern, name):
            return part
    if is_resnet and (found := re.match(r"backbone\.layers\.(\d+)\.", name)):
        return residual_stage(int(found[1]))
    return stage_at(stride) if name.startswith("backbone.") else _OTHER


def _parts(content: memoryview) -> dict[str, str]:
    model = _read("ModelProto", content)
    graphs = [_read("GraphProto", _view(part)) for part in model["graph"]]
    nodes = [_read("NodeProto", _view(node)) for graph in graphs for node in graph["node"]]
    parts = {_name(node): part for node in nodes if (part := _property(node)) is not None}
    if len(parts) < len(nodes):
        parts = {**derive_parts(_strides(graphs, nodes)), **parts}
    made = {_text([name]): parts[_name(node)] for node in nodes for name in node["output"]}
    return {**made, **parts}


def _strides(graphs: list[_Message], nodes: list[_Message]) -> dict[str, int | None]:
    """Return the stride of each node's output, as :func:`derive_parts` takes it."""
    heights = dict(_heights(graphs))
    image = next((_text(_read("ValueInfoProto", _view(info))["name"]) for g in graphs for info in g["input"]), "")
    strides: dict[str, int | None] = {}
    for node in nodes:
        # Nodes that quantise have outputs of no stated shape, which is that of their input.
        tensors = [_text([name]) for name in (*node["output"], *node["input"][:1])]
        height = next((heights[name] for name in tensors if name in heights), None)
        for name in tensors[: len(node["output"])]:
            heights.setdefault(name, height or 0)
        strides[_name(node)] = stride_of(heights[image], height) if heights.get(image) and height else None
    return strides


def _name(node: _Message) -> str:
    """Return a node's name; nodes without one, which other exporters write, go by their output."""
    return _text(node["name"]) or _text(node["output"][:1])


def _property(node: _Message) -> str | None:
    entries = (_read("StringStringEntryProto", _view(entry)) for entry in node["metadata_props"])
    return next((_text(entry["value"]) for entry in entries if _text(entry["key"]) == PROPERTY), None)


def _heights(graphs: list[_Message]) -> Iterator[tuple[str, int]]:
    """Return the rows of each tensor of the shape ``(B, C, H, W)``."""
    for info in (info for graph in graphs for kind in ("value_info", "input", "output") for info in graph[kind]):
        found = _read("ValueInfoProto", _view(info))
        message = found["type"]
        for kind, name in (("TypeProto", "tensor_type"), ("TypeProto.Tensor", "shape"), ("TensorShapeProto", "dim")):
            message = [value for part in message for value in _read(kind, _view(part))[name]]
        sides = [_read("TensorShapeProto.Dimension", _view(side))["dim_value"] for side in message]
        if len(sides) == 4 and sides[2] and isinstance(sides[2][-1], int):
            yield _text(found["name"]), sides[2][-1]


def _read(kind: str, message: memoryview) -> _Message:
    names = {number: name for name, number in FIELDS[kind].items()}
    found: _Message = {name: [] for name in names.values()}
    for number, *_, value in fields(message):
        if number in names:
            found[names[number]].append(value)
    return found


def _text(values: list[int | memoryview]) -> str:
    return bytes(_view(values[-1])).decode("utf-8") if values else ""


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError("a number where a message should be")
    return value
