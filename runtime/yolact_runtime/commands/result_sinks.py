"""Destinations of a run's results as they are made: a JSON document, JSON Lines, or both."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from yolact_plugins.file_errors import explain
from yolact_plugins.files import counted
from yolact_runtime.errors import MediaError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.media.documents import ResultDocument, image_document
from yolact_runtime.media.result_lines import ResultLineWriter, result_line

__all__ = ["DocumentSink", "FrameResult", "LineSink", "ResultSink", "RunEnd", "open_sinks"]

_PIPE_PATIENCE_S = 2.0
"""Time to wait in seconds: the reader of a pipe may have stopped reading, and a service has ten seconds to end."""


@dataclass(frozen=True)
class FrameResult:
    """The instances found in one picture or frame.

    Attributes:
        source: Name of the file.
        instances: Instances to record.
        frame: Position in a video, counted from 0; None for a picture.
        time_s: Presentation time of a video's frame in seconds; None for a picture.
    """

    source: str
    instances: Instances
    frame: int | None = None
    time_s: float | None = None


@dataclass(frozen=True)
class RunEnd:
    """The end of a run.

    Attributes:
        stopped_by: Signal or error that ended it; None if every input was tried.
        not_done: Names of inputs that were not reached, or not finished.
    """

    stopped_by: str | None = None
    not_done: tuple[str, ...] = ()


class ResultSink(Protocol):
    """A destination of results.

    Every method raises MediaError if it cannot be written, and BrokenPipeError if its reader has closed the pipe.

    Attributes:
        name: Name of the destination in messages.
        patience_s: Maximum time in seconds that a method may defer a signal; None means no limit.
    """

    @property
    def name(self) -> str: ...

    @property
    def patience_s(self) -> float | None: ...

    def add(self, result: FrameResult) -> None:
        """Add one result."""

    def fail(self, source: str, reason: str) -> None:
        """Add the failure of an input."""

    def end(self, end: RunEnd) -> str | None:
        """Complete the results. Return a sentence to show, if there is anything to say."""

    def abandon(self) -> None:
        """Remove files that do not have their final name. May be called at any time."""


class DocumentSink:
    """The JSON document of ``--json``."""

    def __init__(self, destination: str, model: str, class_names: Sequence[str], signature: Mapping[str, str]) -> None:
        self._signature = signature
        self._document = ResultDocument(destination, model)
        self._class_names = class_names
        self._failures: list[dict[str, str]] = []
        self.name = self._document.name
        self.patience_s = None if self._document.is_file else _PIPE_PATIENCE_S

    def add(self, result: FrameResult) -> None:
        """Append the result to ``images``."""
        entry = image_document(result.source, result.instances, self._class_names)
        if result.frame is not None:
            entry["frame"] = result.frame
        self._document.add(entry)

    def fail(self, source: str, reason: str) -> None:
        """Record the failure for ``failed``."""
        self._failures.append({"file": source, "error": reason})

    def end(self, end: RunEnd) -> str | None:
        """Write the state of the model's signature, ``failed``, and how the run ended."""
        tail: dict[str, object] = dict(self._signature)
        if self._failures:
            tail["failed"] = self._failures
        tail["complete"] = end.stopped_by is None
        if end.stopped_by is not None:
            tail["stopped_by"] = end.stopped_by
            tail["not_done"] = {"count": len(end.not_done), "inputs": list(end.not_done)}
        left_out = self._document.finish(tail)
        if not left_out:
            return None
        results = counted(left_out, "result")
        return f"{self._document.name} is incomplete: the disk is full, and {results} did not fit any more"

    def abandon(self) -> None:
        """Remove an incomplete document."""
        self._document.discard()


class LineSink:
    """The JSON Lines of ``--jsonl``."""

    def __init__(self, destination: str, class_names: Sequence[str]) -> None:
        self._writer = ResultLineWriter(destination)
        self._class_names = class_names
        self.name = self._writer.name
        self.patience_s = None if self._writer.is_file else _PIPE_PATIENCE_S

    def add(self, result: FrameResult) -> None:
        """Write the line of the result."""
        names = self._class_names
        self._writer.write(
            result_line(result.source, result.instances, names, frame=result.frame, time_s=result.time_s)
        )

    def fail(self, source: str, reason: str) -> None:
        """Write a line without a result."""
        self._writer.write(result_line(source, error=reason))

    def end(self, end: RunEnd) -> None:
        """Write a line about the run if it was stopped."""
        with self._writer:
            if end.stopped_by is not None:
                first = f", {end.not_done[0]} first" if end.not_done else ""
                reason = f"stopped by {end.stopped_by}: {counted(len(end.not_done), 'input')} not done{first}"
                self._writer.write(result_line(None, error=reason))

    def abandon(self) -> None:
        """Close the file, in which every line is complete."""
        self._writer.close()


def open_sinks(
    options: argparse.Namespace, class_names: Sequence[str], signature: Mapping[str, str]
) -> list[ResultSink]:
    """Open the destinations of ``--json`` and ``--jsonl``, and the folder of ``-o``, which may contain them.

    Args:
        options: Options of the command.
        class_names: Names of the model's classes; empty if it was not opened.
        signature: Entry about the model's signature; empty if it was not opened.

    Raises:
        MediaError: A destination cannot be opened or created.
    """
    if options.output:
        try:
            options.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"cannot make the folder {options.output}: {explain(error, options.output)}") from error
    sinks: list[ResultSink] = []
    try:
        if options.json:
            sinks.append(DocumentSink(options.json, str(options.model), class_names, signature))
        if options.jsonl:
            sinks.append(LineSink(options.jsonl, class_names))
    except BaseException:
        for sink in sinks:
            sink.abandon()
        raise
    # Files first, so that they never wait for a pipe.
    return sorted(sinks, key=lambda sink: sink.patience_s is not None)
