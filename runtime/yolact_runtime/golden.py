"""The golden frame of a bundle: a drawn picture, and the results of each network of the bundle for it.

It is one file, ``golden.npz``, which the manifest lists and a signature covers. It contains the frame, a sample of the
network's input and of the priors, and for each precision a sample of the raw outputs, the instances, and the tolerance
for backends. :mod:`yolact_runtime.self_test` compares; ``yolact_export.golden`` writes.
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
"""Key of the tolerance for every backend without its own."""

Float = npt.NDArray[np.float32]
_VERSION = 1
_SAMPLES = 1024
# The fractional part of the golden ratio in units of 2^-64: its multiples spread evenly over any range.
_GOLDEN_RATIO, _FRACTION_BITS = np.uint64(11400714819323198485), np.uint64(40)
# Far above any drawn frame; the unpacked size is known before unpacking.
_MAX_BYTES, _MAX_SIDE = 64 << 20, 4096
MAX_DIFFERENCE = 10.0
"""Maximum tolerance of an output in a golden frame."""
_RUNS = ("run_mask", "run_start", "run_end")


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Allowed differences between a backend and an expectation.

    Attributes:
        outputs: Maximum root mean square of the difference, as a fraction of the expected values', by output name.
        confidence: Maximum difference of an instance's confidence, and of its mask confidence.
        box_iou: Minimum IoU of an instance's box with the expected one.
        mask_iou: Minimum IoU of its mask with the expected one.
        matched: Required share of instances, of both the expected and the found ones, that have such a partner.
    """

    outputs: Mapping[str, float]
    confidence: float
    box_iou: float
    mask_iou: float
    matched: float


@dataclasses.dataclass(frozen=True, eq=False)
class Expectation:
    """The expected results of one network for the frame.

    Attributes:
        made_by: Description of the software that computed the results.
        outputs: Samples of the outputs (see :func:`sample`), by name.
        instances: Instances in the frame; None if the network detects nothing with confidence in a drawn picture.
        tolerance: Tolerances by backend name; :data:`OTHER_BACKENDS` for all others.
    """

    made_by: str
    outputs: Mapping[str, Float]
    instances: Instances | None
    tolerance: Mapping[str, Tolerance]

    def tolerance_of(self, backend: str) -> Tolerance:
        """Return the tolerance for a backend."""
        return self.tolerance.get(backend, self.tolerance[OTHER_BACKENDS])


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
    """A golden frame.

    Attributes:
        frame: Image ``(H, W, 3)`` uint8, blue first; its size and aspect differ from the network's input.
        class_names: Class names of the model when the frame was created.
        detection: Settings of the post-processing that produced the `instances`.
        min_confidence: Second score threshold that produced them.
        tensor: Sample of the network's input (see :func:`sample`).
        prior: Sample of the priors (see :func:`sample`).
        expectations: Expectations by precision, or by :func:`expectation_name` for a backend with its own.
    """

    frame: npt.NDArray[np.uint8]
    class_names: tuple[str, ...]
    detection: DetectionSpec
    min_confidence: float
    tensor: Float
    prior: Float
    expectations: Mapping[str, Expectation]

    def expectation(self, precision: str, backend: str) -> Expectation | None:
        """Return the expectation for a precision and backend; None if there is none."""
        return self.expectations.get(expectation_name(precision, backend), self.expectations.get(precision))


class Inspection(NamedTuple):
    """A frame's instances with all intermediate tensors, for comparison; the caller owns them.

    Attributes:
        tensor: Network input ``(1, 3, height, width)``, in the network's dtype.
        outputs: Outputs of the network, by name.
        instances: Instances in the frame.
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
        BundleError: The file cannot be read, or is not a golden frame of this release.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    return decode_golden(content, path)


def decode_golden(content: bytes, path: Path) -> Golden:
    """Decode the bytes of ``golden.npz``, like :func:`read_golden`; `path` is for messages.

    Raises:
        BundleError: The bytes are not a golden frame of this release.
    """
    try:
        return _decode(_unpack(content))
    # NumPy and zipfile have no specific error for a damaged file.
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
        raise ValueError(f'its "{name}" contains NaN or infinity')
    return found
