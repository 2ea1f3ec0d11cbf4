"""One interface to the builders of ``tensorrt`` (10.3 to 11.4) and ``tensorrt_rtx``.

Differences: the flag for strong typing has another number in each release, and does not exist if all networks are
strongly typed; TensorRT-RTX builds for named compute capabilities, TensorRT for the GPU of the machine; timing caches
have no effect in RTX; plugins (``DeformConv``) exist in TensorRT only; engines that take all their memory from the
caller in RTX only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from yolact_export.engine.gpus import check_capabilities
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.progress import BuildProgress
from yolact_export.errors import EngineBuildError, UsageError
from yolact_runtime.backends.tensorrt_library import TensorRtLibrary

__all__ = [
    "configure",
    "create_network",
    "described_capabilities",
    "is_noise",
    "make_monitor",
    "parser_errors",
    "register_plugins",
    "takes_all_memory_from_its_caller",
    "timing_cache_blob",
]

# Compute capabilities of hardware-compatible engines of TensorRT.
_AMPERE_PLUS = "8.0 and later"
_USER_ALLOCATION = "REQUIRE_USER_ALLOCATION"


def create_network(library: TensorRtLibrary, builder: Any) -> Any:
    """Create an empty network that keeps the types of the ONNX file; TensorRT does not choose any."""
    flags = getattr(library.module, "NetworkDefinitionCreationFlag", None)
    strong = getattr(flags, "__members__", {}).get("STRONGLY_TYPED")
    # Releases without the flag have no other networks. The numbers of the flags differ between releases.
    return builder.create_network(0 if strong is None else 1 << int(strong))


def register_plugins(library: TensorRtLibrary) -> None:
    """Register TensorRT's own plugins with the parser, if there are any."""
    register = getattr(library.module, "init_libnvinfer_plugins", None)
    if register is not None and not register(library.logger, ""):
        raise EngineBuildError(
            f"{library.module.__name__} {library.version} cannot register its own plugins; is libnvinfer_plugin "
            f"installed?"
        )


def configure(library: TensorRtLibrary, builder: Any, options: EngineOptions, timing_cache: bytes | None) -> Any:
    """Create the builder's configuration.

    Args:
        library: Loaded TensorRT package.
        builder: Builder of that package.
        options: Options of the build.
        timing_cache: Cache of an earlier build, or empty bytes to begin one; None for no cache.

    Raises:
        UsageError: This TensorRT does not support an option.
    """
    module, config = library.module, builder.create_builder_config()
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimisation_level is not None:
        config.builder_optimization_level = options.optimisation_level
    if options.version_compatible:
        # Without the lean runtime, the plan contains no host code, which this project never runs.
        _set_flags(library, config, "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME")
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.compute_capabilities:
        _set_capabilities(library, config, options.compute_capabilities)
    if takes_all_memory_from_its_caller(library):
        # An engine that allocates while it runs cannot be captured in a CUDA graph.
        _set_flags(library, config, _USER_ALLOCATION)
    _allow_tf32(library, config, options.tf32)
    if timing_cache is not None and library.target == "tensorrt":
        _set_timing_cache(config, timing_cache)
    return config


def takes_all_memory_from_its_caller(library: TensorRtLibrary) -> bool:
    """Return whether engines allocate nothing while they run, so that contexts need memory from the caller.

    This is so for TensorRT-RTX, whose contexts get memory from the runtime. TensorRT has no such flag.
    """
    return library.target == "rtx" and _USER_ALLOCATION in library.module.BuilderFlag.__members__


def _allow_tf32(library: TensorRtLibrary, config: Any, allowed: bool) -> None:
    """Set or clear TF32; every TensorRT allows it by default."""
    if allowed:
        _set_flags(library, config, "TF32")
    elif "TF32" in library.module.BuilderFlag.__members__:
        config.clear_flag(library.module.BuilderFlag.TF32)


def _set_timing_cache(config: Any, content: bytes) -> None:
    # False: timings of another device are refused, and replaced by an empty cache.
    if not config.set_timing_cache(config.create_timing_cache(content), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _set_flags(library: TensorRtLibrary, config: Any, *names: str) -> None:
    known = library.module.BuilderFlag.__members__
    for name in names:
        if name not in known:
            raise UsageError(f"{library.module.__name__} {library.version} has no {name}; leave the option out")
        config.set_flag(known[name])


def _set_capabilities(library: TensorRtLibrary, config: Any, capabilities: Sequence[str]) -> None:
    check_capabilities(library, capabilities)
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        value = getattr(library.module.ComputeCapability, "SM" + capability.replace(".", ""))
        if not config.set_compute_capability(value, index):
            raise EngineBuildError(
                f"{library.module.__name__} refuses compute capability {capability}; build without it"
            )


def described_capabilities(library: TensorRtLibrary, options: EngineOptions, gpu_capability: str | None) -> str:
    """Return the compute capabilities that an engine with these options runs on, as text for its record."""
    if options.target == "rtx":
        return ", ".join(options.compute_capabilities) or library.default_capabilities
    return _AMPERE_PLUS if options.hardware_compatible else (gpu_capability or "unknown")


def timing_cache_blob(library: TensorRtLibrary, config: Any) -> bytes | None:
    """Return the timing cache after a build; None for RTX, where it has no effect."""
    if library.target != "tensorrt":
        return None
    cache = config.get_timing_cache()
    return None if cache is None else bytes(cache.serialize())


def parser_errors(parser: Any) -> list[str]:
    """Return the errors of the ONNX parser, each with its node."""
    errors = []
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        name, operator, number = (_read(error, key) for key in ("node_name", "node_operator", "node"))
        # Errors that are found before the parser visits the nodes have none.
        where = f"{name or 'node ' + number} ({operator})" if operator else "the model"
        text = " ".join(line for line in _read(error, "desc").splitlines() if not is_noise(line))
        errors.append(f"{where}: {text}")
    return errors


def is_noise(message: str) -> bool:
    """Return whether TensorRT-RTX only complains about a missing driver, which it does not need for building."""
    return "catchCudaError" in message and "driver version is insufficient" in message


def _read(error: Any, name: str) -> str:
    value = getattr(error, name, "")
    return str(value() if callable(value) else value)


def make_monitor(library: TensorRtLibrary, on_progress: Callable[[BuildProgress], bool]) -> Any:
    """Create TensorRT's progress monitor.

    Args:
        library: Loaded TensorRT package.
        on_progress: Function called from TensorRT's threads; if it returns False, the build is cancelled.
    """

    class Monitor(library.module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.module.IProgressMonitor.__init__(self)
            self._totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._totals[phase_name] = num_steps
            on_progress(BuildProgress("start", phase_name, parent_phase, 0, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            return on_progress(BuildProgress("step", phase_name, None, step + 1, self._totals.get(phase_name, 0)))

        def phase_finish(self, phase_name: str) -> None:
            on_progress(BuildProgress("finish", phase_name))

    return Monitor()
