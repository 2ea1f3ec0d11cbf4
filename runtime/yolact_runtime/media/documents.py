"""Results as one JSON document, written incrementally and renamed to its final name when complete."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from yolact_plugins.file_errors import explain
from yolact_plugins.files import real_path
from yolact_plugins.staging import StagedFile
from yolact_runtime.errors import MediaError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.media.result_lines import instance_entries

__all__ = ["ResultDocument", "image_document"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MAX_TAKEN_BACK = 1000
"""Number of results that can be removed on a full disk, to make room for the end of the document."""


def image_document(file: str, instances: Instances, class_names: Sequence[str]) -> dict[str, Any]:
    """Create the JSON object of one image.

    Args:
        file: File name to record.
        instances: Instances of the image.
        class_names: Names of the classes, by class id.

    Returns:
        The object ``{"file", "height", "width", "instances"}``, with
        :func:`yolact_runtime.media.result_lines.instance_entries`.
    """
    entries = instance_entries(instances, class_names)
    return {"file": file, "height": instances.height, "width": instances.width, "instances": entries}


class ResultDocument:
    """A document ``{"model", "images": [...], ..., "complete"}`` that is written as results arrive, in constant memory.

    Until :meth:`finish` a file has a temporary name beside its final one, where an earlier file stays meanwhile.
    Stdout, pipes and devices are written directly. Not thread-safe.

    Args:
        destination: Path of the document, or ``-`` for stdout. A link is followed, and stays.
        model: Model name to record.

    Attributes:
        name: Name of the destination in messages.

    Raises:
        MediaError: The file cannot be created.
    """

    def __init__(self, destination: str, model: str) -> None:
        self.name = "stdout" if destination == "-" else destination
        self._path: Path | None = None
        self._staged: StagedFile | None = None
        self._file: IO[bytes] | None = None
        self._end = 0
        self._num_entries = 0
        self._starts: deque[int] = deque(maxlen=_MAX_TAKEN_BACK)
        if destination != "-":
            try:
                self._open(Path(destination))
            except OSError as error:
                raise MediaError(f"cannot write {destination}: {explain(error, Path(destination))}") from error
        try:
            self._append(f'{{"model":{json.dumps(model)},"images":[')
        except BaseException:
            self.discard()
            raise

    def add(self, entry: dict[str, Any]) -> None:
        """Append one object to ``images``; if the destination is a file, completely or not at all.

        Raises:
            MediaError: The object cannot be written.
            BrokenPipeError: The reader of the document has closed the pipe.
            ValueError: A number in the object is not finite.
        """
        start = self._end
        self._append(("," if self._num_entries else "") + _dumps(entry))
        self._num_entries += 1
        self._starts.append(start)

    def finish(self, tail: dict[str, Any]) -> int:
        """End the document with the members of `tail`, and rename the file to its final name.

        On a full disk results are removed from the end until the document fits: ``complete`` is then false,
        ``stopped_by`` states the reason, and ``results_left_out`` their number; names in ``not_done`` are removed
        first.

        Args:
            tail: Members to append, at least ``complete``.

        Returns:
            Number of removed results.

        Raises:
            MediaError: The document cannot be written; nothing is left of it, and an earlier file stays.
            BrokenPipeError: The reader of the document has closed the pipe.
        """
        left_out = 0
        try:
            while True:
                try:
                    self._seal("]," + _dumps(tail)[1:] + "\n")
                except OSError as error:
                    if self._path is None or error.errno not in _FULL or not self._make_room(tail, error):
                        raise
                    left_out = tail.get("results_left_out", 0)
                else:
                    return left_out
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self.discard()

    @property
    def is_file(self) -> bool:
        """Whether the destination is a file on a disk, not a pipe, device or stdout."""
        return self._path is not None

    def discard(self) -> None:
        """Remove the file unless :meth:`finish` has renamed it. May be called again."""
        if self._staged is not None:
            self._staged.discard()
        elif self._file is not None:
            self._file.close()

    def _open(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            self._file = path.open("wb", buffering=0)
            return
        self._path = real_path(path)
        self._staged = StagedFile(self._path)
        self._file = self._staged.file

    def _append(self, text: str) -> None:
        try:
            self._write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failure(error) from error

    def _write(self, text: str) -> None:
        """Append text; if the destination is a file, completely or not at all."""
        if self._file is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        content = text.encode("ascii")
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self._file.fileno(), rest) :]
        except BaseException:
            self._cut(self._end)
            raise
        self._end += len(content)

    def _cut(self, length: int) -> None:
        if self._path is not None and self._file is not None:
            self._file.seek(length)
            self._file.truncate()
            self._end = length

    def _seal(self, end: str) -> None:
        before = self._end
        self._write(end)
        if self._staged is None:
            return
        try:
            self._staged.commit()
        except OSError:
            if self._staged.is_open:
                self._cut(before)
            raise

    def _make_room(self, tail: dict[str, Any], error: OSError) -> bool:
        """Shorten the document on a full disk; return False if nothing more can be removed."""
        if self._staged is None or not self._staged.is_open:
            return False
        tail["complete"] = False
        tail.setdefault("stopped_by", f"cannot write {self.name}: {error.strerror}")
        if tail.get("not_done", {}).get("inputs"):
            tail["not_done"]["inputs"] = []
            return True
        if not self._starts:
            return False
        self._cut(self._starts.pop())
        tail["results_left_out"] = tail.get("results_left_out", 0) + 1
        return True

    def _failure(self, error: OSError) -> MediaError:
        reason = explain(error, Path(self.name)) if self.is_file else error.strerror or error
        return MediaError(f"cannot write {self.name}: {reason}")


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
