"""TensorRT builds in this process; :mod:`yolact_export.engine.process` runs them in another.

The model is given as bytes: given a path, TensorRT's parser would follow links of external data out of the model's
folder.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from yolact_export.engine.api import (
    configure,
    create_network,
    described_capabilities,
    is_noise,
    make_monitor,
    parser_errors,
    register_plugins,
    takes_all_memory_from_its_caller,
    timing_cache_blob,
)
from yolact_export.engine.depthwise import group_depthwise, group_size
from yolact_export.engine.layers import EngineLayer, parse_layers
from yolact_export.engine.onnx_outline import OnnxOutline, read_outline
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.progress import BuildProgress
from yolact_export.errors import EngineBuildError, EngineMemoryError
from yolact_plugins.files import counted
from yolact_runtime.backends.cuda_driver import Gpu, find_gpu
from yolact_runtime.backends.engine_file import machine_facts
from yolact_runtime.backends.tensorrt_library import LogLine, TensorRtLibrary, load_tensorrt
from yolact_runtime.model.engine_name import engine_name
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.network_outputs import RawOutputs

__all__ = ["LOG_TAIL", "BuiltEngine", "TimingCaches", "build_engine", "check_model"]

LOG_TAIL = 40
"""Number of log messages that are kept for reports."""
_OUT_OF_MEMORY = ("outofmemory", "out of memory", "bad_alloc", "insufficient memory", "requested size was")
_WORKSPACE = "workspace"
# Quantised values above 127 would be clipped with only a warning.
_UINT8 = "Defaulting to INT8 instead"
_DTYPES = {"FLOAT": "float32", "HALF": "float16"}


@dataclass(frozen=True)
class BuiltEngine:
    """Finished engine.

    Attributes:
        plan: Content of the engine file.
        layers: Layers of the engine.
        facts: Facts about the build; see :mod:`yolact_runtime.backends.engine_file`.
        log_tail: Last messages of TensorRT, without the verbose ones.
        timing_cache: Timings of this and earlier builds on this device; None if there are none.
    """

    plan: bytes
    layers: tuple[EngineLayer, ...]
    facts: dict[str, str]
    log_tail: tuple[str, ...]
    timing_cache: bytes | None = None


TimingCaches = Callable[[dict[str, str]], bytes]
"""Function that finds the timing cache for a build's facts, and returns empty bytes if there is none yet."""


@dataclass
class _Log:
    """Excerpt of TensorRT's log: the layers, the complaints and the last messages."""

    layers: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_TAIL))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, line: LogLine) -> None:
        with self.lock:
            if "LayerType: " in line.text:
                self.layers.append(line.text)
            elif line.severity != "verbose":
                self.tail.append(line.text)
            if (line.is_error or line.severity == "warning") and not is_noise(line.text):
                self.complaints.append(line.text)

    def says(self, *words: str) -> bool:
        """Return whether a complaint contains one of the words."""
        return any(word in complaint.lower() for complaint in self.complaints for word in words)

    def last_words(self) -> str:
        """Return the complaints, or else the last messages, as text for an error message."""
        words = (self.complaints or list(self.tail))[-10:]
        return "".join(f"\n  {text}" for text in words) or " it logged nothing"


def build_engine(
    model: bytes,
    manifest_json: str,
    options: EngineOptions,
    on_progress: Callable[[BuildProgress], bool] = lambda _: True,
    timing_caches: TimingCaches | None = None,
) -> BuiltEngine:
    """Build an engine. It is always strongly typed: each tensor has its type from the ONNX file.

    Args:
        model: Content of the ONNX file, including the weights.
        manifest_json: Manifest that is stored in the engine, as its network's name.
        options: Options of the build.
        on_progress: Function called from TensorRT's threads; if it returns False, the build is cancelled and raises.
        timing_caches: Function that returns earlier timings of this device; None to keep none.

    Raises:
        EngineBuildError: TensorRT refuses the model or fails; or its tensors have other types than the manifest states.
        EngineMemoryError: TensorRT ran out of memory.
        ManifestError: `manifest_json` is not a manifest.
        MissingDependencyError, BackendUnavailableError: TensorRT, or the GPU that it needs, is not available.
        UsageError: This TensorRT does not support an option.
    """
    check_model(read_outline(model), options)
    name = engine_name(manifest_json)
    library = load_tensorrt(options.target)
    # Some releases of TensorRT end the process if there is no driver, so check for it first. RTX needs none.
    gpu = find_gpu() if options.target == "tensorrt" else None
    facts = _facts(library, gpu, options) | {"onnx_sha256": hashlib.sha256(model).hexdigest()}
    model, changed = _for_target(model, options)
    facts |= changed
    log = _Log()
    with library.listen(log):
        builder = library.module.Builder(library.logger)
        network = _parse(library, builder, model, log)
        _require_dtypes(network, manifest_json)
        network.name = name
        return _build(library, builder, network, options, facts, log, on_progress, timing_caches)


