"""Results as JSON Lines, one line per frame, for streaming. The schema is in docs/run.md."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from yolact_plugins.file_errors import explain
from yolact_runtime.errors import MediaError
from yolact_runtime.masks.instances import Instances

__all__ = ["SCHEMA", "ResultLineWriter", "instance_entries", "result_line"]

SCHEMA = "yolact-results/1"
"""Schema version in every line. It increases when a field is removed or changes its meaning, not when one is added."""


def instance_entries(instances: Instances, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Create the JSON objects of instances, in their order.

    Args:
        instances: Instances of one frame; not modified.
        class_names: Names of the classes, by class id.

    Returns:
        A list of ``{"class_id", "class_name", "confidence", "mask_confidence"?, "xyxy", "mask": {"size", "counts"}}``;
        boxes in pixels to a hundredth, confidences to six decimals, masks as COCO RLE. Numbers and text are Python
        objects.
    """
    entries = []
    for i, rle in enumerate(instances.mask.rle()):
        class_id = int(instances.class_id[i])
        entry: dict[str, Any] = {
            "class_id": class_id,
            "class_name": class_names[class_id],
            "confidence": round(float(instances.confidence[i]), 6),
        }
        if instances.mask_confidence is not None:
            entry["mask_confidence"] = round(float(instances.mask_confidence[i]), 6)
        entry["xyxy"] = [round(float(value), 2) for value in instances.xyxy[i]]
        entry["mask"] = rle
        entries.append(entry)
    return entries


def result_line(
    source: str | None,
    instances: Instances | None = None,
    class_names: Sequence[str] = (),
    *,
    frame: int | None = None,
    time_s: float | None = None,
    dropped: int = 0,
    error: str | None = None,
) -> dict[str, Any]:
    """Create the JSON object of one line.

    Args:
        source: Name of the file or camera; None in a line about the whole run.
        instances: Instances of the frame; None creates an empty list.
        class_names: Names of the classes, by class id.
        frame: Position in the stream, counted from 0; None for a picture, or without a frame.
        time_s: Presentation time of the frame in seconds from the start of the stream; None if there is none.
        dropped: Number of frames of this source that were skipped since its previous line.
        error: Reason why there is no result.

    Returns:
        The object ``{"schema", "source", "frame", "time_s", "instances", "dropped", "error"}``.
    """
    return {
        "schema": SCHEMA,
        "source": source,
        "frame": frame,
        "time_s": None if time_s is None else round(time_s, 6),
        "instances": [] if instances is None else instance_entries(instances, class_names),
        "dropped": dropped,
        "error": error,
    }


class ResultLineWriter:
    """A writer of lines to a file, a pipe or stdout that flushes each line at once.

    A context manager. It holds nothing but the open file, so a stream may continue for days. Not thread-safe.

    Args:
        destination: Path of the file, which is replaced, or ``-`` for stdout.

    Attributes:
        name: Name of the destination in messages.
        is_file: Whether the destination is a file on a disk, not a pipe, device or stdout.

    Raises:
        MediaError: The file cannot be opened.
    """

    def __init__(self, destination: str) -> None:
        self.name = "stdout" if destination == "-" else destination
        self._file: BinaryIO | None = None
        if destination != "-":
            try:
                # Without a buffer, so that a written line is with the operating system.
                self._file = Path(destination).open("wb", buffering=0)  # noqa: SIM115 - closed by close()
            except OSError as error:
                raise MediaError(f"cannot write {destination}: {explain(error, Path(destination))}") from error
        self.is_file = self._file is not None and Path(destination).is_file()

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line, in ASCII, and flush it.

        On a full disk an incomplete line is removed again, so that every line of a file is complete. Only a process
        that is killed while writing leaves a torn last line.

        Raises:
            MediaError: The line cannot be written.
            BrokenPipeError: The reader of the lines has closed the pipe.
            ValueError: A number in the line is not finite.
        """
        text = json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n"
        try:
            if self._file is None:
                sys.stdout.write(text)
                sys.stdout.flush()
            else:
                self._append(self._file, text.encode("ascii"))
        except BrokenPipeError:
            raise
        except OSError as error:
            reason = explain(error, Path(self.name)) if self.is_file else error.strerror or error
            raise MediaError(f"cannot write {self.name}: {reason}") from error

    def close(self) -> None:
        """Close the file; stdout stays open. May be called again."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> ResultLineWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, file: BinaryIO, content: bytes) -> None:
        start = file.tell() if self.is_file else None
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
        except BaseException:
            if start is not None:
                file.seek(start)
                file.truncate()
            raise
