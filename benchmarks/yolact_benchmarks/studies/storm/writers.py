"""Commands that write files, and checks whether the files under visible names are whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from yolact_benchmarks.studies.bad_inputs.case import Answer
from yolact_benchmarks.studies.bad_inputs.endings import film_of
from yolact_benchmarks.studies.bad_inputs.trial import Limits, call_command, run_forked
from yolact_benchmarks.studies.storm.leftovers import is_whole_bundle
from yolact_benchmarks.studies.storm.stage import Stage
from yolact_calibration import shapes

__all__ = ["LIMITS", "WRITERS", "Writer", "calibration_images", "film", "names_in", "torn_files"]

_FILM_FRAMES = 30
LIMITS = Limits(seconds=150)
"""Limits of a command: the slowest take ten seconds on an idle machine."""


@dataclasses.dataclass(frozen=True, eq=False)
class Writer:
    """A command that writes into one folder.

    Attributes:
        name: Human-readable name.
        command: Name of the command, such as ``yolact-run``.
        words: Function from the stage and a folder to the command's arguments.
        share: Relative frequency with which it is chosen.
        is_quick: Whether it takes less than a second.
    """

    name: str
    command: str
    words: Callable[[Stage, Path], tuple[object, ...]]
    share: int
    is_quick: bool = True

    def call(self, stage: Stage, folder: Path) -> int:
        """Run the command in this process and return its exit status."""
        return call_command(self.command, tuple(map(str, self.words(stage, folder))))

    def run(self, stage: Stage, folder: Path) -> Answer:
        """Run the command in a process of its own and return its answer."""
        return run_forked(lambda: self.call(stage, folder), LIMITS)


def names_in(folder: Path) -> list[str]:
    """Return the relative names of files and bundles in a folder, hidden or not, without the content of bundles."""
    found = []
    for path in sorted(folder.iterdir()):
        inner = path.is_dir() and not (path / "manifest.json").exists()
        found += [f"{path.name}/{name}" for name in names_in(path)] if inner else [path.name]
    return found


def torn_files(folder: Path) -> list[str]:
    """Return visible files and bundles that are not whole; the last line of a stream may be truncated."""
    visible = (name for name in names_in(folder) if not any(part.startswith(".") for part in Path(name).parts))
    return [name for name in visible if not _is_whole(folder / name)]


def _is_whole(path: Path) -> bool:
    if path.is_dir():
        return is_whole_bundle(path)
    check = _CHECKS.get(path.suffix)
    try:
        return path.stat().st_size > 0 if check is None else check(path)
    except Exception:
        return False


def _is_json(path: Path) -> bool:
    json.loads(path.read_bytes())
    return True


def _is_stream(path: Path) -> bool:
    for line in path.read_bytes().split(b"\n")[:-1]:
        json.loads(line)
    return True


def _is_picture(path: Path) -> bool:
    from yolact_runtime.media.images import read_image

    return bool(read_image(path).size)


def _is_video(path: Path) -> bool:
    from yolact_runtime.media.videos import VideoReader

    with VideoReader(path) as reader:
        return sum(1 for _ in reader) > 0 and not reader.faults


def _is_checkpoint(path: Path) -> bool:
    import torch

    return bool(torch.load(path, weights_only=True))


_CHECKS: dict[str, Callable[[Path], bool]] = {
    ".json": _is_json,
    ".jsonl": _is_stream,
    ".png": _is_picture,
    ".jpg": _is_picture,
    ".mp4": _is_video,
    ".webm": _is_video,
    ".pth": _is_checkpoint,
    ".html": lambda path: path.read_bytes().rstrip().endswith(b"</html>"),
}


@cache
def film(stage: Stage) -> Path:
    """Write a short video of the scenes, once."""
    return film_of(stage.ground, _FILM_FRAMES)


@cache
def calibration_images(stage: Stage) -> Path:
    """Draw the minimum number of scenes for a calibration, once, and return their folder."""
    folder = stage.ground.new_folder() / "scenes"
    if shapes.main(["--seed", "20000", "--count", "8", "-o", str(folder), "-q"]) != 0:
        raise RuntimeError("the scenes cannot be drawn")
    return folder / "images"


def _export(stage: Stage, folder: Path) -> tuple[object, ...]:
    return stage.checkpoint, "-o", folder / "b", "--json", folder / "r.json", "--no-engine", "-q"


def _int8(stage: Stage, folder: Path) -> tuple[object, ...]:
    more = (
        "--int8",
        "--int8-all",
        "--no-guard",
        "--calib",
        calibration_images(stage),
        "--guard-images",
        2,
        "--target",
        "cpu",
    )
    cache = ("--calibration-method", "minmax", "--calibration-cache", folder / "cache")
    return (*_export(stage, folder), *more, *cache)


def _finetune(stage: Stage, folder: Path) -> tuple[object, ...]:
    ground = stage.ground
    data = (stage.checkpoint, "--annotations", ground.annotations, "--images", ground.images, "-o", folder / "n.pth")
    length = ("--steps", 2, "--batch-size", 2, "--workers", 0, "--save-every", 1, "--validation-fraction", 0, "-q")
    return *data, *length, "--json", folder / "r.json"


def _pictures(stage: Stage, folder: Path) -> tuple[object, ...]:
    few = stage.ground.paths[:3]
    return stage.ground.run_words(
        *few, "-o", folder / "out", "--json", folder / "r.json", "--jsonl", folder / "r.jsonl"
    )


def _video(stage: Stage, folder: Path) -> tuple[object, ...]:
    return stage.ground.run_words(film(stage), "-o", folder / "out", "--json", folder / "r.json")


def _eval(stage: Stage, folder: Path) -> tuple[object, ...]:
    return stage.ground.eval_words(stage.ground.annotations, folder / "r.json", "-q")


def _bench(stage: Stage, folder: Path) -> tuple[object, ...]:
    little = ("--duration", 0.1, "--warm-up", 0, "--processes", 1, "--threads", 1, "--size", "64x64", "-q")
    return stage.bundle, *little, "--instances", "found", "--json", folder / "r.json", "--html", folder / "r.html"


WRITERS = (
    Writer("export", "yolact-export", _export, 30),
    Writer("export --int8", "yolact-export", _int8, 2, is_quick=False),
    Writer("finetune", "yolact-finetune", _finetune, 4, is_quick=False),
    Writer("run on pictures", "yolact-run", _pictures, 30),
    Writer("run on a video", "yolact-run", _video, 20),
    Writer("eval", "yolact-eval", _eval, 20),
    Writer("bench", "yolact-bench", _bench, 1, is_quick=False),
)
