"""TensorRT engines for a bundle that exists, without torch and onnx."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_export.engine.bundle import WrittenEngine, build_engines
from yolact_export.engine.gpus import check_rtx
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.targets import available_engines, report_left_out
from yolact_export.seal import BundleSeal, SigningOptions, open_seal
from yolact_runtime.backends.tensorrt_library import LIBRARIES
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["EngineResult", "as_engine_options", "build_engine", "write_engines"]


@dataclass(frozen=True, eq=False)
class EngineResult:
    """Result of :func:`build_engine`.

    Attributes:
        bundle: Folder of the bundle.
        engines: The engines that were built, in the order of the options.
        seconds: Duration of the builds.
    """

    bundle: Path
    engines: tuple[WrittenEngine, ...]
    seconds: float

    def document(self) -> dict[str, Any]:
        """Return the JSON object that ``yolact-export BUNDLE --engine --json`` writes."""
        return {"bundle": str(self.bundle), "engines": [engine.document() for engine in self.engines]}


def build_engine(
    bundle: Path | str,
    options: EngineOptions | Sequence[EngineOptions] | None = None,
    *,
    precisions: Sequence[str] | str | None = None,
    signing: SigningOptions | None = None,
    reporter: Reporter = SILENT,
) -> EngineResult:
    """Build TensorRT engines of a bundle's networks and put them into the bundle.

    An engine with the same name is replaced. Each engine is listed in the manifest as soon as it is finished, and tried
    on the bundle's golden frame if this machine has a GPU that can run it.

    Args:
        bundle: Folder of the bundle.
        options: Settings of the build, for one library or several; None builds with every library that can build here.
        precisions: Network or networks to build from, such as ``["fp16", "int8"]``; None takes all that TensorRT
            accepts.
        signing: Keys of the signature; a signed bundle needs one.
        reporter: Receives progress.

    Returns:
        The engines.

    Raises:
        BundleError: The bundle does not exist, is damaged, or has no such network.
        UsageError: The options contradict each other, this machine or the network.
        EngineBuildError: TensorRT refuses a network.
        EngineMemoryError: A build needs more memory than there is, or than it may take.
        SelfTestError: An engine computes something else than its network; it is kept as ``*.rejected``.
        SignatureError: The signature does not fit, or would be lost.
        MissingDependencyError: TensorRT is not installed.

    Examples:
        >>> build_engine("mine.bundle", EngineOptions("tensorrt"), precisions=["int8"])  # doctest: +SKIP
    """
    bundle = Path(bundle)
    chosen = available_engines() if options is None else as_engine_options(options)
    for one in chosen:
        if one.target == "rtx" and options is not None:
            check_rtx(one.compute_capabilities)
    seal = open_seal(signing or SigningOptions(), bundle, reporter)
    started = time.monotonic()
    if options is None:
        report_left_out((), reporter)
    with seal.reported():
        names = (precisions,) if isinstance(precisions, str) else precisions
        engines = write_engines(bundle, chosen, names, seal, reporter)
    return EngineResult(bundle, engines, time.monotonic() - started)


def as_engine_options(options: EngineOptions | Sequence[EngineOptions]) -> tuple[EngineOptions, ...]:
    """Return one set of options, or several, as a tuple."""
    return (options,) if isinstance(options, EngineOptions) else tuple(options)


def write_engines(
    bundle: Path,
    options: Sequence[EngineOptions],
    precisions: Sequence[str] | None,
    seal: BundleSeal,
    reporter: Reporter = SILENT,
) -> tuple[WrittenEngine, ...]:
    """Build engines with each of the options, and sign the bundle after each engine if the seal has a key.

    Args:
        bundle: Folder of the bundle.
        options: Settings of the builds.
        precisions: Networks to build from; None takes all that TensorRT accepts.
        seal: The signature of the bundle.
        reporter: Receives progress.
    """
    written: list[WrittenEngine] = []
    for one in options:
        reporter.heading(f"building engines of {bundle} for {LIBRARIES[one.target]}")
        written += build_engines(bundle, precisions, one, seal.changed, seal.vouched, reporter)
    return tuple(written)
