"""TensorRT's two Python packages, ``tensorrt`` (10.3 and newer) and ``tensorrt_rtx``: import, version, log.

This is the only module of the runtime that imports them, and it does so when asked, not when it is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from yolact_plugins.driver.gpu import cuda_extra
from yolact_runtime.errors import BackendUnavailableError, MissingDependencyError, UsageError

__all__ = [
    "LATER",
    "LIBRARIES",
    "CallLog",
    "LogLine",
    "TensorRtLibrary",
    "capability_numbers",
    "covers",
    "load_tensorrt",
    "module_name",
    "version_numbers",
]

LIBRARIES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
"""Target -> Python package. ``"tensorrt"`` builds for the GPU at hand, ``"rtx"`` on any machine for RTX GPUs."""
_PURPOSES = {
    "tensorrt": "Working with TensorRT engines (on a Jetson, JetPack's package python3-libnvinfer and a virtual "
    "environment with --system-site-packages; elsewhere the extra)",
    "rtx": "Working with TensorRT-RTX engines",
}
_SEVERITIES = ("internal error", "error", "warning", "info", "verbose")
# Older releases know neither strong typing in this form nor builds to a named compute capability.
_OLDEST = (10, 3)
_REMEMBERED_LINES = 10
_AMPERE = (8, 0)
LATER = " and later"
"""Ends a list of compute capabilities that includes all that are newer than its last."""


@dataclass(frozen=True)
class LogLine:
    """One message of TensorRT. ``severity`` is "internal error", "error", "warning", "info" or "verbose"."""

    severity: str
    text: str

    @property
    def is_error(self) -> bool:
        """TensorRT calls it an error."""
        return self.severity.endswith("error")


Sink = Callable[[LogLine], None]


class CallLog:
    """The complaints of TensorRT about some of its calls: what an error message ends with."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque(maxlen=_REMEMBERED_LINES)

    def add(self, line: LogLine) -> None:
        """Keep an error or a warning; other messages are passed over."""
        if line.is_error or line.severity == "warning":
            self._lines.append(line)

    @property
    def has_errors(self) -> bool:
        """TensorRT reported an error: some of its functions return nothing."""
        return any(line.is_error for line in list(self._lines))

    def tail(self) -> str:
        """The complaints, to follow the words of an error message."""
        words = [line.text for line in list(self._lines)]
        return ":" + "".join(f"\n  {text}" for text in words) if words else "; it logged nothing"


