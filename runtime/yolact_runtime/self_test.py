"""The self-test: comparison of the golden frame of a bundle with the results of the open backend.

It detects what a hash cannot: a network, engine, backend, driver or machine that computes other results than at export,
and a manifest that no longer belongs to the network. It costs about two frames.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.errors import BackendError, BundleError, NoGoldenFrameError, SelfTestError
from yolact_runtime.golden import Expectation, Golden, Inspection, Tolerance, decode_golden, sample
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.bundle import MANIFEST_NAME
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model_files import Origin
from yolact_runtime.opening import OpenModel, frame_path
from yolact_runtime.segmenter_options import SegmenterOptions

__all__ = ["SelfTest", "compare_manifests", "match_instances", "relative_difference", "run_self_test"]

# The network's input is computed in float32 everywhere; a float16 network rounds it once.
_INPUT_TOLERANCE, _PRIOR_TOLERANCE = 2e-3, 1e-5


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """The result of a passed self-test.

    Attributes:
        precision: Precision of the network.
        backend: Name of the backend that ran it.
        differences: Root mean square of the difference, as a fraction of the expected values', by output name.
        limits: Largest difference that passes, by output name.
        num_expected: Number of expected instances; None if only outputs are compared.
        num_matched: Number of expected instances that were found.
        milliseconds: Time of the frame in milliseconds, including the comparison.
    """

    precision: str
    backend: str
    differences: dict[str, float]
    limits: dict[str, float]
    num_expected: int | None
    num_matched: int
    milliseconds: float

    def __str__(self) -> str:
        worst = max(self.differences, key=lambda name: self.differences[name] / self.limits[name])
        found = (
            "outputs only: it detects nothing with confidence in a drawn picture"
            if self.num_expected is None
            else f"{self.num_matched} of {self.num_expected} instances found"
        )
        return (
            f"self-test passed ({self.precision} on {self.backend}): {found}; {worst} differs by "
            f"{self.differences[worst]:.1e}, {self.limits[worst]:.1e} allowed; {self.milliseconds:.0f} ms"
        )


def run_self_test(model: OpenModel, options: SegmenterOptions) -> SelfTest:
    """Compare the results of an open model for its bundle's golden frame with the expected ones.

    Thresholds and the suppression method of `options` are ignored in favour of those of the golden frame.

    Args:
        model: The open model of a bundle.
        options: Options of the segmenter: where the post-processing runs, and whether masks are re-scored.

    Raises:
        NoGoldenFrameError: There is no golden frame, or none for this precision.
        SelfTestError: A result differs; the message lists every difference with its limit.
        BundleError: The golden frame does not match the manifest.
    """
    golden = _golden_of(model)
    precision, backend = model.manifest.precision, model.shared.network.name
    expected = golden.expectation(precision, backend)
    if expected is None:
        raise NoGoldenFrameError(
            f"self-test of {model.folder}: its golden frame has no expectation for {precision}, only for "
            f"{', '.join(sorted({name.split()[0] for name in golden.expectations}))}: export again"
        )
    # Checked first: results computed with a foreign manifest mean nothing.
    compare_manifests(model)
    _require_none(model, _compare_with_golden(model, golden))
    started = time.perf_counter()
    seen = _inspect(model, golden, options)
    milliseconds = (time.perf_counter() - started) * 1e3
    tolerance = expected.tolerance_of(backend)
    differences = {
        name: relative_difference(sample(seen.outputs[name]), values) for name, values in expected.outputs.items()
    }
    matched, failures = _compare_instances(expected, seen.instances, tolerance)
    _require_none(model, [*_compare_input(seen, golden), *_compare_outputs(differences, tolerance), *failures])
    return SelfTest(
        precision,
        backend,
        differences,
        dict(tolerance.outputs),
        None if expected.instances is None else len(expected.instances),
        matched,
        milliseconds,
    )


def compare_manifests(model: OpenModel) -> None:
    """Compare the manifest of a bundle with the one inside its network.

    Detection settings and class names may be edited by hand.

    Raises:
        SelfTestError: The manifests differ in the input or in the priors.
        NoGoldenFrameError: The model was opened without its bundle.
    """
    manifest, inside = _origin_of(model).manifest, _embedded(model)
    if inside is None:
        return
    # The bit depth concerns frames before they reach the network, and may come from a later calibration.
    inside_input = dataclasses.replace(inside.input, bit_depth=manifest.input.bit_depth)
    failures = _differing("input", manifest.input, inside_input) + _differing("priors", manifest.priors, inside.priors)
    failures += _differing("dtypes", model.manifest.dtypes, inside.dtypes)
    if manifest.mask_rescoring != inside.mask_rescoring:
        failures.append(f"mask_rescoring is {manifest.mask_rescoring} in the manifest, not in the network itself")
    if inside.precision != model.manifest.precision:
        failures.append(f"the manifest lists it as {model.manifest.precision}, the network says {inside.precision}")
    _require_none(model, failures)


def relative_difference(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Return the root mean square of the difference over that of the expected values; infinite for other lengths."""
    if found.shape != expected.shape:
        return float("inf")
    difference = np.sqrt(np.mean(np.square(found.astype(np.float64) - expected)))
    return float(difference / max(np.sqrt(np.mean(np.square(expected, dtype=np.float64))), 1e-12))


