"""Self-test of a new engine on the machine that built it, with the golden frame, if it has a GPU."""

from __future__ import annotations

import shlex
from pathlib import Path

from yolact_plugins.errors import (
    CudaOutOfMemoryError,
    CudaUnavailableError,
    KernelCompileError,
    MissingCubinError,
    MissingDependencyError,
)
from yolact_runtime.backends.tensorrt import TARGETS
from yolact_runtime.errors import BackendUnavailableError, EngineMismatchError, NoGoldenFrameError, SignatureError
from yolact_runtime.reporter import SILENT, Reporter
from yolact_runtime.segmenter import Segmenter

__all__ = ["try_engine"]

# Errors whose cause is this machine and not the engine.
_NOT_HERE = (
    BackendUnavailableError,
    CudaOutOfMemoryError,
    CudaUnavailableError,
    EngineMismatchError,
    KernelCompileError,
    MissingCubinError,
    MissingDependencyError,
    NoGoldenFrameError,
    # A machine that runs only signed bundles.
    SignatureError,
)


def try_engine(bundle: Path, name: str, precision: str, target: str, reporter: Reporter = SILENT) -> None:
    """Run the self-test of a bundle with one of its engines; if it cannot run here, report how to run it on the robot.

    Args:
        bundle: Folder of the bundle, whose manifest lists the engine.
        name: Name of the engine's file, for messages.
        precision: Precision of the engine.
        target: Kind of the engine, ``"tensorrt"`` or ``"rtx"``.
        reporter: Reporter that receives a line about the result.

    Raises:
        SelfTestError: The engine's results are wrong.
        BackendError: The engine does not load, or fails.
    """
    backend = next(backend for backend, library in TARGETS.items() if library == target)
    try:
        with Segmenter.open(bundle, backend, precision=precision) as segmenter:
            reporter.say(f"{name}: {segmenter.self_test()}")
    except _NOT_HERE as error:
        reason = str(error).splitlines()[0].split("; ")[0]
        reporter.say(
            f"{name}: not tested, because {reason}. On the robot: yolact-run {shlex.quote(str(bundle))} --self-test"
        )
