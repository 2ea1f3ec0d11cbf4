"""One run of ``yolact-run``: its inputs, done one after the other, and where the results go."""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from yolact_plugins.files import human_size
from yolact_runtime.commands.overlay_options import OverlayPainter
from yolact_runtime.errors import BackendError, FrameError, MediaError
from yolact_runtime.terminal import Terminal, write_json

__all__ = ["RunJob"]


class RunJob:
    """One run of the command: results so far, and where they go."""

    def __init__(
        self, options: argparse.Namespace, terminal: Terminal, segmenter: Any, inputs: frozenset[Path]
    ) -> None:
        self._options = options
        self._painter = OverlayPainter(options)
        self._terminal = terminal
        self._segmenter = segmenter
        self._inputs = inputs
        self._images: list[dict[str, Any]] = []
        self._num_done = 0
        self._found: Counter[str] = Counter()
        self._failures: list[dict[str, str]] = []
        self._taken: set[Path] = set()
        self._written: list[Path] = []

    def fail(self, name: str, reason: str, named: bool = False) -> None:
        """Report an input that could not be done, and go on; `named` says that the reason contains the name."""
        self._terminal.error(reason if named else f"{name}: {reason}")
        self._failures.append({"file": name, "error": reason})

    def run_image(self, path: Path) -> None:
        """One image; a failure is reported and remembered."""
        from yolact_runtime.media.images import read_image, write_image

        # Formats that can be read but are rarely wanted back become PNG.
        suffix = path.suffix.lower() if path.suffix.lower() in {".jpg", ".jpeg", ".png"} else ".png"
        try:
            frame = read_image(path)
            destination = self._destination(path, suffix)
            picture = self._record(str(path), frame, self._segmenter(frame))
            if destination:
                write_image(destination, picture)
                self._written.append(destination)
        except MediaError as error:
            self.fail(str(path), str(error), named=True)
        except (FrameError, BackendError) as error:
            self.fail(str(path), str(error))

    def run_video(self, path: Path) -> None:
        """All frames of one video; a failure is reported and remembered."""
        from yolact_runtime.media.videos import VideoReader, VideoWriter

        try:
            with ExitStack() as stack:
                reader = stack.enter_context(VideoReader(path))
                destination = self._destination(path, ".mp4")
                writer = stack.enter_context(VideoWriter(destination, reader.fps)) if destination else None
                num_frames = 0
                # Closed before the reader: the stream's thread must not decode from a video that is closed.
                results = stack.enter_context(closing(self._stream(reader)))
                for frame, instances in self._terminal.progress(results, path.name, reader.num_frames):
                    picture = self._record(str(path), frame, instances, num_frames)
                    num_frames += 1
                    if writer:
                        writer.write(picture)
            if destination:
                self._written.append(destination)
            self._report(f"{path}: {num_frames} frame(s), {self._found[str(path)]} instance(s) in all")
        except MediaError as error:
            self.fail(str(path), str(error), named=True)
        except (FrameError, BackendError) as error:
            self.fail(str(path), str(error))

    def finish(self) -> int:
        """Write the JSON document, say where everything is, and return the exit status."""
        options, terminal = self._options, self._terminal
        if options.json:
            document: dict[str, Any] = {"model": str(options.model), "images": self._images}
            if self._failures:
                document["failed"] = self._failures
            write_json(document, options.json)
            if options.json != "-":
                terminal.say(f"wrote {options.json} ({human_size(Path(options.json).stat().st_size)})")
        if self._written:
            size = human_size(sum(path.stat().st_size for path in self._written))
            terminal.say(f"wrote {len(self._written)} file(s) to {options.output} ({size})")
        elif self._num_done and not options.json:
            command = shlex.join(["yolact-run", str(options.model), *options.inputs, "-o", "out"])
            terminal.say(f"to see the masks: {command}")
        if self._failures:
            terminal.error(f"{len(self._failures)} input(s) failed, {self._num_done} done")
        return 1 if self._failures else 0

    def _stream(self, frames: Iterable[Any]) -> Generator[tuple[Any, Any], None, None]:
        """Frames with their instances; the next frame is decoded and begun meanwhile."""
        under_way: deque[Any] = deque()

        def source() -> Iterator[Any]:
            for frame in frames:
                under_way.append(frame)
                yield frame

        with closing(self._segmenter.stream(source())) as results:
            for instances in results:
                yield under_way.popleft(), instances

    def _record(self, name: str, frame: Any, instances: Any, index: int | None = None) -> Any:
        """Record and print the result of one frame, and return the overlay (if pictures are wanted)."""
        from yolact_runtime.media.documents import image_document

        instances = instances[: self._options.top_k]
        names = self._segmenter.class_names
        self._num_done += 1
        self._found[name] += len(instances)
        if self._options.json:
            document = image_document(name, instances, names)
            if index is not None:
                document["frame"] = index
            self._images.append(document)
        if index is None:
            self._report(f"{name}: {_summary(names[i] for i in instances.class_id)}")
        if not self._options.output:
            return frame
        return self._painter.paint(frame, instances, names, None if index is None else name)

    def _report(self, line: str) -> None:
        """A result for people: on stdout, unless JSON was asked for; then it is talk."""
        if self._options.json:
            self._terminal.say(line)
        else:
            sys.stdout.write(line + "\n")

    def _destination(self, path: Path, suffix: str) -> Path | None:
        """A free name in the output folder, if pictures are wanted; inputs of the same name get numbers.

        Raises:
            MediaError: The picture would overwrite an input.
        """
        folder: Path | None = self._options.output
        if folder is None:
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"cannot make the folder {folder} for pictures: {error.strerror or error}") from error
        for number in itertools.count(1):
            destination = folder / f"{path.stem}{'' if number == 1 else f'-{number}'}{suffix}"
            if destination not in self._taken:
                break
        self._taken.add(destination)
        there = destination.resolve()
        if there == path.resolve():
            raise MediaError(f"{path} would be overwritten by its own picture; choose another folder for -o")
        if there in self._inputs:
            raise MediaError(
                f"{destination} is an input, and the picture of {path} would overwrite it; choose another folder for -o"
            )
        return destination


def _summary(names: Iterable[str]) -> str:
    counts = Counter(names)
    if not counts:
        return "nothing found"
    return f"{counts.total()} instance(s): " + ", ".join(f"{count} x {name}" for name, count in counts.most_common())