def match_instances(expected: Instances, found: Instances, tolerance: Tolerance) -> int:
    """Count expected instances with a partner of their own among the found: class, confidence, box and mask agree."""
    fits = (
        (expected.class_id[:, None] == found.class_id[None])
        & (np.abs(expected.confidence[:, None] - found.confidence[None]) <= tolerance.confidence)
        & (_box_iou(expected.xyxy, found.xyxy) >= tolerance.box_iou)
    )
    if expected.mask_confidence is not None and found.mask_confidence is not None:
        change = np.abs(expected.mask_confidence[:, None] - found.mask_confidence[None])
        fits &= change <= tolerance.confidence
    iou = expected.mask.iou(found.mask)
    iou[(expected.mask.area() == 0)[:, None] & (found.mask.area() == 0)[None]] = 1.0
    fits &= iou >= tolerance.mask_iou
    count = 0
    for row, similar in zip(fits, iou, strict=True):
        if row.any():
            fits[:, int(np.argmax(np.where(row, similar, -1.0)))] = False
            count += 1
    return count


def _origin_of(model: OpenModel) -> Origin:
    if model.origin is None:
        raise NoGoldenFrameError(
            f"the self-test compares with the golden frame of a bundle folder; {model.file or 'this model'} was opened "
            f"without one: open the folder"
        )
    return model.origin


def _golden_of(model: OpenModel) -> Golden:
    origin = _origin_of(model)
    if origin.golden is None:
        raise NoGoldenFrameError(
            f"{origin.folder} has no golden frame to compare with: the release that exported it did not write one. "
            f"Export the checkpoint again; adding a network draws one, too: "
            f"yolact-export {shlex.quote(str(origin.folder))} --int8 --calib DIR"
        )
    if isinstance(origin.golden, BundleError):
        raise origin.golden
    return decode_golden(origin.golden.content, origin.golden.path)


def _compare_with_golden(model: OpenModel, golden: Golden) -> list[str]:
    """Compare the manifest with the golden frame's classes and priors."""
    failures = []
    classes = _origin_of(model).manifest.class_names
    if classes != golden.class_names:
        failures.append(_first_difference(golden.class_names, classes))
    spec = model.manifest.input
    priors = sample(make_priors(model.manifest.priors, spec.height, spec.width))
    if (difference := relative_difference(priors, golden.prior)) > _PRIOR_TOLERANCE:
        failures.append(f"the priors differ by {difference:.2g} ({_PRIOR_TOLERANCE:.0e} allowed)")
    return failures


def _embedded(model: OpenModel) -> Manifest | None:
    """Return the manifest inside the network's file; for an engine, the open one."""
    file = model.file
    if file is None or file.suffix != ".onnx":
        return model.manifest
    text = _origin_of(model).embedded
    return None if text is None else Manifest.from_json(text, str(file))


