"""What decoders in C print to the error output of the process, caught while an image is decoded.

libjpeg and libpng report damage there and nowhere else; OpenCV then hands out an image that is gray from somewhere on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

__all__ = ["caught_messages"]

_STDERR = 2
_PIPE_BYTES = 65536
_DECODERS = (
    b"libpng",
    b"Corrupt JPEG",
    b"Premature end of JPEG",
    b"Invalid SOS",
    b"Unsupported marker",
    b"Unknown Adobe",
    b"[gif @",
)
# The error output belongs to the process: two threads must not exchange it at once.
_lock = threading.Lock()


@contextlib.contextmanager
def caught_messages() -> Iterator[list[str]]:
    """Catch what decoders print; the list is filled when the block ends.

    What other threads print meanwhile comes out when the block ends. Blocks of several threads wait for each other.
    """
    messages: list[str] = []
    with _lock:
        try:
            kept = os.dup(_STDERR)
        except OSError:
            # Without an error output there is nothing to catch, and nobody to hide anything from.
            yield messages
            return
        reading, writing = os.pipe()
        try:
            # Decoders must never wait for a reader: what does not fit is lost, after the first 64 KiB.
            os.set_blocking(writing, False)
            os.set_blocking(reading, False)
            os.dup2(writing, _STDERR)
            try:
                yield messages
            finally:
                os.dup2(kept, _STDERR)
                _sort_out(_drain(reading), messages)
        finally:
            for descriptor in (kept, reading, writing):
                os.close(descriptor)


def _drain(reading: int) -> bytes:
    try:
        return os.read(reading, _PIPE_BYTES)
    except BlockingIOError:
        return b""


def _sort_out(printed: bytes, messages: list[str]) -> None:
    """Lines of decoders become messages, everything else is printed after all."""
    for line in printed.splitlines(keepends=True):
        if line.startswith(_DECODERS):
            messages.append(line.decode("ascii", "replace").strip())
        else:
            with contextlib.suppress(OSError):
                os.write(_STDERR, line)
