"""Engine builds in a child process, so that a crash, a cancellation or a lack of memory does not affect this one.

The child gets the model through a pipe and sends progress, log and the finished engine back through another. It is in
its own session, so Ctrl-C reaches this process only, which then asks the child to stop, waits briefly, and kills it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from yolact_export import errors
from yolact_export.engine.build import LOG_TAIL, BuiltEngine
from yolact_export.engine.layers import EngineLayer
from yolact_export.engine.memory import MemoryWatch, default_limit, ladder
from yolact_export.engine.messages import read_message, write_message
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.progress import BuildProgress, ProgressLine
from yolact_export.engine.timing_cache import write_timing_cache
from yolact_export.errors import EngineBuildError, EngineMemoryError, YolactError
from yolact_runtime import errors as runtime_errors
from yolact_runtime.errors import UntrustedFileError
from yolact_runtime.reporter import SILENT, Reporter, forward

__all__ = ["build_in_process"]

# -I keeps the current folder and the environment out of the child's imports; this process's import path is passed on.
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from yolact_export.engine.child import main
main(int(sys.argv[2]))
"""
_SECONDS_BETWEEN_LOOKS = 0.05
_GRACE_S = 5.0
_NO_MEMORY = ("bad_alloc", "MemoryError", "annot allocate memory", "out of memory")


def build_in_process(
    model: bytes,
    manifest_json: str,
    options: EngineOptions,
    timing_caches: Path | None = None,
    reporter: Reporter = SILENT,
) -> BuiltEngine:
    """Build an engine in a child process; if memory runs out, try again with options that need less.

    Args:
        model: Content of the ONNX file, including the weights.
        manifest_json: Manifest that is stored in the engine.
        options: Options of the build; the facts of the result state those that were finally used.
        timing_caches: Folder of the timing caches; None for none.
        reporter: Reporter that shows the progress of the build, called from this thread. An exception that it raises
            cancels the build, as do Ctrl-C and SIGTERM.

    Raises:
        EngineMemoryError: There was not enough memory in any attempt.
        EngineBuildError: TensorRT refuses the model, fails or crashes; the message has the end of its log.
        MissingDependencyError, BackendUnavailableError, UsageError: The same as for
            :func:`yolact_export.engine.build.build_engine`.
    """
    limit = options.memory_limit_bytes or default_limit()
    failures: list[str] = []
    cause: EngineBuildError | None = None
    for attempt in ladder(options):
        said = _described(attempt)
        reporter.status(f"building with {said}" if failures else "building")
        try:
            with _Child(limit) as child:
                return child.build(model, manifest_json, attempt, timing_caches, reporter)
        except EngineMemoryError as error:
            failures.append(f"with {said}: {error}")
            cause = error
        except EngineBuildError as error:
            if not failures:
                raise
            # With too little workspace TensorRT has no kernel for some layer; even less does not help.
            failures.append(f"with {said}: {str(error).splitlines()[0]}")
            cause = error
            break
    raise EngineMemoryError(
        "building the engine needs more memory than is available:\n  "
        + "\n  ".join(failures)
        + "\nEnd other programs, allow more with --memory-limit, or build a smaller or pruned model. An engine for RTX "
        "GPUs can be built on a larger machine (--target rtx)"
    ) from cause


def _described(options: EngineOptions) -> str:
    workspace = "default workspace"
    if options.workspace_bytes is not None:
        workspace = f"{options.workspace_bytes / 1e6:.0f} MB workspace"
    level = "default builder level" if options.optimisation_level is None else f"level {options.optimisation_level}"
    return f"{workspace}, {level}"


@dataclass
class _Received:
    """Messages received from the child."""

    reporter: Reporter
    result: tuple[dict[str, Any], bytes] | None = None
    timing_cache: bytes | None = None
    error: YolactError | None = None
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_TAIL))
    progress: ProgressLine = field(default_factory=ProgressLine)

    def take(self, header: dict[str, Any], payload: bytes) -> None:
        kind = header["type"]
        if kind == "progress":
            self.reporter.status(self.progress.update(BuildProgress(**header["progress"])))
        elif kind == "log":
            self.log.append(header["text"])
        elif kind == "report":
            forward(header["kind"], header["text"], self.reporter)
        elif kind == "timing_cache":
            self.timing_cache = payload
        elif kind == "error":
            self.error = _error(header["kind"], header["message"])
        elif kind == "result":
            self.result = header, payload


