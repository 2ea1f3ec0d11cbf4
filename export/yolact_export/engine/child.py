"""Child process that builds an engine; :mod:`yolact_export.engine.process` starts it and reads its messages.

It needs NumPy and TensorRT, but not torch or onnx. The request arrives on stdin, which stays open: a "cancel" message,
or the end of the stream when the parent is gone, ends the build.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from yolact_export.engine.build import BuiltEngine, build_engine
from yolact_export.engine.messages import read_message, write_message
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.progress import BuildProgress
from yolact_export.engine.timing_cache import read_timing_cache
from yolact_export.errors import EngineMemoryError, YolactError
from yolact_runtime.backends.tensorrt_library import LogLine, load_tensorrt
from yolact_runtime.reporter import ForwardingReporter

__all__ = ["CANCELLED", "main"]

CANCELLED = 3
"""Exit status after a cancelled build."""
# There are thousands of steps; ten a second are enough to show.
_SECONDS_BETWEEN_STEPS = 0.1
_MOST_OF_A_LINE = 300


class _Channel:
    """Sender of events to the parent, usable from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last_step = 0.0
        self.cancelled = threading.Event()

    def send(self, kind: str, payload: bytes = b"", /, **content: Any) -> None:
        with self._lock:
            write_message(self._stream, {"type": kind, **content}, payload)

    def log(self, line: LogLine) -> None:
        self.send("log", severity=line.severity, text=line.text[:_MOST_OF_A_LINE])

    def progress(self, progress: BuildProgress) -> bool:
        now = time.monotonic()
        if progress.kind != "step" or now - self._last_step > _SECONDS_BETWEEN_STEPS:
            self._last_step = now
            self.send("progress", progress=asdict(progress))
        return not self.cancelled.is_set()


def main(descriptor: int) -> None:
    """Read a request from stdin, build, and report on a pipe.

    Args:
        descriptor: File descriptor of the pipe to report on.
    """
    faulthandler.enable()
    _offer_to_the_kernel()
    stdin = sys.stdin.buffer
    request = read_message(stdin)
    if request is None:
        sys.exit(1)
    header, model = request
    with os.fdopen(descriptor, "wb") as stream:
        channel = _Channel(stream)
        threading.Thread(target=_listen, args=(stdin, channel), daemon=True).start()
        try:
            _build(header, model, channel)
        except YolactError as error:
            if channel.cancelled.is_set():
                _leave(CANCELLED)
            channel.send("error", kind=type(error).__name__, message=str(error))
        except MemoryError as error:
            channel.send("error", kind=EngineMemoryError.__name__, message=f"out of memory while building: {error}")
    # Without the interpreter's own shutdown, which destroys TensorRT's objects in an order that it does not support.
    _leave(0)


def _build(header: dict[str, Any], model: bytes, channel: _Channel) -> None:
    options = EngineOptions.from_document(header["options"])
    caches = header["timing_caches"]
    reporter = ForwardingReporter(lambda kind, text: channel.send("report", kind=kind, text=text))
    library = load_tensorrt(options.target)
    with library.listen(channel.log):
        built = build_engine(
            model,
            header["manifest"],
            options,
            channel.progress,
            None if caches is None else lambda facts: read_timing_cache(Path(caches), facts, reporter),
        )
    _send(built, channel)


def _send(built: BuiltEngine, channel: _Channel) -> None:
    if built.timing_cache is not None:
        channel.send("timing_cache", built.timing_cache)
    layers = [asdict(layer) for layer in built.layers]
    channel.send("result", built.plan, layers=layers, facts=built.facts, log_tail=built.log_tail)


def _listen(stdin: BinaryIO, channel: _Channel) -> None:
    if read_message(stdin) is None:
        # The parent is gone, so the engine is no longer needed.
        _leave(1)
    channel.cancelled.set()


def _leave(status: int) -> None:
    sys.stderr.flush()
    os._exit(status)


def _offer_to_the_kernel() -> None:
    """Make the kernel kill this process first when memory runs out, instead of the robot's other processes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
