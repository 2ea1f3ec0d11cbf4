"""The manifest: the document that describes how to feed a network and how to read its outputs.

It is stored in ``manifest.json`` of a bundle folder, in ``metadata_props`` of ONNX files (key :data:`METADATA_KEY`) and
in the network name of every engine (:mod:`yolact_runtime.model.engine_name`). The two embedded copies have no artefact
list, because a file cannot contain its own hash.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from yolact_plugins.compile.manifest_entry import MAX_MANIFEST_BYTES, SCHEMA_VERSION
from yolact_runtime.errors import ManifestError
from yolact_runtime.model.manifest_document import decode_manifest
from yolact_runtime.model.manifest_limits import (
    HUGE,
    MAX_CLASSES,
    MAX_ENTRIES,
    MAX_KEPT,
    MAX_LEVELS,
    MAX_PIXELS,
    MAX_PRIORS,
    MAX_SIDE,
    TINY,
    plain,
    require_length,
    require_name,
    require_sha256,
    require_texts,
    require_within,
    shown,
)

__all__ = [
    "FLOAT_DTYPES",
    "MAX_MANIFEST_BYTES",
    "METADATA_KEY",
    "SCHEMA_VERSION",
    "Artefact",
    "DetectionSpec",
    "InputSpec",
    "Manifest",
    "NetworkDtypes",
    "PriorSpec",
]

METADATA_KEY = "yolact_manifest"
FLOAT_DTYPES = ("float32", "float16")
"""Allowed dtypes of a network's inputs and outputs, as NumPy names."""


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The network's input tensor ``image (B, 3, height, width)``; see :class:`NetworkDtypes` for its dtype.

    A frame is stretched to ``height x width`` (half-pixel bilinear, no antialiasing, in float), each channel becomes
    ``(value - mean) / std`` on the 0..255 scale, and the channels are put in ``channel_order``. A network that
    normalises in its own graph simply declares mean 0, std 1 and BGR.

    Attributes:
        height: Number of rows of the network input.
        width: Number of columns of the network input.
        mean_bgr: Mean to subtract, in the order blue, green, red.
        std_bgr: Standard deviation to divide by, in the order blue, green, red.
        channel_order: Order of the tensor's channels, ``"RGB"`` or ``"BGR"``. Frames are always BGR.
        resize: Resizing method; only ``"stretch"``, because YOLACT is trained on squashed images and a letterbox shifts
            its boxes.
        bit_depth: Number of significant bits of 16-bit frames and images, 8 to 16, as in calibration. None, and absent
            from documents, if unknown.
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
            raise ManifestError(f"input size must be positive, found {shown(self.height)} x {shown(self.width)}")
        if max(self.height, self.width) > MAX_SIDE or self.height * self.width > MAX_PIXELS:
            raise ManifestError(
                f"input size {shown(self.height)} x {shown(self.width)} is more than a model can have (sides up to "
                f"{MAX_SIDE}, {MAX_PIXELS} pixels in all)"
            )
        if self.channel_order not in {"RGB", "BGR"}:
            raise ManifestError(f'input.channel_order must be "RGB" or "BGR", found "{plain(self.channel_order)}"')
        if self.resize != "stretch":
            raise ManifestError(f'input.resize must be "stretch", found "{plain(self.resize)}"')
        if 0.0 in self.std_bgr:
            raise ManifestError(f"input.std_bgr must not contain zero, found {self.std_bgr}")
        require_within("input.mean_bgr", self.mean_bgr, -HUGE, HUGE)
        require_within("input.std_bgr", self.std_bgr, TINY, HUGE)


