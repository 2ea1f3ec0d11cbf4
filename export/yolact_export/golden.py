"""The golden frame of a bundle: drawn so that the network finds something in it, and written with its results.

Each network of the bundle is run as its target device would compute it: float32 and ``int8-cpu`` by ONNX Runtime, as on
a robot's CPU; float16 and ``int8``, which are for engines, by a float32 graph that rounds wherever an engine does.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from yolact_calibration.errors import CalibrationError
from yolact_calibration.float16.rounding import simulate_float16
from yolact_calibration.quantisation.trial import GraphBackend
from yolact_export.bundle_writer import put_manifest
from yolact_export.drawing import draw_frame
from yolact_plugins.files import write_atomically
from yolact_runtime.backends import Backend, create_backend
from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.errors import BackendError, BundleError
from yolact_runtime.golden import (
    GOLDEN_NAME,
    GOLDEN_ROLE,
    MAX_DIFFERENCE,
    OTHER_BACKENDS,
    Expectation,
    Golden,
    Inspection,
    Tolerance,
    encode_golden,
    expectation_name,
    sample,
)
from yolact_runtime.mask_rescoring import MaskRescoring
from yolact_runtime.model.bundle import NETWORK_ROLE, checked_artefact
from yolact_runtime.model.manifest import Artefact, Manifest
from yolact_runtime.model.network_outputs import RawOutputs
from yolact_runtime.opening import OpenModel, SharedNetwork, frame_path
from yolact_runtime.reporter import SILENT, Reporter
from yolact_runtime.segmenter_options import SegmenterOptions
from yolact_runtime.self_test import relative_difference

__all__ = ["write_golden"]

Frame = npt.NDArray[np.uint8]
# Sizes (rows, columns); the second is for networks whose own input is as wide as the first.
_SIZES, _SAME_ASPECT = ((270, 480), (300, 400)), 0.1
_MAX_PICTURES = 3
# A picture is good enough if this many instances are separated by this gap from the rest; below the least gap and the
# least confidence another precision might find others, so only outputs are compared.
_ENOUGH_INSTANCES, _ENOUGH_GAP = 3, 0.3
_LEAST_GAP, _LEAST_CONFIDENCE = 0.1, 0.2
_MOST_INSTANCES = 20
_CPU = "onnxruntime-cpu"
_ON_CPU = frozenset({"fp32", "int8-cpu"})
_MASK_IOU = "mask_iou.fp32.onnx"
_LEAST = 1e-4


@dataclasses.dataclass(frozen=True)
class _Choice:
    """Picture, and the threshold that separates the float32 network's confident instances from the rest."""

    frame: Frame
    seen: Inspection
    min_confidence: float
    count: int
    gap: float
    is_dead: bool = False

    @property
    def evidence(self) -> float:
        return min(self.count, _ENOUGH_INSTANCES) * min(self.gap, _ENOUGH_GAP)


