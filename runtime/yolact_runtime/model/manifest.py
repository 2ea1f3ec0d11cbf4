"""The manifest: the one document that tells a runtime how to feed a network and how to read its outputs.

It travels in ``manifest.json`` of a bundle folder, in ``metadata_props`` of ONNX files (key :data:`METADATA_KEY`) and
in the network name of every engine (:mod:`yolact_runtime.model.engine_name`). The two embedded copies carry no artefact
list: a file cannot hold its own hash.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from yolact_plugins.text import decode_json, printable, unprintable
from yolact_runtime.errors import ManifestError, TextError

__all__ = [
    "MAX_MANIFEST_BYTES",
    "METADATA_KEY",
    "SCHEMA_VERSION",
    "Artefact",
    "DetectionSpec",
    "InputSpec",
    "Manifest",
    "PriorSpec",
]

SCHEMA_VERSION = 2
METADATA_KEY = "yolact_manifest"
MAX_MANIFEST_BYTES = 64 << 20
"""Longest ``manifest.json`` that is read; one with eighty classes and every network has 8 kB."""
# A manifest is data from elsewhere, and its numbers become sizes of arrays. These bounds are far above any model that
# is trained (700 x 700 pixels, 57 744 priors, a few thousand classes), and far below what ends a process.
_MAX_SIDE, _MAX_PIXELS, _MAX_PRIORS = 16_384, 1 << 24, 1 << 22
_MAX_LEVELS, _MAX_CLASSES, _MAX_NAME, _MAX_KEPT = 64, 1 << 16, 1000, 1_000_000
_TINY, _HUGE = 1e-6, 1e6


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What the network's input tensor ``image (B, 3, height, width)`` float32 holds.

    A frame is stretched to ``height x width`` (half-pixel bilinear, no antialiasing, in float), each channel becomes
    ``(value - mean) / std`` on the 0..255 scale, and the channels are put in ``channel_order``. A network that
    normalises in its own graph simply declares mean 0, std 1 and BGR.

    Attributes:
        height: Rows of the network input, pixels.
        width: Columns of the network input, pixels.
        mean_bgr: Subtracted, in the order blue, green, red.
        std_bgr: Divided by, in the order blue, green, red.
        channel_order: ``"RGB"`` or ``"BGR"``: the order of the tensor's channels. Frames are always BGR.
        resize: Only ``"stretch"``: YOLACT is trained on squashed images, a letterbox shifts its boxes.
        bit_depth: Significant bits of frames and images with 16 bits a sample, 8 to 16, as the calibration had them.
            None, and absent from documents: nobody stated it.
    """

    height: int
    width: int
    mean_bgr: tuple[float, float, float]
    std_bgr: tuple[float, float, float]
    channel_order: str = "RGB"
    resize: str = "stretch"
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        if self.bit_depth is not None and not 8 <= self.bit_depth <= 16:
            raise ManifestError(f"input.bit_depth must lie between 8 and 16, found {self.bit_depth}")
        if self.height < 1 or self.width < 1:
            raise ManifestError(f"input size must be positive, found {_shown(self.height)} x {_shown(self.width)}")
        if max(self.height, self.width) > _MAX_SIDE or self.height * self.width > _MAX_PIXELS:
            raise ManifestError(
                f"input size {_shown(self.height)} x {_shown(self.width)} is more than a model can have (sides up to "
                f"{_MAX_SIDE}, {_MAX_PIXELS} pixels in all)"
            )
        if self.channel_order not in {"RGB", "BGR"}:
            raise ManifestError(f'input.channel_order must be "RGB" or "BGR", found "{_plain(self.channel_order)}"')
        if self.resize != "stretch":
            raise ManifestError(f'input.resize must be "stretch", found "{_plain(self.resize)}"')
        if 0.0 in self.std_bgr:
            raise ManifestError(f"input.std_bgr must not contain zero, found {self.std_bgr}")
        _require_within("input.mean_bgr", self.mean_bgr, -_HUGE, _HUGE)
        _require_within("input.std_bgr", self.std_bgr, _TINY, _HUGE)


