"""Messages that decoders in C print to stderr, captured while an image is decoded.

libjpeg and libpng report damage there and nowhere else; OpenCV then returns an image that is gray from the damage on.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

__all__ = ["decode_and_listen", "messages_caught"]

Result = TypeVar("Result")
_STDERR = 2
_UNBUFFERED = 2
"""Value of ``_IONBF`` in glibc."""
_PIPE_BYTES = 65536
_DECODERS = (
    b"libpng",
    b"Corrupt JPEG",
    b"Premature end of JPEG",
    b"Invalid SOS",
    b"Unsupported marker",
    b"Unknown Adobe",
    b"[gif @",
    b"OpenCV: FFMPEG",
)


def decode_and_listen(decode: Callable[[], Result]) -> tuple[Result, list[str]]:
    """Call a function that decodes one image, and capture the messages of decoders.

    Several threads may decode at once. If messages appeared while several did, their image is unknown: the function is
    called once more, alone.

    Args:
        decode: Function without side effects; it may be called twice.

    Returns:
        The function's result, and the lines of decoders.
    """
    with _listener.listen() as heard:
        result = decode()
    if heard.messages and heard.was_shared:
        with _listener.listen(alone=True) as heard:
            result = decode()
    return result, heard.messages


@contextlib.contextmanager
def messages_caught() -> Iterator[None]:
    """Hide the output of decoders and encoders inside the block from stderr."""
    with _listener.listen():
        yield


class _Diversion:
    """A redirection of C code's stderr into a pipe.

    In glibc ``stderr`` is a variable that a program may set (Standard Streams, in its manual). Descriptor 2 remains
    unchanged for Python, other threads and programs started meanwhile. Other C libraries have no such variable, and the
    descriptor itself is replaced.
    """

    def __init__(self) -> None:
        self._reading, self._writing = _pipe()
        self._variable, self._stream = _c_stream(self._writing)
        self._usual: int | None = None

    def begin(self) -> None:
        """Redirect to the pipe."""
        if self._variable is not None:
            self._usual, self._variable.value = self._variable.value, self._stream
            return
        # Without stderr there is nothing to capture or to hide.
        with contextlib.suppress(OSError):
            self._usual = fcntl.fcntl(_STDERR, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
            os.dup2(self._writing, _STDERR)

    def end(self) -> None:
        """Restore the original destination."""
        usual, self._usual = self._usual, None
        if self._variable is not None:
            self._variable.value = usual
        elif usual is not None:
            os.dup2(usual, _STDERR)
            os.close(usual)

    def read(self) -> bytes:
        """Return the output since the last call, at most its first 64 KiB."""
        try:
            return os.read(self._reading, _PIPE_BYTES)
        except BlockingIOError:
            return b""


class _Heard:
    """The messages captured in one block, once it has ended.

    Attributes:
        messages: Lines printed by decoders.
        was_shared: Whether another block was open at the same time, so that the lines may belong to its image.
    """

    def __init__(self, start: int, number: int, was_shared: bool) -> None:
        self.start = start
        self.number = number
        self.was_shared = was_shared
        self.messages: list[str] = []


class _Listener:
    """The open blocks of all threads of a process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._diversion: _Diversion | None = None
        self._printed = bytearray()
        self._num_open = self._num_begun = self._num_wanting_alone = 0
        self._is_alone = False

    @contextlib.contextmanager
    def listen(self, alone: bool = False) -> Iterator[_Heard]:
        """Open a block; if `alone`, no other one is open at the same time."""
        heard = self._enter(alone)
        try:
            yield heard
        finally:
            self._leave(heard)

    def _enter(self, alone: bool) -> _Heard:
        with self._changed:
            self._num_wanting_alone += alone
            try:
                self._changed.wait_for(lambda: self._is_free(alone))
            finally:
                self._num_wanting_alone -= alone
            if self._diversion is None:
                self._diversion = _Diversion()
            if not self._num_open:
                self._diversion.begin()
            self._printed += self._diversion.read()
            self._num_open += 1
            self._num_begun += 1
            self._is_alone = alone
            return _Heard(len(self._printed), self._num_begun, self._num_open > 1)

    def _is_free(self, alone: bool) -> bool:
        return not self._num_open if alone else not (self._is_alone or self._num_wanting_alone)

    def _leave(self, heard: _Heard) -> None:
        printed = bytearray()
        with self._changed:
            assert self._diversion is not None
            self._printed += self._diversion.read()
            heard.messages = _messages(self._printed[heard.start :])
            heard.was_shared |= self._num_begun != heard.number
            self._num_open -= 1
            self._is_alone = False
            if not self._num_open:
                self._diversion.end()
                printed, self._printed = self._printed, printed
            self._changed.notify_all()
        _pass_on(printed)

    def abandon(self) -> None:
        """Reset in a forked process, where nothing will close the blocks of other threads."""
        if self._diversion is not None and self._num_open:
            self._diversion.end()


_listener = _Listener()


def _start_anew() -> None:
    """Reset in a forked process, which shares the pipe of its parent but none of its threads."""
    global _listener
    _listener.abandon()
    _listener = _Listener()


os.register_at_fork(after_in_child=_start_anew)


def _pipe() -> tuple[int, int]:
    """Create a pipe that blocks nobody: decoders must never wait for a reader. Its ends never take descriptor 2."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1))
        os.close(end)
        os.set_blocking(ends[-1], False)
    return ends[0], ends[1]


def _c_stream(descriptor: int) -> tuple[ctypes.c_void_p | None, int | None]:
    """Return glibc's variable ``stderr`` and a stream to set it to, which is never closed; (None, None) elsewhere."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return None, None
    library.fdopen.restype, library.fdopen.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_char_p]
    library.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    stream = library.fdopen(descriptor, b"w")
    library.setvbuf(stream, None, _UNBUFFERED, 0)
    return ctypes.c_void_p.in_dll(library, "stderr"), stream


def _messages(printed: bytes | bytearray) -> list[str]:
    return [line.decode("ascii", "replace").strip() for line in printed.splitlines() if line.startswith(_DECODERS)]


def _pass_on(printed: bytes | bytearray) -> None:
    """Print captured output that is not from decoders."""
    others = b"".join(line for line in printed.splitlines(keepends=True) if not line.startswith(_DECODERS))
    with contextlib.suppress(OSError):
        os.write(_STDERR, others)