def write_golden(folder: Path, manifest: Manifest, reporter: Reporter = SILENT, num_threads: int = 0) -> Manifest:
    """Draw a frame, run each network on it, and write frame and results into a bundle's folder, with the manifest.

    Args:
        folder: Folder of a new bundle, with the networks. An earlier golden frame is replaced.
        manifest: Manifest with all networks, including the float32 one.
        reporter: Reporter that receives a warning for each network without an expectation.
        num_threads: Number of CPU threads; 0 leaves the choice to ONNX Runtime.

    Returns:
        The manifest as it was written, which lists the golden frame.

    Raises:
        BackendError: The float32 network does not run, or its outputs are not finite.
    """
    files = {a.precision: n for n, a in manifest.artefacts.items() if a.role == NETWORK_ROLE and n.endswith(".onnx")}
    with _open(folder, manifest, _run_here(folder / files["fp32"], num_threads), num_threads) as model:
        choice = _choose(model, manifest)
    if choice.is_dead:
        reporter.warn("the network's outputs do not depend on the picture: it is not trained, or damaged")
    seen = {"fp32": choice.seen}
    for precision in sorted(set(files) - {"fp32"}):
        try:
            checked_artefact(folder, files[precision], manifest.artefacts[files[precision]])
            seen |= _see(folder, manifest, files[precision], precision, choice, num_threads)
        except (BackendError, BundleError, CalibrationError) as error:
            # The guard has reported a network that is kept nevertheless; its self-test has nothing to compare with.
            reporter.warn(f"the golden frame has no expectation for {precision}: {error}")
    spec = manifest.input
    golden = Golden(
        choice.frame,
        manifest.class_names,
        manifest.detection,
        choice.min_confidence,
        sample(choice.seen.tensor),
        sample(make_priors(manifest.priors, spec.height, spec.width)),
        {name: _expect(name, found, seen["fp32"], choice.count > 0) for name, found in seen.items()},
    )
    content = encode_golden(golden)
    write_atomically(folder / GOLDEN_NAME, content)
    artefact = Artefact(GOLDEN_ROLE, "", hashlib.sha256(content).hexdigest(), len(content))
    others = {name: other for name, other in manifest.artefacts.items() if name != GOLDEN_NAME}
    complete = dataclasses.replace(manifest, artefacts={**others, GOLDEN_NAME: artefact})
    put_manifest(folder, complete)
    return complete


def _see(
    folder: Path, manifest: Manifest, name: str, precision: str, choice: _Choice, num_threads: int
) -> dict[str, Inspection]:
    """Return a network's results as on its target device and, if that is not a CPU, also on a CPU."""
    path = folder / name
    openers = {precision if precision in _ON_CPU else expectation_name(precision, _CPU): _run_here}
    if precision not in _ON_CPU:
        openers[precision] = functools.partial(_simulate, has_steps=precision == "int8")
    seen = {}
    for key, opener in openers.items():
        with _open(folder, manifest, opener(path, num_threads), num_threads) as model:
            seen[key] = _inspect(model, choice.frame, choice.min_confidence)
    return seen


@contextmanager
def _open(folder: Path, manifest: Manifest, network: Backend, num_threads: int) -> Iterator[OpenModel]:
    mask_iou = folder / _MASK_IOU
    rescoring = None
    if manifest.mask_rescoring:
        rescoring = MaskRescoring.of_backend(create_backend(_CPU, mask_iou, num_threads), manifest)
    shared = SharedNetwork(network, rescoring)
    shared.hold()
    try:
        yield OpenModel(manifest, shared)
    finally:
        shared.drop()


def _run_here(path: Path, num_threads: int) -> Backend:
    """Open the file as a robot's CPU runs it."""
    return create_backend(_CPU, path, num_threads)


def _simulate(path: Path, num_threads: int, has_steps: bool) -> Backend:
    """Open a simulation of an engine, as far as a CPU allows; `has_steps` means that the graph contains Q/DQ."""
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's errors have no common base class
        raise CalibrationError(f"{path} is not an ONNX file: {error}") from error
    rounded = simulate_float16(model).SerializeToString()
    return GraphBackend(rounded, num_threads, simulate=has_steps)


def _inspect(model: OpenModel, frame: Frame, min_confidence: float) -> Inspection:
    path = frame_path(model, SegmenterOptions(min_confidence=min_confidence))
    try:
        return path.inspect(frame)
    finally:
        path.close()


def _choose(model: OpenModel, manifest: Manifest) -> _Choice:
    """Choose the first picture with enough separated instances, or the best of a few."""
    best: _Choice | None = None
    outputs = []
    for variant in range(_MAX_PICTURES):
        frame = draw_frame(*_size(manifest), variant, grain=False)
        seen = _inspect(model, frame, 0.0)
        outputs.append(np.concatenate([sample(seen.outputs[name]) for name in RawOutputs._fields]))
        count, gap, threshold = _separate(seen.instances.confidence)
        choice = _Choice(frame, seen._replace(instances=seen.instances[:count]), threshold, count, gap)
        if best is None or choice.evidence > best.evidence:
            best = choice
        if count >= _ENOUGH_INSTANCES and gap >= _ENOUGH_GAP:
            break
    assert best is not None
    is_dead = len(outputs) > 1 and all(np.array_equal(outputs[0], other) for other in outputs[1:])
    return dataclasses.replace(best, is_dead=is_dead)