@dataclasses.dataclass(frozen=True)
class PriorSpec:
    """The layout of the ``(P, 4)`` priors on the feature maps; see :mod:`yolact_runtime.cpu.priors`.

    Attributes:
        feature_sizes: Size ``(height, width)`` of each pyramid level, finest first.
        scales_px: Prior sides in pixels of the network input, for each level.
        aspect_ratios: Ratios of width and height, applied inside each scale.
        square: Whether the computed width is used as height, too. The published COCO models of YOLACT do that (an
            upstream quirk that the weights were trained with); Pascal and YOLACT++ do not.
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
        for where, entries in (
            ("priors.scales_px", self.scales_px),
            *((f"priors.scales_px[{level}]", scales) for level, scales in enumerate(self.scales_px)),
            ("priors.aspect_ratios", self.aspect_ratios),
        ):
            require_length(where, entries, MAX_LEVELS)
        for name, values in (
            ("feature_sizes", [side for size in self.feature_sizes for side in size]),
            ("scales_px", [scale for scales in self.scales_px for scale in scales]),
            ("aspect_ratios", self.aspect_ratios),
        ):
            if not all(value > 0 for value in values):
                raise ManifestError(f"priors.{name} must be positive, found {shown(getattr(self, name))}")
        if not self.num_priors:
            raise ManifestError(f"there are no priors: {self}")
        if len(self.feature_sizes) > MAX_LEVELS or self.num_priors > MAX_PRIORS:
            raise ManifestError(
                f"priors: {shown(self.num_priors)} priors on {len(self.feature_sizes)} levels, more than a model can "
                f"have ({MAX_PRIORS} on {MAX_LEVELS}); priors.feature_sizes are {shown(self.feature_sizes)}"
            )
        require_within("priors.scales_px", [scale for scales in self.scales_px for scale in scales], TINY, HUGE)
        require_within("priors.aspect_ratios", self.aspect_ratios, TINY, HUGE)
        require_within("priors.variances", self.variances, TINY, HUGE)

    @property
    def num_priors(self) -> int:
        """Number of priors, P: rows of the box, class and coefficient outputs."""
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
                raise ManifestError(f"detection.{name} must be 1 or more, found {shown(getattr(self, name))}")
            if getattr(self, name) > MAX_KEPT:
                raise ManifestError(f"detection.{name} must be {MAX_KEPT} at most, found {shown(getattr(self, name))}")


@dataclasses.dataclass(frozen=True)
class NetworkDtypes:
    """Dtypes of a network's input and outputs, as NumPy names: ``"float32"`` or ``"float16"``.

    They are those of the file's tensors, whatever is computed between them. All outputs have the same dtype.

    Attributes:
        input: Dtype of the input.
        outputs: Dtype of every output.
    """

    input: str = "float32"
    outputs: str = "float32"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if (found := getattr(self, field.name)) not in FLOAT_DTYPES:
                raise ManifestError(f'dtypes.{field.name} must be "float32" or "float16", found "{plain(found)}"')


@dataclasses.dataclass(frozen=True)
class Artefact:
    """A file of a bundle.

    Attributes:
        role: Purpose of the file: ``"network"`` and ``"mask_iou"`` are ONNX models, ``"engine"`` is a TensorRT plan,
            ``"kernels"`` is the index of compiled CUDA kernels; see :mod:`yolact_runtime.model.kernel_folder`.
        precision: Precision of the network: ``"fp32"``, ``"fp16"``, ``"int8"`` (for TensorRT) or ``"int8-cpu"`` (for
            ONNX Runtime). Empty for kernels, which serve every precision.
        sha256: SHA-256 of the whole file, in hexadecimal.
        size_bytes: Size of the whole file in bytes.
        build: Facts about the build of engines, see :mod:`yolact_runtime.backends.engine_file`, or ``archs`` and
            ``nvrtc_version`` of kernels. Empty for portable files.
        dtypes: Dtypes of networks and engines. None, and absent from documents, for other files, and for bundles of
            schema version 1 or 2, whose networks have float32 inputs and outputs.
    """

    role: str
    precision: str
    sha256: str
    size_bytes: int
    build: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dtypes: NetworkDtypes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.size_bytes <= 1 << 63:
            raise ManifestError(f"artefacts: size_bytes cannot be {shown(self.size_bytes)}")
        for field in ("role", "precision"):
            require_name(f"artefacts: {field}", getattr(self, field))
        require_sha256("artefacts: sha256", self.sha256)
        require_texts("artefacts: build", self.build)

    def described_by(self, manifest: Manifest) -> Manifest:
        """Return the manifest of a bundle with precision and dtypes of this network or engine."""
        return dataclasses.replace(manifest, precision=self.precision, dtypes=self.dtypes or NetworkDtypes())


@dataclasses.dataclass(frozen=True, repr=False)
class Manifest:
    """Everything a runtime needs to know about a model.

    Attributes:
        name: Name of the model, for messages.
        class_names: Names of the foreground classes, indexed by ``class_id``: index 0 is class 1 of the network, whose
            class 0 is the background.
        input: Size and normalisation of the network's input.
        priors: Layout of the priors on the feature maps.
        detection: Thresholds and limits that the model is evaluated with.
        mask_rescoring: Whether the bundle has a mask-IoU network, whose output multiplies the confidence of masks
            (YOLACT++).
        precision: Precision of the graph that this manifest was written for; see :class:`Artefact`.
        provenance: Origin of the model: checkpoint, its SHA-256, versions of tools. Text only.
        artefacts: Files of the bundle by name; empty in the copies embedded in models.
        dtypes: Dtypes of the input and the outputs of that graph.
        schema_version: Version of the document.

    Raises:
        ManifestError: A field is outside of what any model has.
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
    dtypes: NetworkDtypes = NetworkDtypes()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ManifestError("class_names must not be empty")
        if self.schema_version != SCHEMA_VERSION:
            raise ManifestError(f"schema_version must be {SCHEMA_VERSION}, found {shown(self.schema_version)}")
        require_length("class_names", self.class_names, MAX_CLASSES)
        for index, name in enumerate(self.class_names):
            require_name(f"class_names[{index}]", name)
        require_length("artefacts", self.artefacts, MAX_ENTRIES)
        for name in self.artefacts:
            require_name("artefacts: a file name", name)
        require_texts("provenance", self.provenance)
        require_name("name", self.name)
        require_name("precision", self.precision)

    def summary(self, backend: str = "") -> str:
        """Return one short line: name, precision, size of the network's input (width x height), number of classes.

        Args:
            backend: Name of what runs the model, added behind the precision.
        """
        count = len(self.class_names)
        classes = "1 class" if count == 1 else f"{count} classes"
        model = f"{plain(self.name)} {plain(self.precision)}" + (f" on {backend}" if backend else "")
        return f"{model}, {self.input.width} x {self.input.height}, {classes}"

    def __repr__(self) -> str:
        return f"<Manifest: {self.summary()}, {len(self.artefacts)} artefacts>"

    def to_json(self) -> str:
        """Return the document as indented JSON text that ends in a newline; equal manifests give equal bytes."""
        document = dataclasses.asdict(self)
        # Releases that do not know the field read every manifest without it.
        if self.input.bit_depth is None:
            del document["input"]["bit_depth"]
        for artefact in document["artefacts"].values():
            if artefact["dtypes"] is None:
                del artefact["dtypes"]
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> Manifest:
        """Parse and validate a manifest.

        Args:
            text: The JSON document.
            source: Origin of the text, for error messages.

        Raises:
            ManifestError: The text is not JSON, its schema version is unknown, a field is missing or invalid, or a
                number or a list exceeds the limits of any model.
        """
        content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return decode_manifest(cls, content, source)
