"""Runs with an early end: one bad input among good ones, signals, a full disk."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from yolact_benchmarks.studies.bad_inputs.case import Answer, Case, Ending, num_instances, read_results
from yolact_benchmarks.studies.bad_inputs.ground import Ground
from yolact_plugins.files import counted

__all__ = ["ending_cases", "film_of", "neighbour_cases"]

_FRAMES = 400


def neighbour_cases(ground: Ground) -> Iterator[Case]:
    """Yield tries with two good images and a bad entry in one folder, which comes first, between them, or last."""
    for place in ("a", "m", "z"):
        for name, make in _NEIGHBOURS.items():
            folder = ground.new_folder()
            (folder / "in").mkdir()
            good = ["c.png", "x.png"]
            for source, target in zip(ground.paths, good, strict=False):
                shutil.copy(source, folder / "in" / target)
            make(folder / "in" / f"{place}.png", ground.paths[0])
            result = folder / "result.json"

            def keeps_others(_: Answer, result: Path = result, good: list[str] = good) -> bool:
                return num_instances(read_results(result), good) is not None

            words = ground.run_words(folder / "in", "--json", result)
            yield Case(
                "one bad file among good ones",
                f"{place}.png: {name}",
                "yolact-run",
                words,
                lambda _: False,
                keeps_others,
            )


def _sparse(path: Path, picture: Path) -> None:
    shutil.copy(picture, path)
    os.truncate(path, 40 << 30)


def _loop_of_links(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


_NEIGHBOURS: dict[str, Callable[[Path, Path], object]] = {
    "a loop of links": _loop_of_links,
    "a link to nothing": lambda path, _: path.symlink_to("nowhere.png"),
    "a FIFO": lambda path, _: os.mkfifo(path),
    "a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a sparse file of 40 GB": _sparse,
    "an empty file": lambda path, _: path.touch(),
    "text": lambda path, _: path.write_text("no picture"),
    "half a picture": lambda path, picture: path.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2]),
    "a folder": lambda path, _: path.mkdir(),
    "a claim of 60,000 x 60,000 pixels": lambda path, picture: path.write_bytes(
        picture.read_bytes()[:16] + (60000).to_bytes(4, "big") * 2 + picture.read_bytes()[24:]
    ),
}


def ending_cases(ground: Ground) -> Iterator[Case]:
    """Yield tries with a video whose run is ended by a signal early, midway or late, and with disks that fill up."""
    video = film_of(ground, _FRAMES)
    for number in (signal.SIGINT, signal.SIGTERM):
        for num_lines in (1, 7, 60, 150, 290):
            folder = ground.new_folder()
            lines, result = folder / "r.jsonl", folder / "r.json"
            words = ground.run_words(video, "--jsonl", lines, "--json", result, "-o", folder / "out")
            name = f"{number.name} after {counted(num_lines, 'frame')}"
            kept = _keeps_what_was_done(result, folder / "out", num_lines)
            yield Case(
                "a run ended by a signal",
                name,
                "yolact-run",
                words,
                lambda _: False,
                kept,
                Ending(number, lines, num_lines),
            )
    for size in (3_000, 8_000, 20_000, 60_000):
        folder = ground.new_folder()
        words = ground.run_words(*ground.paths, video, "--json", folder / "r.json", "-o", folder / "out")
        yield Case(
            "a full disk",
            f"files of at most {size} B",
            "yolact-run",
            words,
            _has_whole_files(folder),
            _has_no_torn_files(folder),
            largest_file_bytes=size,
        )


def film_of(ground: Ground, num_frames: int) -> Path:
    """Write a video of all scenes, over and over, and return its path."""
    from yolact_runtime.media.images import read_image
    from yolact_runtime.media.video_writer import VideoWriter

    path = ground.new_folder() / "film.mp4"
    pictures = [read_image(path) for path in ground.paths]
    with VideoWriter(path, 25) as writer:
        for number in range(num_frames):
            writer.write(pictures[number // 10 % len(pictures)])
    (written,) = path.parent.iterdir()
    return written


def _num_frames(path: Path) -> int:
    from yolact_runtime.media.videos import VideoReader

    with VideoReader(path) as reader:
        return sum(1 for _ in reader)


def _keeps_what_was_done(result: Path, output: Path, least: int) -> Callable[[Answer], bool]:
    def keeps(_: Answer) -> bool:
        document = read_results(result)
        if document is None or document["complete"] or len(document["images"]) < least:
            return False
        films = list(output.iterdir())
        if not films:
            # The signal arrived between the result of the first frame and its image.
            return least == 1
        return len(films) == 1 and "incomplete" in films[0].name and _num_frames(films[0]) >= least - 1

    return keeps


def _has_whole_files(folder: Path) -> Callable[[Answer], bool]:
    return lambda answer: read_results(folder / "r.json") is not None and _has_no_torn_files(folder)(answer)


def _has_no_torn_files(folder: Path) -> Callable[[Answer], bool]:
    def holds(_: Answer) -> bool:
        from yolact_runtime.errors import MediaError
        from yolact_runtime.media.images import read_image

        try:
            for path in (folder / "out").iterdir() if (folder / "out").exists() else ():
                if path.suffix in {".mp4", ".webm"}:
                    _num_frames(path)
                else:
                    read_image(path)
        except MediaError:
            return False
        return not (folder / "r.json").exists() or read_results(folder / "r.json") is not None

    return holds