class TensorRtLibrary:
    """An imported TensorRT package and its one logger.

    Make it with :func:`load_tensorrt`, which returns the same object for every call: TensorRT takes the first logger
    that it is given and ignores every later one while any of its objects lives, so there is one for the process, and
    whoever wants to read along adds a sink.

    Attributes:
        target: A key of :data:`LIBRARIES`.
        module: The package.
        version: Such as ``"10.3.0"``.
        logger: To be given to ``Builder``, ``OnnxParser`` and ``Runtime``.
    """

    def __init__(self, target: str, module: Any) -> None:
        self.target = target
        self.module = module
        self.version: str = module.__version__
        self._sinks: list[Sink] = []
        # Thread -> the logs of the calls that it is making, the outermost first.
        self._calls: dict[int, list[CallLog]] = {}
        # Reentrant: a collection of garbage may end in a message of TensorRT while the lock is held.
        self._lock = threading.RLock()
        self.logger = self._make_logger()

    @property
    def version_numbers(self) -> tuple[int, ...]:
        """Major, minor and patch, for comparisons."""
        return version_numbers(self.version)

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """What TensorRT-RTX builds for, such as ``("7.5", "8.0")``; empty for TensorRT, which takes the GPU here."""
        names = getattr(getattr(self.module, "ComputeCapability", None), "__members__", {})
        return tuple(f"{name[2:-1]}.{name[-1]}" for name in names if re.fullmatch(r"SM\d{2,3}", name))

    @property
    def default_capabilities(self) -> str:
        """What a build for no named GPU runs on, by NVIDIA's documentation; Turing (7.5) has to be asked for."""
        known = [each for each in self.compute_capabilities if capability_numbers(each) >= _AMPERE]
        return ", ".join(known or ["8.0"]) + LATER

    @contextlib.contextmanager
    def listen(self, sink: Sink) -> Iterator[None]:
        """Give every message of TensorRT to `sink` while the block runs, from whatever thread it comes."""
        with self._lock:
            self._sinks.append(sink)
        try:
            yield
        finally:
            with self._lock:
                self._sinks.remove(sink)

    @contextlib.contextmanager
    def collect(self) -> Iterator[CallLog]:
        """Keep the complaints about the calls that this thread makes inside the block.

        Those about the calls of other threads stay out of it. A message that comes from a thread of TensorRT's own goes
        into the log of every block that is open, because nobody can say whose it is.
        """
        thread, log = threading.get_ident(), CallLog()
        with self._lock:
            self._calls.setdefault(thread, []).append(log)
        try:
            yield log
        finally:
            with self._lock:
                self._calls[thread].pop()
                if not self._calls[thread]:
                    del self._calls[thread]

    def _hear(self, line: LogLine) -> None:
        with self._lock:
            sinks = list(self._sinks)
            own = self._calls.get(threading.get_ident())
            for log in own or [log for logs in self._calls.values() for log in logs]:
                log.add(line)
        for sink in sinks:
            sink(line)

    def _make_logger(self) -> Any:
        library = self
        severities = dict(zip(_severity_values(self.module), _SEVERITIES, strict=True))

        class Logger(self.module.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                # TensorRT's own base class must be initialised by name, or its first call ends the process.
                library.module.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                library._hear(LogLine(severities.get(int(severity), "verbose"), text))

        return Logger()


def _severity_values(module: Any) -> list[int]:
    names = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    return [int(getattr(module.ILogger.Severity, name)) for name in names]


_loaded: dict[str, TensorRtLibrary] = {}
_loading = threading.Lock()


def load_tensorrt(target: str) -> TensorRtLibrary:
    """Import a TensorRT package, once per process.

    Args:
        target: A key of :data:`LIBRARIES`.

    Raises:
        UsageError: No such target.
        MissingDependencyError: The package is not installed.
        BackendUnavailableError: It is installed and does not load (a library of its own is missing), or is too old.
    """
    name = module_name(target)
    with _loading:
        if target not in _loaded:
            _loaded[target] = TensorRtLibrary(target, _import(target, name))
        return _loaded[target]


def module_name(target: str) -> str:
    """Python package of a target.

    Raises:
        UsageError: No such target.
    """
    if target not in LIBRARIES:
        raise UsageError(f'no TensorRT target "{target}"; there are {", ".join(LIBRARIES)}')
    return LIBRARIES[target]


def version_numbers(version: str) -> tuple[int, ...]:
    """``"10.3.0.post1"`` -> ``(10, 3, 0)``."""
    numbers = []
    for part in version.split(".")[:3]:
        digits = "".join(character for character in part if character.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def capability_numbers(capability: str) -> tuple[int, ...]:
    """``"12.0"`` -> ``(12, 0)``, for comparisons."""
    return tuple(int(part) for part in capability.split(".") if part.isdigit())


def covers(listed: str, capability: str) -> bool:
    """Whether a GPU is among those of a list.

    Args:
        listed: Such as ``"8.6, 8.9"``; with :data:`LATER` at its end, also what is newer than its last.
        capability: Of the GPU.
    """
    names = listed.removesuffix(LATER).split(", ")
    newest = max(capability_numbers(name) for name in names)
    return capability in names or (listed.endswith(LATER) and capability_numbers(capability) > newest)


def _import(target: str, name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == name:
            # The extras of CUDA 13 have no number.
            extra = f"{target}-cuda12" if cuda_extra() == "cuda12" else target
            raise MissingDependencyError(name, _PURPOSES[target], extra) from error
        raise BackendUnavailableError(f"{name} is installed and cannot be imported: {error}") from error
    except (ImportError, OSError, RuntimeError) as error:
        # A missing libnvinfer, libcudart or, in older Jetson containers, libnvdla_compiler.so.
        raise BackendUnavailableError(
            f"{name} is installed and does not load: {error}. A library that it needs is missing or of another "
            f"version. On a Jetson all packages, and a container's image, must be of the installed JetPack; elsewhere "
            f"reinstall {name}"
        ) from error
    if not hasattr(module, "Builder"):
        raise BackendUnavailableError(
            f"{name} is installed without its libraries: the module has no Builder; reinstall it with its dependencies"
        )
    if target == "tensorrt" and version_numbers(module.__version__)[:2] < _OLDEST:
        raise BackendUnavailableError(
            f"tensorrt {module.__version__} is too old: 10.3 (JetPack 6.1) or newer is needed; update JetPack, or use "
            f"ONNX Runtime on this machine"
        )
    return module
