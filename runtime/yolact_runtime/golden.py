"""The golden frame of a bundle: a drawn picture, and what each network of the bundle makes of it.

One file, ``golden.npz``, which the manifest lists and a signature covers. It holds the frame, a sample of the network's
input and of the priors, and for each precision a sample of the raw outputs, the instances, and how far a backend may
differ from them. :mod:`yolact_runtime.self_test` compares; ``yolact_export.golden`` writes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from yolact_plugins.text import decode_json
from yolact_runtime.errors import BundleError, ShapeError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks
from yolact_runtime.model.manifest import DetectionSpec
from yolact_runtime.model.network_outputs import RawOutputs

__all__ = [
    "GOLDEN_NAME",
    "GOLDEN_ROLE",
    "MAX_DIFFERENCE",
    "OTHER_BACKENDS",
    "Expectation",
    "Golden",
    "Inspection",
    "Tolerance",
    "decode_golden",
    "encode_golden",
    "expectation_name",
    "read_golden",
    "sample",
]

GOLDEN_NAME, GOLDEN_ROLE = "golden.npz", "golden"
OTHER_BACKENDS = "*"
"""Key of the tolerance that holds for every backend without one of its own."""

Float = npt.NDArray[np.float32]
_VERSION = 1
_SAMPLES = 1024
# The fractional part of the golden ratio in units of 2^-64: multiples of it spread evenly over any range.
_GOLDEN_RATIO, _FRACTION_BITS = np.uint64(11400714819323198485), np.uint64(40)
# Far beyond any frame that is drawn; what a file unpacks to is known before it is unpacked.
_MAX_BYTES, _MAX_SIDE = 64 << 20, 4096
MAX_DIFFERENCE = 10.0
"""The widest limit of an output that a golden frame may have."""
_RUNS = ("run_mask", "run_start", "run_end")


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a backend may be from an expectation.

    Attributes:
        outputs: Output name -> largest root mean square of the difference, as a fraction of the expected values'.
        confidence: Largest difference of an instance's confidence, and of its mask confidence.
        box_iou: Least IoU of an instance's box with the expected one.
        mask_iou: Least IoU of its mask with the expected one.
        matched: Share of the instances, of the expected and of the found ones, that need such a partner.
    """

    outputs: Mapping[str, float]
    confidence: float
    box_iou: float
    mask_iou: float
    matched: float


@dataclasses.dataclass(frozen=True, eq=False)
class Expectation:
    """What one network makes of the frame.

    Attributes:
        made_by: What computed it, for people.
        outputs: Output name -> :func:`sample` of it.
        instances: In the frame; None where the network finds nothing in a drawn picture that it is sure of.
        tolerance: Backend name -> how far it may differ; :data:`OTHER_BACKENDS` for all others.
    """

    made_by: str
    outputs: Mapping[str, Float]
    instances: Instances | None
    tolerance: Mapping[str, Tolerance]

    def tolerance_of(self, backend: str) -> Tolerance:
        """Return how far a backend may differ, given its name."""
        return self.tolerance.get(backend, self.tolerance[OTHER_BACKENDS])


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
    """A golden frame.

    Attributes:
        frame: ``(H, W, 3)`` uint8, blue first; of another size and aspect than the network's input.
        class_names: Of the model when the frame was made.
        detection: Settings of the post-processing that `instances` were found with.
        min_confidence: The second score threshold they were found with.
        tensor: :func:`sample` of the network's input.
        prior: :func:`sample` of the priors.
        expectations: By precision; by :func:`expectation_name` where a backend computes it in a way of its own.
    """

    frame: npt.NDArray[np.uint8]
    class_names: tuple[str, ...]
    detection: DetectionSpec
    min_confidence: float
    tensor: Float
    prior: Float
    expectations: Mapping[str, Expectation]

    def expectation(self, precision: str, backend: str) -> Expectation | None:
        """Return what a network of a precision makes of the frame on a backend, or None where nothing is known."""
        return self.expectations.get(expectation_name(precision, backend), self.expectations.get(precision))


class Inspection(NamedTuple):
    """A frame with everything on its way, for comparison; the caller owns all of it.

    Attributes:
        tensor: The network's input ``(1, 3, height, width)``, in the network's dtype.
        outputs: Of the network, by name.
        instances: In the frame.
    """

    tensor: npt.NDArray[np.floating]
    outputs: Mapping[str, npt.NDArray[np.floating]]
    instances: Instances


def expectation_name(precision: str, backend: str) -> str:
    """Return the key of an expectation for one backend, such as ``"int8 on onnxruntime-cpu"``."""
    return f"{precision} on {backend}"


def sample(values: npt.NDArray[np.floating]) -> Float:
    """Return up to 1,024 values ``(n,)`` float32, spread evenly over an array in C order; a new array."""
    flat = values.reshape(-1)
    if flat.size <= _SAMPLES:
        return flat.astype(np.float32)
    with np.errstate(over="ignore"):  # modulo 2^64 is meant
        fraction = np.arange(_SAMPLES, dtype=np.uint64) * _GOLDEN_RATIO >> _FRACTION_BITS
    position = fraction * np.uint64(flat.size) >> (np.uint64(64) - _FRACTION_BITS)
    return flat[position.astype(np.int64)].astype(np.float32)


def encode_golden(golden: Golden) -> bytes:
    """Return the bytes of ``golden.npz``; the same golden frame gives the same bytes."""
    document = {
        "version": _VERSION,
        "class_names": list(golden.class_names),
        "detection": dataclasses.asdict(golden.detection),
        "min_confidence": golden.min_confidence,
        "expectations": {
            precision: {
                "made_by": expectation.made_by,
                "tolerance": {name: dataclasses.asdict(value) for name, value in expectation.tolerance.items()},
            }
            for precision, expectation in golden.expectations.items()
        },
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        "document": np.frombuffer(json.dumps(document, indent=1).encode(), np.uint8),
        "frame": golden.frame,
        "tensor": golden.tensor,
        "prior": golden.prior,
    }
    for precision, expectation in golden.expectations.items():
        arrays |= {f"{precision}/{name}": values for name, values in expectation.outputs.items()}
        if expectation.instances is not None:
            arrays |= {f"{precision}/{name}": a for name, a in _instance_arrays(expectation.instances).items()}
    content = io.BytesIO()
    # NumPy gives every entry the same date.
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # the stubs read a flag among the names
    return content.getvalue()


def read_golden(path: Path) -> Golden:
    """Read ``golden.npz``; nothing in the file is executed.

    Raises:
        BundleError: It cannot be read, or is not a golden frame of this release.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    return decode_golden(content, path)


def decode_golden(content: bytes, path: Path) -> Golden:
    """As :func:`read_golden`, of bytes that were read already; `path` is for messages.

    Raises:
        BundleError: They are not a golden frame of this release.
    """
    try:
        return _decode(_unpack(content))
    # NumPy and zipfile have no error of their own for a damaged file.
    except Exception as error:
        raise BundleError(f"{path} is not a golden frame that this release reads ({error!r}): export again") from error


def _unpack(content: bytes) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
            raise ValueError(f"it unpacks to more than {_MAX_BYTES >> 20} MiB")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _decode(arrays: Mapping[str, npt.NDArray[Any]]) -> Golden:
    document = decode_json(_typed(arrays, "document", np.uint8, 1).tobytes(), "its document")
    if document["version"] != _VERSION:
        raise ValueError(f"it has the version {document['version']}, this release reads {_VERSION}")
    frame = _typed(arrays, "frame", np.uint8, 3)
    if frame.shape[2] != 3 or not all(1 <= side <= _MAX_SIDE for side in frame.shape):
        raise ShapeError(f"its frame has the shape {frame.shape}")
    min_confidence = float(document["min_confidence"])
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"its min_confidence is {min_confidence}")
    expectations = {
        str(precision): _decode_expectation(entry, arrays, f"{precision}/", frame.shape[:2])
        for precision, entry in document["expectations"].items()
    }
    return Golden(
        frame,
        tuple(str(name) for name in document["class_names"]),
        DetectionSpec(**document["detection"]),
        min_confidence,
        _typed(arrays, "tensor", np.float32, 1),
        _typed(arrays, "prior", np.float32, 1),
        expectations,
    )


def _decode_expectation(
    entry: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], prefix: str, size: tuple[int, ...]
) -> Expectation:
    tolerance = {str(name): _decode_tolerance(value) for name, value in entry["tolerance"].items()}
    if OTHER_BACKENDS not in tolerance:
        raise ValueError(f'it has no tolerance for "{OTHER_BACKENDS}"')
    outputs = {name: _typed(arrays, prefix + name, np.float32, 1) for name in RawOutputs._fields}
    instances = None
    if f"{prefix}xyxy" in arrays:
        xyxy = _typed(arrays, f"{prefix}xyxy", np.float32, 2)
        mask, start, end = (_typed(arrays, prefix + name, np.int64, 1) for name in _RUNS)
        if not len(mask) == len(start) == len(end) or not _are_runs(mask, start, end, len(xyxy), size[0] * size[1]):
            raise ShapeError("its masks are not runs inside of the frame")
        confidence = _typed(arrays, f"{prefix}mask_confidence", np.float32, 1)
        instances = Instances(
            xyxy,
            Masks.from_runs(mask, start, end, len(xyxy), *size[:2]),
            _typed(arrays, f"{prefix}confidence", np.float32, 1),
            _typed(arrays, f"{prefix}class_id", np.int32, 1),
            confidence if len(confidence) else None,
        )
    return Expectation(str(entry["made_by"]), outputs, instances, tolerance)


def _are_runs(
    mask: npt.NDArray[Any], start: npt.NDArray[Any], end: npt.NDArray[Any], count: int, num_pixels: int
) -> bool:
    inside = (mask >= 0) & (mask < count) & (start >= 0) & (start < end) & (end <= num_pixels)
    return bool(inside.all() and (np.diff(mask) >= 0).all())


def _decode_tolerance(entry: Mapping[str, Any]) -> Tolerance:
    fields = [field.name for field in dataclasses.fields(Tolerance) if field.name != "outputs"]
    outputs = {name: float(entry["outputs"][name]) for name in RawOutputs._fields}
    others = {name: float(entry[name]) for name in fields}
    if not all(0 < value <= MAX_DIFFERENCE for value in outputs.values()):
        raise ValueError(f"its limits of the outputs are {outputs}")
    if not all(0 <= value <= 1 for value in others.values()):
        raise ValueError(f"its limits of the instances are {others}")
    return Tolerance(outputs, **others)


def _instance_arrays(instances: Instances) -> dict[str, npt.NDArray[Any]]:
    no_number = np.zeros(0, np.float32)
    mask = instances.mask
    return {
        "xyxy": instances.xyxy,
        "confidence": instances.confidence,
        "class_id": instances.class_id,
        "mask_confidence": no_number if instances.mask_confidence is None else instances.mask_confidence,
        "run_mask": np.repeat(np.arange(len(mask)), np.diff(mask.offset)),
        "run_start": mask.start.astype(np.int64),
        "run_end": mask.end.astype(np.int64),
    }


def _typed(arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: npt.DTypeLike, ndim: int) -> npt.NDArray[Any]:
    found = arrays[name]
    if found.dtype != dtype or found.ndim != ndim:
        raise ShapeError(f'its "{name}" is {found.dtype} with {found.ndim} axes')
    if found.dtype == np.float32 and not np.isfinite(found).all():
        raise ValueError(f'its "{name}" holds NaN or infinity')
    return found
