"""Stage ``rtx``: does TensorRT-RTX run on this GPU? A row for each question, from "is the plan valid" to whole frames.

Plans of the bundles as they are; the same networks built here for this very GPU, with and without
``REQUIRE_USER_ALLOCATION``; and whole frames with whatever engine loads, beside the CPU's detections where ONNX Runtime
is installed. TensorRT-RTX is used directly, past this project's own refusals: those rest on what its builder says, and
here it is measured.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.gpu.frames import SIZES, frame_options
from yolact_benchmarks.gpu.parts import RTX_PARTS, join_parts
from yolact_benchmarks.gpu.stage_options import Scale, open_device, stage_parser
from yolact_benchmarks.gpu_stages import time_calls, time_replays, time_work
from yolact_plugins.driver import Device, Stream
from yolact_plugins.memory import DeviceBuffer
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.errors import BackendUnavailableError, MissingDependencyError, YolactError
from yolact_runtime.segmenter import Segmenter
from yolact_runtime.tensorrt_library import LogLine, TensorRtLibrary, load_tensorrt

__all__ = ["main"]

_LAST_LINES = 6


def main(arguments: list[str] | None = None) -> int:
    """Entry point; a bundle that fails is a row, and the next one's turn."""
    parser = stage_parser("rtx", __doc__)
    parser.add_argument("bundle", type=Path, nargs="*")
    parser.add_argument("--target", choices=("rtx", "tensorrt"), default="rtx", help="or full TensorRT")
    parser.add_argument("--pack", type=Path, help="where TensorRT-RTX lies in parts, should it not be installed")
    parser.add_argument("--site", type=Path, help="where to unpack it")
    options = parser.parse_args(arguments)
    write = options.rows.write
    try:
        library = _find_library(options.target, options.pack, options.site)
    except YolactError as error:
        write(not_measured=str(error))
        return 0
    with open_device() as device:
        write(library=options.target, version=library.version, gpu=device.name, arch=device.arch)
        said: list[str] = []
        with library.listen(lambda line: _note(said, line)):
            for bundle in options.bundle:
                for plan in sorted(bundle.glob("*.plan")):
                    row = {"bundle": bundle.name, "plan": plan.name}
                    _ask(write, said, row, partial(_load, library, device, plan, options.scale))
        for bundle in options.bundle:
            if any(bundle.glob("*.plan")):
                for height, width in SIZES[:2]:
                    row = {"bundle": bundle.name, "height": height, "width": width}
                    _ask(write, said, row, partial(_whole_frame, bundle, options.target, options.scale))
        with library.listen(lambda line: _note(said, line)):
            for flag in (True, False):
                for model in (path for bundle in options.bundle for path in sorted(bundle.glob("model.*.onnx"))):
                    row = {"bundle": model.parent.name, "built_here": model.name, "REQUIRE_USER_ALLOCATION": flag}
                    _ask(write, said, row, partial(_build, library, device, model, options.scale))
    return 0


def _find_library(target: str, pack: Path | None, site: Path | None) -> TensorRtLibrary:
    """The installed one, else the one that was carried here."""
    try:
        return load_tensorrt(target)
    except (BackendUnavailableError, MissingDependencyError):
        if target != "rtx" or pack is None or site is None or not any(pack.glob(f"*/{RTX_PARTS}-*")):
            raise
    join_parts(pack, RTX_PARTS, site)
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    return load_tensorrt(target)


def _note(said: list[str], line: LogLine) -> None:
    if line.severity != "verbose":
        said.append(f"{line.severity}: {line.text}")


def _ask(
    write: Callable[..., None], said: list[str], row: dict[str, Any], work: Callable[[dict[str, Any]], None]
) -> None:
    """Let `work` fill a row; where it raises, the row says so and how far it came."""
    said.clear()
    try:
        work(row)
    except (YolactError, RuntimeError, TypeError, AttributeError, ValueError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
    write(**row, said=said[-_LAST_LINES:])


def _load(library: TensorRtLibrary, device: Device, plan: Path, scale: Scale, row: dict[str, Any]) -> None:
    content = plan.read_bytes()
    row["bytes"] = len(content)
    runtime = library.module.Runtime(library.logger)
    if hasattr(runtime, "get_engine_validity"):
        row["validity"] = str(runtime.get_engine_validity(content))
    started = time.perf_counter()
    engine = runtime.deserialize_cuda_engine(content)
    row["deserialised"] = engine is not None
    if engine is not None:
        _time_engine(library, device, engine, scale, row)
        row["ready_s"] = time.perf_counter() - started


def _build(library: TensorRtLibrary, device: Device, model: Path, scale: Scale, row: dict[str, Any]) -> None:
    trt = library.module
    builder = trt.Builder(library.logger)
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, library.logger)
    row["parsed"] = parser.parse(model.read_bytes())
    config = builder.create_builder_config()
    if hasattr(config, "set_compute_capability"):
        config.num_compute_capabilities = 1
        row["for_this_gpu"] = config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    if row["REQUIRE_USER_ALLOCATION"]:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    started = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    row["build_s"] = time.perf_counter() - started
    engine = None if plan is None else trt.Runtime(library.logger).deserialize_cuda_engine(plan)
    row["engine"] = engine is not None
    if engine is not None:
        row["bytes"] = plan.nbytes
        _time_engine(library, device, engine, scale, row)


def _time_engine(library: TensorRtLibrary, device: Device, engine: Any, scale: Scale, row: dict[str, Any]) -> None:
    """The network alone, launched as it is and replayed as a graph; its input is zeros."""
    context = engine.create_execution_context()
    row["context"] = context is not None
    if context is None:
        return
    with ExitStack() as stack:
        stream = stack.enter_context(Stream(device))
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            item = np.dtype(library.module.nptype(engine.get_tensor_dtype(name))).itemsize
            buffer = stack.enter_context(DeviceBuffer(device, int(np.prod(engine.get_tensor_shape(name))) * item))
            buffer.fill(0, stream)
            context.set_tensor_address(name, buffer.pointer)

        def run(on: Stream) -> None:
            context.execute_async_v3(on.handle)

        row["network_launched_us"] = float(np.median(time_work(stream, run, scale.of(20))))
        if hasattr(context, "is_stream_capturable"):
            row["capturable"] = bool(context.is_stream_capturable(stream.handle))
        row["network_us"] = time_replays(stream, run, scale.of(50))
        stream.synchronize()


def _whole_frame(bundle: Path, target: str, scale: Scale, row: dict[str, Any]) -> None:
    height, width = row["height"], row["width"]
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    options = frame_options(scale, frame_size=(height, width))
    backend = "tensorrt" if target == "tensorrt" else "tensorrt-rtx"
    with Segmenter.open(bundle, backend, options=options) as segmenter:
        path = segmenter.frame_path
        assert isinstance(path, DevicePath)
        row["call_us"] = float(np.median(time_calls(lambda: segmenter(frame), scale.of(100))))
        slot = path.start(frame)
        row |= {"found": slot.finish(), "graph": path.uses_graphs}
        if path.uses_graphs:
            row["network_us"] = time_replays(slot.stream, slot.enqueue_inference, scale.of(50))
            row["whole_us"] = time_replays(slot.stream, slot.enqueue_all, scale.of(50))
        path.give_back(slot)
        precision = segmenter.manifest.precision
    try:
        with Segmenter.open(bundle, "onnxruntime-cpu", options, precision) as segmenter:
            row["found_on_the_cpu"] = len(segmenter(frame))
    except YolactError as error:
        row["found_on_the_cpu"] = f"not measured: {error}"


if __name__ == "__main__":
    sys.exit(main())
