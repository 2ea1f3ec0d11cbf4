"""Images of six formats with bytes changed or cut off.

Silently wrong: a PNG, whose chunks have checksums, or a truncated image of any format gives other pixels; or any file
gives other pixels than OpenCV alone decodes from its bytes. Other pixels of a format without checksums are another
image, which is visible when it is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.mutations import mutate_bytes
from yolact_benchmarks.studies.storm.outcome import Finding, judge_answer, ok, silent, visible
from yolact_benchmarks.studies.storm.stage import Stage

__all__ = ["CAMPAIGN"]

_FORMATS = (".bmp", ".jpg", ".png", ".ppm", ".tiff", ".webp")
_LARGEST_STRAY = 16
"""Number of bytes behind the last pixel that a format may have: cutting these off changes no pixel."""
_encoded: dict[str, tuple[bytes, npt.NDArray[Any]]] = {}


def _prepare(stage: Stage) -> None:
    import cv2

    for suffix in _FORMATS:
        content = bytes(cv2.imencode(suffix, stage.frame)[1])
        decoded = _decoded(content)
        assert decoded is not None, suffix
        _encoded[suffix] = (content, decoded)


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    from yolact_runtime.media.images import read_image

    rng = attempt.rng
    suffix = rng.choice(_FORMATS)
    content, intact = _encoded[suffix]
    end = rng.choice((len(content), len(content), 200))
    what, changed = mutate_bytes(content, rng, end=end)
    path = attempt.folder / f"a{suffix}"
    path.write_bytes(changed)
    if rng.random() < 0.05:
        words = (stage.bundle, path, "--threads", 1, "-o", attempt.folder / "out")
        return judge_answer(attempt.run("yolact-run", words), f"{suffix} {what}")
    found = read_image(path)
    what = f"{suffix} {what}"
    if np.array_equal(found, intact):
        return ok(what)
    if changed == content[: len(changed)] and len(changed) < len(content) - _LARGEST_STRAY:
        return silent(f"{what}: a picture cut short is read as a whole one")
    if suffix == ".png":
        return silent(f"{what}: other pixels in spite of checksums")
    theirs = _decoded(changed)
    if theirs is None or not np.array_equal(found, theirs):
        return silent(f"{what}: not the pixels that OpenCV decodes")
    return visible(f"{what}: another picture")


def _decoded(content: bytes) -> Any:
    import cv2

    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


CAMPAIGN = Campaign("pictures", _attempt, 120, 5, _prepare)