def _differing(name: str, outside: Any, inside: Any) -> list[str]:
    """Describe the fields of two dataclasses that are not equal."""
    return [
        f"{name}.{field.name} is {getattr(outside, field.name)} in the manifest, {getattr(inside, field.name)} in the "
        f"network itself"
        for field in dataclasses.fields(outside)
        if getattr(outside, field.name) != getattr(inside, field.name)
    ]


def _first_difference(expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    if len(expected) != len(found):
        return f"{MANIFEST_NAME} names {len(found)} classes, the model was exported with {len(expected)}"
    place = next(i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b)
    return f'{MANIFEST_NAME} calls class {place} "{found[place]}", the model was exported with "{expected[place]}"'


def _inspect(model: OpenModel, golden: Golden, options: SegmenterOptions) -> Inspection:
    chosen = SegmenterOptions(
        min_confidence=golden.min_confidence,
        mask_rescoring=options.mask_rescoring,
        num_threads=options.num_threads,
        cpu_postprocessing=options.cpu_postprocessing,
        frames_in_flight=1,
    )
    manifest = dataclasses.replace(model.manifest, detection=golden.detection)
    path = frame_path(dataclasses.replace(model, manifest=manifest), chosen)
    try:
        return path.inspect(golden.frame)
    except BackendError as error:
        raise _failed(model, [str(error)]) from error
    finally:
        path.close()


def _compare_input(seen: Inspection, golden: Golden) -> list[str]:
    difference = relative_difference(sample(seen.tensor), golden.tensor)
    if difference <= _INPUT_TOLERANCE:
        return []
    return [
        f"the network's input differs by {difference:.2g} ({_INPUT_TOLERANCE:.0e} allowed): frames are resized or "
        f"normalised in another way"
    ]


def _compare_outputs(differences: dict[str, float], tolerance: Tolerance) -> list[str]:
    return [
        f'the output "{name}" differs by {difference:.2g} ({tolerance.outputs[name]:.2g} allowed)'
        for name, difference in differences.items()
        if not difference <= tolerance.outputs[name]
    ]


def _compare_instances(expected: Expectation, found: Instances, tolerance: Tolerance) -> tuple[int, list[str]]:
    if expected.instances is None:
        return 0, []
    wanted = expected.instances
    matched = match_instances(wanted, found, tolerance)
    most = max(len(wanted), len(found))
    if most - matched <= (1 - tolerance.matched) * most:
        return matched, []
    return matched, [
        f"{matched} of {len(wanted)} expected instances are found, among {len(found)} ({tolerance.matched:.0%} have to "
        f"agree in class, confidence within {tolerance.confidence:g}, box IoU of {tolerance.box_iou:g} and mask IoU of "
        f"{tolerance.mask_iou:g})"
    ]


def _box_iou(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Compute the ``(n, m)`` IoU of boxes in pixels; two boxes without area are equal if their corners are."""
    x, y = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    size = np.maximum(np.minimum(x[..., 2:], y[..., 2:]) - np.maximum(x[..., :2], y[..., :2]), 0)
    intersection = size.prod(axis=-1)
    area_x, area_y = (np.maximum(box[..., 2:] - box[..., :2], 0).prod(axis=-1) for box in (x, y))
    union = area_x + area_y - intersection
    equal = np.abs(x - y).max(axis=-1, initial=0.0) <= 1.0
    iou: npt.NDArray[np.float64] = np.where(union > 0, intersection / np.maximum(union, 1e-12), equal)
    return iou


def _require_none(model: OpenModel, failures: list[str]) -> None:
    if failures:
        raise _failed(model, failures)


def _failed(model: OpenModel, failures: list[str]) -> SelfTestError:
    name = f"{model.manifest.precision} on {model.shared.network.name}"
    listed = "".join(f"\n  {failure}" for failure in failures)
    return SelfTestError(
        f"self-test of {model.folder} failed ({name}); results differ from those at export:{listed}\n"
        f"Copy the bundle again, or export again; for an engine: yolact-export {shlex.quote(str(model.folder))} "
        f"--engine. If that does not help, compare with --backend onnxruntime-cpu --precision fp32"
    )
