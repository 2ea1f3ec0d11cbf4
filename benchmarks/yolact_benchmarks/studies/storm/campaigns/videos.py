"""Videos of several containers with bytes changed or cut off; decoders conceal damage inside frames.

Silently wrong: all frames were read, no fault is reported, and their number is not that of the intact video.
"""

from __future__ import annotations

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.mutations import mutate_bytes
from yolact_benchmarks.studies.storm.outcome import Finding, judge_answer, ok, refused, silent
from yolact_benchmarks.studies.storm.stage import Stage, tests_support

__all__ = ["CAMPAIGN"]

_CODECS = (("mp4", "mp4v"), ("mov", "MJPG"), ("avi", "MJPG"), ("avi", "XVID"), ("mkv", "mp4v"), ("webm", "VP80"))
_NUM_FRAMES = 24
_videos: dict[str, bytes] = {}


def _prepare(stage: Stage) -> None:
    tests_support()
    from support.videos import write_with_opencv  # type: ignore[import-not-found, unused-ignore]

    folder = stage.ground.new_folder()
    for suffix, codec in _CODECS:
        path = write_with_opencv(folder / f"{codec}.{suffix}", codec, num_frames=_NUM_FRAMES)
        _videos[path.name] = path.read_bytes()


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    from yolact_runtime.media.videos import VideoReader

    rng = attempt.rng
    name = rng.choice(sorted(_videos))
    content = _videos[name]
    begin, end = rng.choice(((0, len(content)), (0, 600), (len(content) - 600, len(content))))
    what, changed = mutate_bytes(content, rng, begin, end)
    path = attempt.folder / name
    path.write_bytes(changed)
    what = f"{name} {what}"
    if rng.random() < 0.05:
        words = (stage.bundle, path, "--threads", 1, "--json", attempt.folder / "r.json")
        return judge_answer(attempt.run("yolact-run", words), what)
    with VideoReader(path) as reader:
        count = sum(1 for _ in reader)
        if reader.faults:
            return refused(what, "; ".join(reader.faults))
    if count != _NUM_FRAMES:
        return silent(f"{what}: {count} frames of {_NUM_FRAMES}, and no fault")
    return ok(what)


CAMPAIGN = Campaign("videos", _attempt, 80, 3, _prepare)
