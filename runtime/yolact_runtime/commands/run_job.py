"""One run of ``yolact-run``: its inputs, processed one after the other, and its end, whatever the cause."""

from __future__ import annotations

import argparse
import logging
import shlex
import stat
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_plugins.files import counted, human_size, real_path
from yolact_runtime.commands.overlay_options import OverlayPainter
from yolact_runtime.commands.picture_folder import PictureFolder
from yolact_runtime.commands.result_sinks import FrameResult, ResultSink, RunEnd, open_sinks
from yolact_runtime.errors import MediaError, YolactError
from yolact_runtime.media.image_reader import reader_for_model
from yolact_runtime.stop_signals import hold_stop, name_of_stop
from yolact_runtime.terminal import Terminal, show_results

if TYPE_CHECKING:
    from yolact_runtime.masks.instances import Instances
    from yolact_runtime.media.image_reader import ImageReader
    from yolact_runtime.media.inputs import Inputs
    from yolact_runtime.media.video_writer import VideoWriter
    from yolact_runtime.media.videos import VideoFrame, VideoReader
    from yolact_runtime.segmenter import Segmenter

__all__ = ["RunJob"]

_log = logging.getLogger(__name__)


class RunJob:
    """One run of the command: what is done and what is not, and where the results go.

    A failure of an input is recorded, and the others are processed. If the run ends early, the finished results are
    written and marked as incomplete. Call :meth:`run`, then :meth:`finish`, or :meth:`stop` with the exception.

    Args:
        options: Options of the command line.
        terminal: Terminal for messages.
    """

    def __init__(self, options: argparse.Namespace, terminal: Terminal) -> None:
        self._options = options
        self._painter = OverlayPainter(options)
        self._terminal = terminal
        self._segmenter: Segmenter
        self._reader: ImageReader
        self._class_names: tuple[str, ...] = ()
        self._signature: Mapping[str, str] = {}
        self._pictures: PictureFolder | None = None
        self._sinks: list[ResultSink] | None = None
        self._not_done: deque[str] = deque(options.inputs)
        self._failures: Counter[str] = Counter()
        self._num_done = 0
        self._ended = False

    def run(self, segmenter: Segmenter, inputs: Inputs, signature: Mapping[str, str]) -> None:
        """Process all inputs, images first.

        Args:
            segmenter: The open segmenter.
            inputs: Inputs to process.
            signature: Entry about the model's signature for the results.

        Raises:
            MediaError: Results can no longer be written.
            BrokenPipeError: The reader of the results has closed the pipe.
        """
        self._segmenter, self._signature = segmenter, signature
        self._class_names = segmenter.class_names
        self._reader = reader_for_model(self._options.bit_depth, segmenter.manifest, self._terminal.warn)
        files = inputs.images + inputs.videos
        self._not_done = deque(map(str, files))
        if self._options.output:
            self._pictures = PictureFolder(self._options.output, frozenset(map(real_path, files)))
        try:
            self._sinks = self._open_sinks()
            for word, reason in inputs.failures:
                self._fail(word, reason)
            for path in self._terminal.progress(inputs.images, "images", len(inputs.images)):
                self._attempt(path, self._run_image)
            for path in inputs.videos:
                self._attempt(path, self._run_video)
        except _ResultsLostError as lost:
            raise lost.reason from lost

    def finish(self) -> int:
        """Complete the results, report where they are, and return the exit status, after every input was tried.

        Raises:
            BrokenPipeError: The reader of the results has closed the pipe.
        """
        problems = self._end(RunEnd())
        if (
            self._num_done
            and not self._failures
            and not (self._options.json or self._options.jsonl or self._options.output)
        ):
            words = shlex.split(self._options.command_line)
            # Words after -- are inputs.
            end = words.index("--") if "--" in words else len(words)
            command = shlex.join([*words[:end], "-o", "out", *words[end:]])
            self._terminal.say(f"to see the masks: {command}")
        for problem in problems:
            if isinstance(problem, BrokenPipeError):
                raise problem
            self._terminal.error(str(problem))
        if self._failures:
            self._terminal.error(f"{counted(len(self._failures), 'input')} failed, {self._num_done} done")
        return 1 if self._failures or problems else 0

    def stop(self, error: BaseException) -> None:
        """Complete the results of an interrupted run, and mark them as such. May be called at any time."""
        if self._ended:
            return
        begun = self._sinks is not None
        end = RunEnd(name_of_stop(error) or str(error) or type(error).__name__, tuple(self._not_done))
        problems = self._end(end)
        if isinstance(error, BrokenPipeError):
            return
        if begun:
            self._terminal.warn(
                f"stopped before the end: {counted(self._num_done, 'input')} done, {len(self._failures)} failed, "
                f"{len(end.not_done)} not done"
            )
        for problem in problems:
            if not isinstance(problem, BrokenPipeError) and str(problem) != str(error):
                self._terminal.error(str(problem))

    def abandon(self) -> None:
        """Remove incomplete files after a second signal."""
        for sink in self._sinks or ():
            sink.abandon()

    def _open_sinks(self) -> list[ResultSink]:
        return open_sinks(self._options, self._class_names, self._signature)

    def _end(self, end: RunEnd) -> list[Exception]:
        """Complete all results and report where they are; return the errors."""
        problems: list[Exception] = []
        written: list[str] = []
        try:
            sinks = self._open_sinks() if self._sinks is None else self._sinks
        except MediaError as error:
            sinks = []
            problems.append(error)
        self._ended = True
        for sink in sinks:
            try:
                # A first Ctrl-C waits until the file is complete; a second one ends this, and leaves nothing torn.
                with hold_stop(sink.patience_s):
                    remark = sink.end(end)
            except (MediaError, BrokenPipeError) as error:
                problems.append(error)
                continue
            if remark is not None:
                problems.append(MediaError(remark))
            written += [sink.name] if sink.name != "stdout" else []
        for name in written:
            size = _sizes([Path(name)])
            self._terminal.say(f"wrote {name} ({human_size(size[0])})" if size else f"wrote {name}")
        if self._pictures is not None and self._pictures.written:
            problems += self._say_pictures(self._pictures)
        return problems

    def _say_pictures(self, pictures: PictureFolder) -> list[Exception]:
        """Report the content of the folder of pictures, and return an error for each picture that is missing."""
        sizes = _sizes(pictures.written)
        there = f"{counted(len(sizes), 'file')} to {pictures.folder} ({human_size(sum(sizes))})"
        self._terminal.say(f"wrote {there}")
        gone = len(pictures.written) - len(sizes)
        if not gone:
            return []
        what = "1 file that was" if gone == 1 else f"{gone} files that were"
        return [MediaError(f"{what} written to {pictures.folder} cannot be found there any more")]

    def _attempt(self, path: Path, do: Callable[[Path], None]) -> None:
        """Process one input; an exception is recorded as its failure."""
        try:
            do(path)
        except _ResultsLostError:
            raise
        except Exception as error:
            if not isinstance(error, YolactError):
                _log.info("%s", path, exc_info=error)
            self._fail(str(path), _reason(error), named=isinstance(error, MediaError))
        else:
            self._num_done += str(path) not in self._failures
        self._not_done.popleft()

    def _fail(self, name: str, reason: str, named: bool = False) -> None:
        """Report an input that failed; `named` means that the reason contains the name."""
        self._failures[name] += 1
        self._terminal.error(reason if named else f"{name}: {reason}")
        self._give(lambda sink: sink.fail(name, reason))

    def _run_image(self, path: Path) -> None:
        from yolact_runtime.media.images import write_image

        frame = self._reader.read(path)
        destination = self._pictures.picture_of(path) if self._pictures else None
        instances = self._record(str(path), self._segmenter(frame))
        self._report(f"{path}: {_summary(self._class_names[i] for i in instances.class_id)}")
        if self._pictures and destination:
            write_image(destination, self._painter.paint(frame, instances, self._class_names))
            self._pictures.written.append(destination)

    def _run_video(self, path: Path) -> None:
        from yolact_runtime.media.videos import VideoReader

        num_frames = num_found = 0
        with ExitStack() as stack:
            reader = stack.enter_context(VideoReader(path))
            writer = stack.enter_context(self._written_video(path, reader.fps))
            # Closed before the reader: the stream's thread must not decode from a closed video.
            results = stack.enter_context(closing(self._stream(reader)))
            shown = stack.enter_context(closing(self._terminal.progress(results, path.name, reader.num_frames)))
            for frame, found in shown:
                instances = self._record(str(path), found, frame.number, frame.time_s)
                num_frames += 1
                num_found += len(instances)
                if writer:
                    writer.write(self._painter.paint(frame.image, instances, self._class_names, str(path)))
        self._report(f"{path}: {counted(num_frames, 'frame')}, {counted(num_found, 'instance')} in all")
        if reader.faults:
            self._fail(str(path), "; ".join(reader.faults))

    @contextmanager
    def _written_video(self, path: Path, fps: float) -> Iterator[VideoWriter | None]:
        """Open the writer of a video with masks, if pictures are wanted; frames so far are kept, whatever happens."""
        if self._pictures is None:
            yield None
            return
        from yolact_runtime.media.video_writer import VideoWriter, video_suffix

        destination = self._pictures.video_of(path, video_suffix())
        writer = VideoWriter(destination, fps)
        try:
            with writer:
                yield writer
        finally:
            if writer.written:
                self._pictures.written.append(writer.written)
                if writer.written != destination:
                    self._terminal.say(f"the finished part of {path} is in {writer.written} (it plays)")

    def _stream(self, reader: VideoReader) -> Generator[tuple[VideoFrame, Instances], None, None]:
        """Yield frames with their instances; the next frame is decoded and started meanwhile."""
        under_way: deque[VideoFrame] = deque()

        def source() -> Iterator[Any]:
            for frame in reader:
                under_way.append(frame)
                yield frame.image

        with self._segmenter.stream(source()) as results:
            for instances in results:
                yield under_way.popleft(), instances

    def _record(self, name: str, found: Instances, frame: int | None = None, time_s: float | None = None) -> Instances:
        """Write one result to all destinations; return the instances that were requested."""
        instances = found[: self._options.top_k]
        result = FrameResult(name, instances, frame, time_s)
        self._give(lambda sink: sink.add(result))
        return instances

    def _report(self, line: str) -> None:
        """Write a readable result to stdout, or to stderr if JSON was requested."""
        if self._options.json or self._options.jsonl:
            self._terminal.say(line)
            return
        with _results_go_out():
            show_results([line])

    def _give(self, hand: Callable[[ResultSink], None]) -> None:
        sinks = self._sinks or ()
        patience_s = [sink.patience_s for sink in sinks if sink.patience_s is not None]
        # All destinations get a result, or none: a signal between them would leave two files that disagree.
        with _results_go_out(), hold_stop(min(patience_s, default=None)):
            for sink in sinks:
                hand(sink)


class _ResultsLostError(Exception):
    """Results cannot be written, which is not a failure of their input."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def _results_go_out() -> Iterator[None]:
    try:
        yield
    except (MediaError, OSError) as error:
        raise _ResultsLostError(error) from error


def _reason(error: Exception) -> str:
    """Return an error's text for the user whose input it concerns."""
    if isinstance(error, YolactError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory{f' ({error})' if str(error) else ''}; try a smaller one, or a machine with more"
    if isinstance(error, OSError | UnicodeError):
        return str(error)
    if type(error).__module__ == "cv2":
        return f"OpenCV: {getattr(error, 'err', None) or error}"
    return (
        f"unexpected {type(error).__name__}: {error}. This is a fault of the program, please report it; -v shows where "
        f"it is"
    )


def _sizes(paths: Iterable[Path]) -> list[int]:
    """Return the sizes in bytes of the paths that are existing files."""
    sizes = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            sizes.append(status.st_size)
    return sizes


def _summary(names: Iterable[str]) -> str:
    counts = Counter(names)
    if not counts:
        return "nothing found"
    return f"{counted(counts.total(), 'instance')}: " + ", ".join(
        f"{count} x {name}" for name, count in counts.most_common()
    )