@dataclasses.dataclass(frozen=True)
class PriorSpec:
    """How the ``(P, 4)`` priors are laid over the feature maps; see :mod:`yolact_runtime.cpu.priors`.

    Attributes:
        feature_sizes: ``(height, width)`` of each pyramid level, finest first.
        scales_px: For each level, the prior sides in pixels of the network input.
        aspect_ratios: Width over height, applied inside each scale.
        square: The published COCO models of YOLACT use the computed width as height too (an upstream quirk that the
            weights were trained with); Pascal and YOLACT++ do not.
        variances: Factors of the centre and of the size regression.
    """

    feature_sizes: tuple[tuple[int, int], ...]
    scales_px: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[float, ...]
    square: bool
    variances: tuple[float, float] = (0.1, 0.2)

    def __post_init__(self) -> None:
        if len(self.feature_sizes) != len(self.scales_px):
            raise ManifestError(
                f"priors: {len(self.feature_sizes)} feature sizes but scales for {len(self.scales_px)} levels"
            )
        for name, values in (
            ("feature_sizes", [side for size in self.feature_sizes for side in size]),
            ("scales_px", [scale for scales in self.scales_px for scale in scales]),
            ("aspect_ratios", self.aspect_ratios),
        ):
            if not all(value > 0 for value in values):
                raise ManifestError(f"priors.{name} must be positive, found {_shown(getattr(self, name))}")
        if not self.num_priors:
            raise ManifestError(f"there are no priors: {self}")
        if len(self.feature_sizes) > _MAX_LEVELS or self.num_priors > _MAX_PRIORS:
            raise ManifestError(
                f"priors: {_shown(self.num_priors)} priors on {len(self.feature_sizes)} levels, more than a model can "
                f"have ({_MAX_PRIORS} on {_MAX_LEVELS}); priors.feature_sizes are {_shown(self.feature_sizes)}"
            )
        _require_within("priors.scales_px", [scale for scales in self.scales_px for scale in scales], _TINY, _HUGE)
        _require_within("priors.aspect_ratios", self.aspect_ratios, _TINY, _HUGE)
        _require_within("priors.variances", self.variances, _TINY, _HUGE)

    @property
    def num_priors(self) -> int:
        """P: rows of the box, class and coefficient outputs."""
        return sum(
            height * width * len(scales) * len(self.aspect_ratios)
            for (height, width), scales in zip(self.feature_sizes, self.scales_px, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class DetectionSpec:
    """Detection settings the model is evaluated with (published defaults)."""

    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    top_k: int = 200
    max_instances: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold < 1:
            raise ManifestError(f"detection.score_threshold must lie in [0, 1), found {self.score_threshold}")
        if not 0 <= self.iou_threshold <= 1:
            raise ManifestError(f"detection.iou_threshold must lie in [0, 1], found {self.iou_threshold}")
        for name in ("top_k", "max_instances"):
            if getattr(self, name) < 1:
                raise ManifestError(f"detection.{name} must be 1 or more, found {_shown(getattr(self, name))}")
            if getattr(self, name) > _MAX_KEPT:
                raise ManifestError(
                    f"detection.{name} must be {_MAX_KEPT} at most, found {_shown(getattr(self, name))}"
                )


@dataclasses.dataclass(frozen=True)
class Artefact:
    """One file of a bundle.

    Attributes:
        role: ``"network"`` and ``"mask_iou"`` are ONNX models, ``"engine"`` is a TensorRT plan, ``"kernels"`` is the
            index of compiled CUDA kernels, see :mod:`yolact_runtime.model.kernel_folder`.
        precision: ``"fp32"``, ``"fp16"``, ``"int8"`` (TensorRT's form of it) or ``"int8-cpu"`` (ONNX Runtime's). Empty
            for kernels, which serve every precision.
        sha256: Of the whole file, hexadecimal.
        size_bytes: Of the whole file.
        build: Of engines: what was built where, see :mod:`yolact_runtime.backends.engine_file`; of kernels: ``archs``
            and ``nvrtc_version``. Empty for portable files.
    """

    role: str
    precision: str
    sha256: str
    size_bytes: int
    build: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.size_bytes <= 1 << 63:
            raise ManifestError(f"artefacts: size_bytes cannot be {_shown(self.size_bytes)}")
        for field in ("role", "precision"):
            _require_name(f"artefacts: {field}", getattr(self, field))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs to know about a model.

    Attributes:
        name: Model name, for people.
        class_names: Foreground classes; index 0 is class 1 of the network, the background has no name.
        mask_rescoring: The bundle has a mask-IoU network whose output multiplies the confidence of masks (YOLACT++).
        precision: Of the graph this manifest was written for; see :class:`Artefact`.
        provenance: Where the model came from: checkpoint, its sha256, tool versions. Text only.
        artefacts: File name -> :class:`Artefact`; empty in the copies embedded in models.
    """

    name: str
    class_names: tuple[str, ...]
    input: InputSpec
    priors: PriorSpec
    detection: DetectionSpec = DetectionSpec()
    mask_rescoring: bool = False
    precision: str = "fp32"
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)
    artefacts: Mapping[str, Artefact] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ManifestError("class_names must not be empty")
        if len(self.class_names) > _MAX_CLASSES:
            raise ManifestError(f"class_names has {len(self.class_names)} entries, {_MAX_CLASSES} at most")
        for index, name in enumerate(self.class_names):
            _require_name(f"class_names[{index}]", name)
        for name in self.artefacts:
            _require_name("artefacts: a file name", name)
        _require_name("name", self.name)
        _require_name("precision", self.precision)

    def to_json(self) -> str:
        """The document as indented JSON text that ends in a newline; the same manifest gives the same bytes."""
        document = dataclasses.asdict(self)
        # Releases that do not know it read every manifest in which it says nothing.
        if self.input.bit_depth is None:
            del document["input"]["bit_depth"]
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> Manifest:
        """Parse and check a manifest.

        Args:
            text: The JSON document.
            source: Where the text came from; it appears in error messages.

        Raises:
            ManifestError: The text is not JSON, its schema version is unknown, a field is missing or wrong, or a number
                is beyond what any model has.
        """
        content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        try:
            document = decode_json(content, source, allow_nan=True)  # each field is judged below
        except TextError as error:
            raise ManifestError(f"{error}; it should be a manifest: export again, or copy the file again") from error
        if not isinstance(document, dict):
            raise ManifestError(f"{source}: the manifest must be a JSON object, found {type(document).__name__}")
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ManifestError(
                f"{source}: manifest schema version {_shown(version)}; this release reads version {SCHEMA_VERSION}. "
                f"Export the checkpoint again, or install the release that wrote it."
            )
        try:
            return typing.cast("Manifest", _decode(cls, document, "manifest"))
        except ManifestError as error:
            raise ManifestError(f"{source}: {error}") from error


def _plain(key: str) -> str:
    """Text of a document without quotes, short and in one line."""
    text = printable(key[:80])
    return text if text == key else f"{text[:77]}..."


def _require_within(where: str, values: typing.Iterable[float], least: float, most: float) -> None:
    for value in values:
        if not least <= value <= most:
            raise ManifestError(f"{where} must lie between {least:g} and {most:g}, found {_shown(value)}")


def _require_name(where: str, name: str) -> None:
    """Names are printed on terminals and written into logs."""
    if len(name) > _MAX_NAME:
        raise ManifestError(f"{where} has {len(name)} characters, {_MAX_NAME} at most")
    if (character := unprintable(name)) is not None:
        raise ManifestError(f"{where} is {json.dumps(name)[:60]}: {character} is no character of a name")


def _shown(value: object) -> str:
    """A value as a message can hold it: short, in one line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    try:
        text = repr(value)
    except ValueError:  # Python does not write out whole numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _decode(kind: Any, value: Any, where: str) -> Any:
    """`value` of a JSON document as an instance of the annotation `kind`, checked all the way down."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        # The one union there is: of something and None, which documents leave out.
        return None if value is None else _decode(arguments[0], value, where)
    if origin is tuple:
        return _decode_tuple(arguments, value, where)
    if origin in {Mapping, dict}:
        if not isinstance(value, dict):
            raise ManifestError(f"{where} must be an object, found {type(value).__name__}")
        return {key: _decode(arguments[1], item, f"{where}.{_plain(key)}") for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _decode_float(value, where)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ManifestError(f"{where} must be {kind.__name__}, found {_shown(value)}")
    return value


def _decode_float(value: float, where: str) -> float:
    """JSON as Python reads it has NaN, infinities, and whole numbers of any length."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ManifestError(f"{where} must be a finite number, found {number}")
    return number


def _decode_dataclass(kind: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ManifestError(f"{where} must be an object, found {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    optional = {name for name in names if typing.get_origin(hints[name]) is types.UnionType}
    if missing := [name for name in names if name not in value and name not in optional]:
        raise ManifestError(f"{where} lacks {', '.join(missing)}")
    if unknown := sorted(set(value) - set(names)):
        raise ManifestError(f"{where} has unknown fields {_plain(', '.join(unknown))}")
    return kind(**{name: _decode(hints[name], value[name], f"{where}.{name}") for name in names if name in value})


def _decode_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ManifestError(f"{where} must be a list, found {type(value).__name__}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ManifestError(f"{where} must have {len(arguments)} entries, found {len(value)}")
    return tuple(
        _decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )
