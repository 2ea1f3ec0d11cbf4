"""Videos: healthy ones in many containers, which must succeed, and damaged ones, which must not end early silently."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from yolact_benchmarks.studies.bad_inputs.case import Answer, Case, read_results
from yolact_benchmarks.studies.bad_inputs.ground import ROOT, Ground

__all__ = ["film_cases"]


def film_cases(ground: Ground) -> Iterator[Case]:
    """Yield a try for each video that the tests' support makes."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.videos import damaged_videos, healthy_videos  # type: ignore[import-not-found, unused-ignore]

    for kind, made in {"a healthy video": healthy_videos, "a damaged video": damaged_videos}.items():
        for video in made(ground.new_folder()):
            result = ground.new_folder() / "r.json"
            words = ground.run_words(video.path, "--json", result)
            yield Case(
                kind, f"{video.path.suffix} {video.kind}", "yolact-run", words, _has_frames(result, video.num_frames)
            )


def _has_frames(result: Path, count: int) -> Callable[[Answer], bool]:
    """Return a function that tells whether every frame has a result; a count below 0 is unknown."""

    def is_right(_: Answer) -> bool:
        document = read_results(result)
        return document is not None and (count < 0 or len(document["images"]) == count)

    return is_right
