"""Where the results of a run go as they are made: a JSON document, JSON Lines, or both."""

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
"""Whoever reads a pipe may have stopped reading, and a service has ten seconds to end."""


@dataclass(frozen=True)
class FrameResult:
    """What was found in one picture or frame.

    Attributes:
        source: Name of the file.
        instances: What is to be recorded.
        frame: Position in a video, counted from 0; None for a picture.
        time_s: When a video shows it, in seconds; None for a picture.
    """

    source: str
    instances: Instances
    frame: int | None = None
    time_s: float | None = None


@dataclass(frozen=True)
class RunEnd:
    """How a run ended.

    Attributes:
        stopped_by: The signal or the error that ended it; None where every input was tried.
        not_done: Names of inputs that were not reached, or not finished.
    """

    stopped_by: str | None = None
    not_done: tuple[str, ...] = ()


class ResultSink(Protocol):
    """One place that results go to.

    Every method raises MediaError where it cannot be written, and BrokenPipeError where whoever read it went away.

    Attributes:
        name: What messages call the place.
        patience_s: How long a signal may wait for a method; None is as long as it takes.
    """

    @property
    def name(self) -> str: ...

    @property
    def patience_s(self) -> float | None: ...

    def add(self, result: FrameResult) -> None:
        """Take one result."""

    def fail(self, source: str, reason: str) -> None:
        """Take the failure of an input."""

    def end(self, end: RunEnd) -> str | None:
        """Complete what is there. Returns what has to be said about it, if anything."""

    def abandon(self) -> None:
        """Leave nothing behind that has no name. May be called at any time."""


class DocumentSink:
    """``--json``."""

    def __init__(self, destination: str, model: str, class_names: Sequence[str], signature: Mapping[str, str]) -> None:
        self._signature = signature
        self._document = ResultDocument(destination, model)
        self._class_names = class_names
        self._failures: list[dict[str, str]] = []
        self.name = self._document.name
        self.patience_s = None if self._document.is_file else _PIPE_PATIENCE_S

    def add(self, result: FrameResult) -> None:
        """Append it to ``images``."""
        entry = image_document(result.source, result.instances, self._class_names)
        if result.frame is not None:
            entry["frame"] = result.frame
        self._document.add(entry)

    def fail(self, source: str, reason: str) -> None:
        """Remember it for ``failed``."""
        self._failures.append({"file": source, "error": reason})

    def end(self, end: RunEnd) -> str | None:
        """Write what is known of the model's signature, ``failed``, and how the run ended."""
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
        """Remove a document that is not complete."""
        self._document.discard()


class LineSink:
    """``--jsonl``."""

    def __init__(self, destination: str, class_names: Sequence[str]) -> None:
        self._writer = ResultLineWriter(destination)
        self._class_names = class_names
        self.name = self._writer.name
        self.patience_s = None if self._writer.is_file else _PIPE_PATIENCE_S

    def add(self, result: FrameResult) -> None:
        """Write its line."""
        names = self._class_names
        self._writer.write(
            result_line(result.source, result.instances, names, frame=result.frame, time_s=result.time_s)
        )

    def fail(self, source: str, reason: str) -> None:
        """Write a line without a result."""
        self._writer.write(result_line(source, error=reason))

    def end(self, end: RunEnd) -> None:
        """Write a line about the run where it was stopped."""
        with self._writer:
            if end.stopped_by is not None:
                first = f", {end.not_done[0]} first" if end.not_done else ""
                reason = f"stopped by {end.stopped_by}: {counted(len(end.not_done), 'input')} not done{first}"
                self._writer.write(result_line(None, error=reason))

    def abandon(self) -> None:
        """Close the file; every line in it is whole."""
        self._writer.close()


def open_sinks(
    options: argparse.Namespace, class_names: Sequence[str], signature: Mapping[str, str]
) -> list[ResultSink]:
    """The sinks that ``--json`` and ``--jsonl`` ask for, and the folder of ``-o``, in which they may be.

    Args:
        options: Of the command.
        class_names: Of the model; none where it was not opened.
        signature: What a document says of the model's; nothing where it was not opened.

    Raises:
        MediaError: One of them cannot be opened or made.
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
    # Files first: they are never kept waiting by a pipe.
    return sorted(sinks, key=lambda sink: sink.patience_s is not None)
