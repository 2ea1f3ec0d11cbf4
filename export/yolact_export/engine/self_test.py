"""An engine that was just built, tried once on the machine that built it: the golden frame, where there is a GPU."""

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

# Reasons that lie in this machine and not in the engine.
_NOT_HERE = (
    BackendUnavailableError,
    CudaOutOfMemoryError,
    CudaUnavailableError,
    EngineMismatchError,
    KernelCompileError,
    MissingCubinError,
    MissingDependencyError,
    NoGoldenFrameError,
    # A machine that runs only what others signed.
    SignatureError,
)


def try_engine(bundle: Path, name: str, precision: str, target: str, reporter: Reporter = SILENT) -> None:
    """Run the self-test of a bundle on one of its engines; where it cannot run here, say so and how to do it there.

    Args:
        bundle: The folder; its manifest lists the engine.
        name: Of the engine's file, for what is said.
        precision: Of the engine.
        target: ``"tensorrt"`` or ``"rtx"``.
        reporter: Gets a line.

    Raises:
        SelfTestError: The engine does not compute what it should.
        BackendError: The engine does not load, or fails.
    """
    backend = next(backend for backend, library in TARGETS.items() if library == target)
    try:
        with Segmenter.open(bundle, backend, precision=precision) as segmenter:
            reporter.say(f"{name}: {segmenter.self_test()}")
    except _NOT_HERE as error:
        reason = str(error).splitlines()[0].split("; ")[0]
        reporter.say(
            f"{name}: not tried, because {reason}. On the robot: yolact-run {shlex.quote(str(bundle))} --self-test"
        )