def _for_target(model: bytes, options: EngineOptions) -> tuple[bytes, dict[str, str]]:
    """Adapt the model to the target; return it with the changes, for the engine's record."""
    if options.target != "rtx" or not options.group_depthwise:
        return model, {}
    size = group_size(options.compute_capabilities)
    model, names = group_depthwise(model, size)
    return model, {"int8_depthwise": f"{len(names)} in groups of {size}"} if names else {}


def _build(
    library: TensorRtLibrary,
    builder: Any,
    network: Any,
    options: EngineOptions,
    facts: dict[str, str],
    log: _Log,
    on_progress: Callable[[BuildProgress], bool],
    timing_caches: TimingCaches | None,
) -> BuiltEngine:
    cache = None if timing_caches is None else timing_caches(facts)
    config = configure(library, builder, options, cache)
    _add_profile(builder, network, config, options.max_batch)
    # The monitor must outlive the configuration that refers to it.
    monitor = make_monitor(library, on_progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failure(library, log)
    blob = None if cache is None else timing_cache_blob(library, config)
    return BuiltEngine(bytes(plan), parse_layers(log.layers), facts, tuple(log.tail), blob)


def check_model(outline: OnnxOutline, options: EngineOptions) -> None:
    """Refuse models that are known not to work before TensorRT is started.

    Raises:
        EngineBuildError: The model's weights are in other files, or it has an operator that the target lacks.
    """
    if outline.external:
        raise EngineBuildError(
            f"the model has {counted(len(outline.external), 'tensor')} in other files, {outline.external[0]} first, "
            f"which are not read, because a link could lead anywhere. Export again: yolact-export includes the weights"
        )
    deformable = outline.named("DeformConv")
    if deformable and options.target == "rtx":
        raise EngineBuildError(
            f"TensorRT-RTX has no DeformConv, and the model has {len(deformable)} (first: {deformable[0]}); export the "
            f"checkpoint again in native operators: yolact-export CHECKPOINT --deform-conv grid-sample"
        )


def _parse(library: TensorRtLibrary, builder: Any, model: bytes, log: _Log) -> Any:
    register_plugins(library)
    network = create_network(library, builder)
    parser = library.module.OnnxParser(network, library.logger)
    what = f"{library.module.__name__} {library.version} does not accept the model"
    if not parser.parse(model):
        errors = "".join(f"\n  {error}" for error in parser_errors(parser)) or log.last_words()
        raise EngineBuildError(f"{what}:{errors}")
    if log.says(_UINT8.lower()):
        raise EngineBuildError(
            f"{what}: it is quantised to UINT8, which TensorRT would read as INT8, clipping half of the range. "
            f"Quantise to INT8 with zero point 0: yolact-export CHECKPOINT --int8"
        )
    return network


def _require_dtypes(network: Any, manifest_json: str) -> None:
    """Check that the types in the network are those that the manifest states; additional outputs are ignored."""
    stated = Manifest.from_json(manifest_json, "the manifest inside the network").dtypes
    found = [("input", network.get_input(i), stated.input) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    found += [("output", tensor, stated.outputs) for tensor in outputs if tensor.name in RawOutputs._fields]
    for kind, tensor, wanted in found:
        name = getattr(tensor.dtype, "name", "")
        if _DTYPES.get(name) != wanted:
            raise EngineBuildError(
                f'the {kind} "{tensor.name}" is {_DTYPES.get(name, name)}, but the manifest inside the network says '
                f"{wanted}: the runtime would refuse the engine. Export the checkpoint again"
            )


def _add_profile(builder: Any, network: Any, config: Any, max_batch: int) -> None:
    """Add an optimisation profile with the batch sizes of a network with a dynamic batch."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        smallest, usual, largest = (
            tuple(batch if side == -1 else side for side in tuple(tensor.shape)) for batch in (1, 1, max_batch)
        )
        profile.set_shape(tensor.name, smallest, usual, largest)
    config.add_optimization_profile(profile)


def _failure(library: TensorRtLibrary, log: _Log) -> EngineBuildError:
    what = f"{library.module.__name__} {library.version}"
    if log.says(*_OUT_OF_MEMORY):
        return EngineMemoryError(f"{what} ran out of memory while building:{log.last_words()}")
    hint = "; raise --workspace, or omit it" if log.says(_WORKSPACE) else ""
    return EngineBuildError(f"{what} did not build the engine{hint}:{log.last_words()}")


def _facts(library: TensorRtLibrary, gpu: Gpu | None, options: EngineOptions) -> dict[str, str]:
    facts = {
        "target": options.target,
        "library": library.module.__name__,
        "library_version": library.version,
        **machine_facts(),
        "compute_capabilities": described_capabilities(
            library, options, None if gpu is None else gpu.compute_capability
        ),
        "user_allocation": "yes" if takes_all_memory_from_its_caller(library) else "no",
        **options.as_facts(),
    }
    return facts if gpu is None else facts | {"gpu": gpu.name, "cuda_version": gpu.cuda_version}
