"""Ownership of driver resources: the rules of release that buffers, streams and modules share."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar

from yolact_plugins.errors import CudaContextLostError, CudaError

__all__ = ["Owned", "close_after_failure", "close_all"]

_log = logging.getLogger(__name__)
Self = TypeVar("Self", bound="Owned")
# Reentrant: the garbage collector may close one object while another is being closed on the same thread.
_lock = threading.RLock()


class Owned:
    """A resource that is released once, and not before all objects that depend on it are closed.

    A subclass creates its resource first, then calls ``super().__init__`` with the objects that it depends on; it
    releases the resource in ``_release``.

    Args:
        held: Objects that stay usable, even if their user closes them, until this object is released.
    """

    _closed = True
    _num_holders = 0
    _held: tuple[Owned, ...] = ()

    def __init__(self, *held: Owned) -> None:
        for other in held:
            other.hold()
        self._held = held
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the user has closed it; objects that hold it keep the resource itself alive."""
        return self._closed

    def require_open(self) -> None:
        """Raise :class:`CudaError` if the object is closed, because its handle may have been reused."""
        if self._closed:
            raise CudaError(f"this {type(self).__name__} is closed and can no longer be used")

    def hold(self) -> None:
        """Keep the resource until :meth:`drop`."""
        with _lock:
            self.require_open()
            self._num_holders += 1

    def drop(self) -> None:
        """End a :meth:`hold`; the last one releases a resource that was closed meanwhile."""
        with _lock:
            self._num_holders -= 1
            finish = self._closed and self._num_holders == 0
        if finish:
            self._finish()

    def close(self) -> None:
        """Release the resource now, or when nothing holds it any longer. May be called again."""
        with _lock:
            finish = not self._closed and self._num_holders == 0
            self._closed = True
        if finish:
            self._finish()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # While the interpreter exits, the driver may have been shut down already, and the process frees everything
        # anyway. The function is bound as a default argument because this module's names may be None by then.
        if not self._closed and not _is_finalizing():
            warnings.warn(f"a {type(self).__name__} was not closed", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def _release(self) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        close_all(self._try_release, *(other.drop for other in self._held))

    def _try_release(self) -> None:
        try:
            self._release()
        except CudaContextLostError:
            # The driver has freed it, or will when the process ends; the loss of the context was already reported.
            _log.debug("a %s went with the GPU's context", type(self).__name__)


def close_all(*steps: Callable[[], object]) -> None:
    """Run every step of closing something, whether or not earlier ones fail.

    Raises:
        Exception: The error of the first step that failed; later errors are logged. The loss of the GPU's context is
            not reported here, but where it was detected.
    """
    first = _failure_of(steps)
    if first is not None:
        try:
            raise first
        finally:
            # The traceback of the error refers to this frame, which must not refer to the error.
            del first


def close_after_failure(*steps: Callable[[], object]) -> None:
    """Run every step like :func:`close_all` inside of an ``except`` block, without raising.

    Its error is the one to report.
    """
    error = _failure_of(steps)
    if error is not None:
        _log.warning("after another failure, something could not be freed: %s", error)


def _failure_of(steps: Iterable[Callable[[], object]]) -> Exception | None:
    first: Exception | None = None
    for step in steps:
        try:
            step()
        except CudaContextLostError:
            continue
        except Exception as error:
            if first is None:
                first = error
            else:
                _log.warning("something else could not be freed: %s", error)
    return first
