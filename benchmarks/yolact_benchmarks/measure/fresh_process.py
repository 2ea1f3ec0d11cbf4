"""Call of a function in a fresh process of this Python, which forwards its progress and returns its result.

The child's stdout and stderr are both this process's stderr: libraries print to stdout, which is reserved for results.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from yolact_plugins.plain_text import guarded_stderr
from yolact_runtime.errors import BackendError, YolactError
from yolact_runtime.reporter import ForwardingReporter, Reporter, forward

__all__ = ["call_in_fresh_process", "main"]

Result = TypeVar("Result")

# -I keeps the current folder and the environment out of the child's imports; it gets this process's import path.
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from yolact_benchmarks.measure.fresh_process import main
sys.exit(main(int(sys.argv[2])))
"""
_INTERRUPTED = 130
_GRACE_S = 5.0


def call_in_fresh_process(function: Callable[..., Result], *arguments: Any, reporter: Reporter) -> Result:
    """Call ``function(*arguments, reporter)`` in a fresh process and return its result.

    Args:
        function: Function of a module (not ``__main__``), so that the child can import it by name.
        arguments: Arguments of the function; these and its result must be picklable.
        reporter: Reporter in this process, which receives the messages of the function's reporter.

    Raises:
        YolactError: The function raised this error; its message and exit status are the same.
        MemoryError: The function raised this error.
        BackendError: The process ended without a result; its output is on stderr.
    """
    answers, answer = os.pipe()
    with os.fdopen(answers, "rb") as pipe:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, json.dumps(sys.path), str(answer)],
                stdin=subprocess.PIPE,
                stdout=sys.__stderr__.fileno() if sys.__stderr__ else subprocess.DEVNULL,
                pass_fds=(answer,),
            )
        finally:
            os.close(answer)
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                pickle.dump((logging.getLogger().level, function, arguments), stdin)
            result: Result = _answer(pipe, process, reporter)
        except BaseException:
            process.kill()
            process.wait()
            raise
    _end(process)
    return result


def _answer(pipe: BinaryIO, process: subprocess.Popen[bytes], reporter: Reporter) -> Any:
    while True:
        try:
            kind, value = pickle.load(pipe)
        except EOFError:
            break
        if kind == "result":
            return value
        if kind == "error":
            cls, message = value
            error = cls.__new__(cls)
            error.args = (message,)
            raise error
        forward(kind, value, reporter)
    status = process.wait()
    how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
    raise BackendError(
        f"a process that measures {how} and gave no result; its messages are above. Run the model once with "
        f"yolact-run, or measure in this process: --processes 1"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that has returned its result: only its libraries have to shut down."""
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(answer: int) -> int:
    """Read a function and its arguments from stdin, call it, and send progress and the result to a pipe.

    Args:
        answer: File descriptor for progress and the result.
    """
    with os.fdopen(answer, "wb") as pipe:

        def send(kind: str, value: Any) -> None:
            pickle.dump((kind, value), pipe)
            pipe.flush()

        try:
            level, function, arguments = pickle.load(sys.stdin.buffer)
            with guarded_stderr():
                logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
                send("result", function(*arguments, ForwardingReporter(send)))
        except (YolactError, MemoryError) as error:
            send("error", (type(error), str(error)))
        except (KeyboardInterrupt, BrokenPipeError):
            # The parent is being interrupted as well, and reports it.
            return _INTERRUPTED
    return 0