class _Child:
    """Build process, which is ended whenever the ``with`` block is left."""

    def __init__(self, limit_bytes: int | None) -> None:
        events, reports = os.pipe()
        try:
            # The output is that of TensorRT and faulthandler, such as messages before a crash.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, json.dumps(sys.path), str(reports)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[reports],
                start_new_session=True,
            )
        finally:
            os.close(reports)
        self._watch = MemoryWatch(self._process.pid, limit_bytes)
        self._messages: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
        self._output: deque[str] = deque(maxlen=LOG_TAIL)
        self._threads = [
            threading.Thread(target=_read_events, args=(os.fdopen(events, "rb"), self._messages), daemon=True),
            threading.Thread(target=_read_output, args=(self._stream("stdout"), self._output), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> _Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process.poll() is None:
                self._ask_to_stop()
        finally:
            # Also if a second Ctrl-C interrupts the waiting.
            self._kill()
            with contextlib.suppress(BrokenPipeError):
                self._stream("stdin").close()

    def build(
        self, model: bytes, manifest_json: str, options: EngineOptions, caches: Path | None, reporter: Reporter
    ) -> BuiltEngine:
        """Send the request and wait for the result; see :func:`build_in_process`."""
        request = {
            "options": options.to_document(),
            "manifest": manifest_json,
            "timing_caches": None if caches is None else str(caches),
        }
        with contextlib.suppress(BrokenPipeError):  # the child died; its last messages follow
            write_message(self._stream("stdin"), request, model)
        received = _Received(reporter)
        self._receive(received)
        if received.result is None:
            raise self._failure(received)
        header, plan = received.result
        if received.timing_cache is not None and caches is not None:
            try:
                write_timing_cache(caches, header["facts"], received.timing_cache)
            except (OSError, UntrustedFileError) as error:
                # The build is worth more than the time that its cache would save.
                reporter.warn(f"the timings of this build are not kept: {error}")
        layers = tuple(EngineLayer.from_document(layer) for layer in header["layers"])
        return BuiltEngine(plan, layers, header["facts"], tuple(header["log_tail"]), received.timing_cache)

    def _receive(self, received: _Received) -> None:
        """Receive messages until the child has no more, while monitoring its memory."""
        looked = 0.0
        while True:
            now = time.monotonic()
            if now - looked >= _SECONDS_BETWEEN_LOOKS:
                looked = now
                excess = self._watch.excess()
                if excess is not None:
                    # Immediately: a process that is asked to stop may use all remaining memory before it does.
                    self._kill()
                    raise EngineMemoryError(excess)
            try:
                message = self._messages.get(timeout=_SECONDS_BETWEEN_LOOKS)
            except queue.Empty:
                continue
            if message is None:
                return
            received.take(*message)

    def _failure(self, received: _Received) -> YolactError:
        """Return the error for a build without an engine."""
        if received.error is not None:
            return received.error
        status = self._process.wait()
        for thread in self._threads:
            thread.join(timeout=1)
        words = [*received.log, *self._output]
        if status == -signal.SIGKILL or any(sign in line for sign in _NO_MEMORY for line in words):
            return EngineMemoryError(
                f"the build was ended {_ending(status)} after it used {self._watch.peak_bytes / 1e6:.0f} MB, which "
                f"usually means that memory ran out"
            )
        tail = "".join(f"\n  {line}" for line in words[-LOG_TAIL:]) or " it logged nothing"
        return EngineBuildError(
            f"TensorRT's build process crashed: it ended {_ending(status)}. Another --builder-level or --workspace may "
            f"avoid the crash. Its last messages:{tail}"
        )

    def _ask_to_stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            write_message(self._stream("stdin"), {"type": "cancel"})
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)

    def _kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _stream(self, name: str) -> BinaryIO:
        stream: BinaryIO = getattr(self._process, name)
        return stream


def _read_events(stream: BinaryIO, messages: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None]) -> None:
    with stream:
        while (message := read_message(stream)) is not None:
            messages.put(message)
    messages.put(None)


def _read_output(stream: BinaryIO, lines: deque[str]) -> None:
    with stream:
        for line in stream:
            lines.append(line.decode("utf-8", "replace").rstrip())


def _error(kind: str, message: str) -> YolactError:
    """Recreate the child's error with the same class."""
    found = getattr(errors, kind, None) or getattr(runtime_errors, kind, None)
    if isinstance(found, type) and issubclass(found, YolactError):
        error = found.__new__(found)
        # Not with the class's own arguments, which differ: the message is complete.
        Exception.__init__(error, message)
        return error
    return EngineBuildError(f"{kind}: {message}")


def _ending(status: int) -> str:
    if status >= 0:
        return f"with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"