def _size(manifest: Manifest) -> tuple[int, int]:
    """Return rows and columns of a picture whose aspect differs from that of the network's input."""
    aspect = manifest.input.width / manifest.input.height
    height, width = _SIZES[0]
    return _SIZES[1] if abs(width / height / aspect - 1) < _SAME_ASPECT else _SIZES[0]


def _separate(confidence: npt.NDArray[np.float32]) -> tuple[int, float, float]:
    """Find the largest gap between descending confidences: the number of instances above, its size, and its middle.

    Returns:
        The three numbers; with 0 instances if there is no clear gap, and a threshold above all confidences.
    """
    padded = np.append(confidence[: _MOST_INSTANCES + 1], np.float32(0)).astype(np.float64)
    falls = np.where(padded[:-1] >= _LEAST_CONFIDENCE, padded[:-1] - padded[1:], 0.0)
    # Up to this many instances, and all of those above the gap.
    falls = falls[:_MOST_INSTANCES]
    place = int(np.argmax(falls)) if len(falls) else 0
    if not len(falls) or falls[place] < _LEAST_GAP:
        return 0, 0.0, 1.0
    return place + 1, float(falls[place]), float((padded[place] + padded[place + 1]) / 2)


def _expect(name: str, seen: Inspection, reference: Inspection, has_instances: bool) -> Expectation:
    """Create the expectation of a precision, or of a precision on a backend, by its name in the golden frame."""
    precision = name.split()[0]
    outputs = {output: sample(seen.outputs[output]) for output in RawOutputs._fields}
    noise = {output: relative_difference(outputs[output], sample(reference.outputs[output])) for output in outputs}
    made_by = f"ONNX Runtime {onnxruntime.__version__}"
    is_simulated = name == precision and precision not in _ON_CPU
    if is_simulated:
        made_by += ", rounded to float16 as an engine does"
    tolerance = {OTHER_BACKENDS: _elsewhere(precision, noise)}
    if not is_simulated:
        tolerance[_CPU] = _on_this_backend(precision, noise)
    return Expectation(made_by, outputs, seen.instances if has_instances else None, tolerance)


def _on_this_backend(precision: str, noise: Mapping[str, float]) -> Tolerance:
    """Return the tolerance for the same library on another machine, below the difference between precisions.

    Args:
        precision: Precision of the network.
        noise: Difference between this precision and float32, by output name.
    """
    if precision == "fp32":
        # Another order of sums changes the sixth digit; float16 already the fourth.
        return Tolerance(dict.fromkeys(noise, _LEAST), 0.005, 0.98, 0.97, 1.0)
    # A CPU without instructions for INT8 rounds sums elsewhere, so tensors differ by single steps.
    share, confidence, iou = (0.8, 0.1, 0.8) if precision == "int8-cpu" else (0.5, 0.05, 0.9)
    return Tolerance(_limits(noise, share, _LEAST), confidence, iou, iou, 0.7)


def _elsewhere(precision: str, noise: Mapping[str, float]) -> Tolerance:
    """Return the tolerance for an engine, or a library on a GPU.

    Rounding to INT8 in another order takes other steps, and then differs from the expectation by as much as both differ
    from float32: limits below twice that would refuse correct results.
    """
    if precision in {"fp32", "fp16"}:
        # Some libraries multiply float32 in TF32 on a GPU, whose mantissa is that of float16.
        return Tolerance(_limits(noise, 4.0, 0.01), 0.05, 0.9, 0.9, 0.8)
    return Tolerance(_limits(noise, 2.0, 0.01), 0.2, 0.7, 0.7, 0.6)


def _limits(noise: Mapping[str, float], share: float, least: float) -> dict[str, float]:
    return {name: min(max(share * value, least), MAX_DIFFERENCE) for name, value in noise.items()}
