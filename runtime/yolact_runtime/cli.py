"""``yolact-run``: images and videos in, overlays and JSON out."""

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
from yolact_runtime.cpu.nms import NmsMethod
from yolact_runtime.errors import BackendError, FrameError, MediaError, UsageError
from yolact_runtime.terminal import Terminal, add_common_options, check_json_destination, run_command, write_json

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_command(_parser(), _run, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="yolact-run",
        description="Find instances in images and videos with an exported YOLACT model.",
        epilog="Exit status: 0 all inputs done; 1 something failed (the rest was done); 2 usage; 8 the self-test "
        "failed or cannot be run, nothing was done; 130 interrupted.",
    )
    parser.add_argument(
        "model", type=Path, help="bundle folder, .onnx file or .plan in its bundle, written by yolact-export"
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image, video, folder or glob")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT_DIR", help="write pictures with masks here")
    parser.add_argument(
        "--json", metavar="PATH|-", help="write results as JSON (masks as COCO RLE) to a file or stdout"
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.3,
        help="second score threshold: leave out instances at or below it (default 0.3; published 0)",
    )
    parser.add_argument(
        "--nms",
        choices=[method.value for method in NmsMethod],
        default=NmsMethod.FAST.value,
        help="fast: published default; cross-class: one object, one class; traditional: greedy (default fast)",
    )
    parser.add_argument("--top-k", type=int, metavar="N", help="keep the N best instances of each image")
    more = parser.add_argument_group("beyond the published behaviour")
    more.add_argument(
        "--crop-margin", type=float, default=0.0, metavar="F", help="widen the mask crop by this fraction of the box"
    )
    more.add_argument("--no-mask-rescoring", action="store_true", help="YOLACT++: skip the mask-IoU network")
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--backend",
        default="auto",
        help="auto, tensorrt, tensorrt-rtx, onnxruntime-cuda or onnxruntime-cpu (default auto)",
    )
    machine.add_argument(
        "--precision",
        metavar="NAME",
        help="which network of a bundle: fp32, fp16, int8, int8-cpu (default: what the backend runs best)",
    )
    machine.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; 0 lets the backend choose")
    machine.add_argument(
        "--self-test",
        action="store_true",
        help="first compare what the model makes here of its bundle's golden frame with what it made at export; "
        "without INPUT do only that",
    )
    add_common_options(parser)
    return parser


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    from yolact_runtime.media.inputs import find_inputs
    from yolact_runtime.segmenter_options import SegmenterOptions
    from yolact_runtime.self_test_command import check_model, open_model, show_result

    check_json_destination(options.json)
    if options.top_k is not None and options.top_k < 1:
        raise UsageError(f"--top-k must be 1 or more, found {options.top_k}")
    if options.output and options.output.exists() and not options.output.is_dir():
        raise UsageError(f"-o wants a folder for the pictures: {options.output} is not a folder")
    segmenter_options = SegmenterOptions(
        nms=NmsMethod(options.nms),
        min_confidence=options.score,
        crop_margin=options.crop_margin,
        mask_rescoring=not options.no_mask_rescoring,
        num_threads=options.threads,
    )
    if not options.inputs and not options.self_test:
        raise UsageError("name an INPUT: an image, a video, a folder or a glob; or --self-test")
    inputs = find_inputs(options.inputs)
    with open_model(options, segmenter_options) as segmenter:
        terminal.say(f"{segmenter.manifest.name} ({segmenter.manifest.precision}) on {segmenter.backend_name}")
        if options.self_test:
            tested = check_model(segmenter, options)
            if not options.inputs:
                show_result(tested, options)
                return 0
            terminal.say(str(tested))
        job = _Job(options, terminal, segmenter, frozenset(path.resolve() for path in inputs.images + inputs.videos))
        try:
            for word, reason in inputs.failures:
                job.fail(word, reason)
            for path in terminal.progress(inputs.images, "images", len(inputs.images)):
                job.run_image(path)
            for path in inputs.videos:
                job.run_video(path)
        except KeyboardInterrupt:
            # What is done is kept; the command still ends as an interrupted one.
            job.finish()
            raise
    return job.finish()


class _Job:
    """One run of the command: results so far, and where they go."""

    def __init__(
        self, options: argparse.Namespace, terminal: Terminal, segmenter: Any, inputs: frozenset[Path]
    ) -> None:
        self._options = options
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
        from yolact_runtime.media.media import read_image, write_image

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
        from yolact_runtime.media.media import VideoReader, VideoWriter

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
        from yolact_runtime.media.overlay import draw_instances

        return draw_instances(frame, instances, names)

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


if __name__ == "__main__":
    sys.exit(main())
