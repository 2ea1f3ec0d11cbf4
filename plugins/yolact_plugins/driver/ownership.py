"""Who gives a resource of the driver back, and when: the rules that buffers, streams and modules share."""

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
    """Something that must be given back, once, and not before those who stand on it are closed.

    A subclass makes its resource first and calls ``super().__init__`` with what it stands on when that succeeded; it
    gives the resource back in ``_release``.

    Args:
        held: Stay usable, even if closed by their user, until this object is released.
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
        """The user gave it back; the resource itself may live on for those who hold it."""
        return self._closed

    def require_open(self) -> None:
        """Raise :class:`CudaError` where the object is closed: its handle may be somebody else's by now."""
        if self._closed:
            raise CudaError(f"this {type(self).__name__} is closed; it cannot be used any more")

    def hold(self) -> None:
        """Keep the resource until :meth:`drop`."""
        with _lock:
            self.require_open()
            self._num_holders += 1

    def drop(self) -> None:
        """End a :meth:`hold`; the last one releases what was closed meanwhile."""
        with _lock:
            self._num_holders -= 1
            finish = self._closed and self._num_holders == 0
        if finish:
            self._finish()

    def close(self) -> None:
        """Give the resource back, now or when nobody holds it any more. May be called again."""
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
        # While the interpreter ends, the driver may have ended already, and the process gives everything back anyway.
        # The question is bound as a default because this module's own names may be None by then.
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
            # The driver has freed it, or will when the process ends; whoever lost the context was told.
            _log.debug("a %s went with the GPU's context", type(self).__name__)


def close_all(*steps: Callable[[], object]) -> None:
    """Take every step of closing something, whatever becomes of those before.

    Raises:
        Exception: What the first step raised that failed; what later ones raise is logged. The loss of the GPU's
            context is nothing that closing something could report: it was reported when it was met.
    """
    first = _failure_of(steps)
    if first is not None:
        try:
            raise first
        finally:
            # The error's traceback leads here: it must not lead back to the error.
            del first


def close_after_failure(*steps: Callable[[], object]) -> None:
    """As :func:`close_all`, inside of an ``except`` block: raises nothing, because its error is the one to report."""
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
