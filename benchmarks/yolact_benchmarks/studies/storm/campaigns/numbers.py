"""Numbers that networks and cameras should not produce: NaN, infinities, denormals and huge values; unusual frames.

Outputs of a network with some values replaced go through the post-processing; frames of every size, dtype and stride go
through the preprocessing. Silently wrong: the result is not what the NumPy reference computes from the same numbers.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.outcome import Finding, ok, refused, silent
from yolact_benchmarks.studies.storm.stage import Stage, tests_support
from yolact_plugins import reference
from yolact_plugins.errors import YolactError
from yolact_runtime.cpu.nms import NmsMethod, NmsSettings
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.cpu.priors import make_priors

__all__ = ["CAMPAIGN"]

Float = npt.NDArray[np.float32]
_VALUES = (
    np.nan, np.inf, -np.inf, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, 1e20, -1e20, 1e10, 88.8, -104.0, 0.0, -0.0, 65504.0,
)  # fmt: skip
_CHANNELS = (1, 3, 4)
_ROUNDING = 1e-5
_SIDES = (1, 2, 3, 7, 31, 64, 255, 1000)


def _prepare(_: Stage) -> None:
    tests_support()
    import support.scenes  # type: ignore[import-not-found, unused-ignore]  # noqa: F401


def _attempt(_: Stage, attempt: Attempt) -> Finding:
    return (_outputs if attempt.rng.random() < 0.6 else _frames)(attempt.rng)


def _outputs(rng: random.Random) -> Finding:
    from support.scenes import DEFAULT_PROTOTYPE, small_manifest  # type: ignore[import-not-found, unused-ignore]

    manifest = small_manifest()
    noise = np.random.default_rng(rng.randrange(2**32))
    count, classes = manifest.priors.num_priors, len(manifest.class_names) + 1
    outputs: dict[str, Float] = {
        "box_regression": noise.normal(0, 1, (1, count, 4)).astype(np.float32),
        "class_logit": noise.normal(0, 3, (1, count, classes)).astype(np.float32),
        "mask_coefficient": noise.normal(0, 1, (1, count, len(DEFAULT_PROTOTYPE))).astype(np.float32),
        "prototype": noise.normal(0, 3, (1, *DEFAULT_PROTOTYPE.shape)).astype(np.float32),
    }
    name = rng.choice(sorted(outputs))
    value = rng.choice(_VALUES)
    flat = outputs[name].reshape(-1)
    flat[noise.integers(0, flat.size, rng.choice((1, 3, 20)))] = value
    dtype = rng.choice((np.float32, np.float32, np.float16))
    given: dict[str, npt.NDArray[Any]]
    with np.errstate(over="ignore"):
        given = {key: array.astype(dtype) for key, array in outputs.items()}
    method = rng.choice(list(NmsMethod))
    height, width = rng.choice(_SIDES), rng.choice(_SIDES)
    what = f"{value} in {name} ({np.dtype(dtype).name}, {method.value}, {height} x {width})"
    try:
        found = Postprocessor.of(manifest, NmsSettings(method=method))(given, height, width)
    except YolactError as error:
        if all(np.isfinite(array).all() for array in given.values()):
            return silent(f"{what}: finite numbers are refused: {error}")
        return refused(what, error)
    return _compared(found, manifest, given, method, height, width, what)


def _compared(
    found: Any, manifest: Any, given: dict[str, Any], method: NmsMethod, height: int, width: int, what: str
) -> Finding:
    raw = {name: array[0].astype(np.float32) for name, array in given.items()}
    if not all(np.isfinite(array).all() for array in raw.values()):
        return silent(f"{what}: a value that is not finite was not refused")
    with np.errstate(all="ignore"):
        kept, boxes = _select(raw, manifest, method)
        soft = reference.soft_masks(raw["prototype"], raw["mask_coefficient"][kept.prior], boxes)
    if found.class_id.tolist() != kept.class_id.tolist():
        return silent(f"{what}: {len(found)} instances, {len(kept.prior)} in the reference, or of other classes")
    if not np.allclose(found.confidence, kept.confidence, rtol=1e-5, atol=1e-7):
        return silent(f"{what}: other confidences than the reference")
    for number, (mask, each) in enumerate(zip(found.mask.dense(), soft, strict=True)):
        probability = reference.resize_bilinear(each, height, width)
        # If only rounding decides, both are right.
        if (wrong := (mask != (probability > 0.5)) & (np.abs(probability - 0.5) > _ROUNDING)).any():
            return silent(f"{what}: {int(wrong.sum())} pixels of mask {number} differ from the reference")
    if not np.isfinite(found.xyxy).all():
        return silent(f"{what}: boxes that are not finite")
    return ok(what)


def _select(raw: dict[str, Float], manifest: Any, method: NmsMethod) -> tuple[Any, Float]:
    priors = make_priors(manifest.priors, manifest.input.height, manifest.input.width)
    score = reference.class_score(raw["class_logit"])[:, 1:]
    boxes = reference.decode(raw["box_regression"], priors, manifest.priors.variances)
    size = (manifest.input.height, manifest.input.width)
    if method is NmsMethod.FAST:
        kept = reference.fast_nms(boxes, score)
    elif method is NmsMethod.CROSS_CLASS:
        kept = reference.cross_class_fast_nms(boxes, score)
    else:
        kept = reference.traditional_nms(boxes, score, input_size=size)
    return kept, boxes[kept.prior]


def _frames(rng: random.Random) -> Finding:
    from support.scenes import small_manifest
    from yolact_runtime.cpu.preprocess import preprocess

    spec = small_manifest().input
    noise = np.random.default_rng(rng.randrange(2**32))
    height, width = rng.choice(_SIDES), rng.choice(_SIDES)
    dtype = rng.choice(("uint8", "uint8", "uint8", "uint16", "int32", "float32", "bool", "float16", ">u2"))
    channels = rng.choice((3, 3, 3, 1, 2, 4, 5, 0))
    frame = noise.integers(0, 256, (height * 2, width * 2, channels)).astype(dtype)
    view = rng.choice(("whole", "every second", "backwards", "turned", "column-major"))
    made = _VIEWS[view](frame, height, width)
    what = f"frame {made.shape} of {dtype}, {view}"
    try:
        found = preprocess(made, spec)
    except YolactError as error:
        if dtype == "uint8" and channels in _CHANNELS:
            return silent(f"{what}: a sound frame is refused: {error}")
        return refused(what, error)
    if dtype != "uint8" or channels not in _CHANNELS:
        return silent(f"{what}: accepted as a frame")
    bgr = np.ascontiguousarray(np.broadcast_to(made[..., :3], (*made.shape[:2], 3)))
    expected = reference.preprocess(bgr, spec.height, spec.width, spec.mean_bgr, spec.std_bgr, spec.channel_order)
    if not np.allclose(found, expected, atol=2e-4):
        return silent(f"{what}: differs from the reference by {np.abs(found - expected).max():.1e}")
    return ok(what)


_VIEWS: dict[str, Any] = {
    "whole": lambda frame, height, width: np.ascontiguousarray(frame[:height, :width]),
    "every second": lambda frame, *_: frame[::2, ::2],
    "backwards": lambda frame, height, width: frame[height - 1 :: -1, width - 1 :: -1],
    "turned": lambda frame, height, width: frame[:height, :width].transpose(1, 0, 2),
    "column-major": lambda frame, height, width: np.asfortranarray(frame[:height, :width]),
}

CAMPAIGN = Campaign("numbers", _attempt, 150, 8, _prepare)
