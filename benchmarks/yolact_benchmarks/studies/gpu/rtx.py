"""Stage ``rtx``: does TensorRT-RTX run on this GPU? A row for each question, from valid plans to whole frames.

The bundles' plans are tried as they are, and whole frames with them, compared with the CPU's detections if ONNX Runtime
is installed. Then networks are built for this very GPU: with and without ``REQUIRE_USER_ALLOCATION``, and INT8 with
depthwise convolutions as they are and in groups. This bypasses the project's checks, which rely on the builder's list
of GPUs: here the support is measured. Each question has a process of its own: a crash becomes a row.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.measure.gpu_stages import time_calls, time_replays, time_work
from yolact_benchmarks.studies.gpu.frames import SIZES, frame_options
from yolact_benchmarks.studies.gpu.parts import RTX_PARTS, join_parts
from yolact_benchmarks.studies.gpu.stage_options import NOT_MEASURED, Scale, open_device, stage_parser
from yolact_calibration.shapes.scene import SceneOptions, make_scene
from yolact_export.engine.depthwise import group_depthwise
from yolact_plugins.driver.driver import Device, Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_runtime.backends.tensorrt_context import configure_contexts
from yolact_runtime.backends.tensorrt_library import LogLine, TensorRtLibrary, load_tensorrt
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.errors import BackendError, BackendUnavailableError, MissingDependencyError, YolactError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.segmenter import Segmenter

__all__ = ["main"]

_LAST_LINES = 6
_USER_ALLOCATION = "REQUIRE_USER_ALLOCATION"
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Ask all questions, write a row for each, including failures, and return the exit status."""
    parser = stage_parser("rtx", __doc__)
    parser.add_argument("bundle", type=Path, nargs="*")
    parser.add_argument("--pack", type=Path, help="packed TensorRT-RTX, if it is not installed")
    parser.add_argument("--work", type=Path, required=True, help="folder for unpacked and copied files")
    options = parser.parse_args(arguments)
    write, scale, bundles = options.rows.write, options.scale, options.bundle
    try:
        library = _find_library(options.pack, options.work / "site")
    except YolactError as error:
        write(not_measured=f"{error}. On a machine without a network, use --pack")
        return NOT_MEASURED
    write(version=library.version, builds_for=library.compute_capabilities)
    if not bundles:
        write(
            not_measured="there is no bundle to measure: name one with --bundle, or carry the second half of the pack"
        )
        return NOT_MEASURED
    for plan in (path for bundle in bundles for path in sorted(bundle.glob("*.plan"))):
        row: Row = {"bundle": plan.parent.name, "plan": plan.name}
        _ask(write, library, row, partial(_load, library, plan, scale))
    for bundle in (bundle for bundle in bundles if any(bundle.glob("*.plan"))):
        for height, width in SIZES[:2]:
            row = {"bundle": bundle.name, "height": scale.of(height, 64), "width": scale.of(width, 64)}
            _ask(write, library, row, partial(_whole_frame, bundle, options.work / "admitted" / bundle.name, scale))
    for row, model in _builds(bundles):
        _ask(write, library, row, partial(_build, library, model, scale))
    return 0


def _find_library(pack: Path | None, site: Path) -> TensorRtLibrary:
    """Load the installed library, or else the one in the pack."""
    try:
        return load_tensorrt("rtx")
    except (BackendUnavailableError, MissingDependencyError):
        if pack is None or not any(pack.glob(f"*/{RTX_PARTS}-*")):
            raise
    join_parts(pack, RTX_PARTS, site)
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    return load_tensorrt("rtx")


def _note(said: list[str], line: LogLine) -> None:
    if line.severity != "verbose":
        said.append(f"{line.severity}: {line.text}")


def _ask(write: Callable[..., None], library: TensorRtLibrary, row: Row, work: Callable[[Device, Row], None]) -> None:
    """Let `work` fill a row in a process of its own; if it raises, the row has the error and the results so far."""

    def answer() -> None:
        said: list[str] = []
        with library.listen(lambda line: _note(said, line)):
            try:
                with open_device() as device:
                    work(device, row)
            except Exception as error:
                # Any error is an answer to the question.
                row["error"] = f"{type(error).__name__}: {error}"
        write(**row, said=said[-_LAST_LINES:])

    if ended := in_a_process(answer):
        write(**row, error=ended)


def in_a_process(work: Callable[[], None]) -> str:
    """Run a function in a forked process, which CUDA allows as long as this process has not used it.

    The result describes how the process failed; it is empty if it succeeded.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            sys.stdout.flush()
            status = 0
        finally:
            # Without the interpreter's exit handlers, which the parent will run.
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"the process ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return "" if os.WEXITSTATUS(status) == 0 else f"the process ended with exit status {os.WEXITSTATUS(status)}"


def _admit(bundle: Path, copy: Path, device: Device) -> Path:
    """Copy a bundle and mark its engines as built for this GPU, so that the runtime does not refuse them."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bundle, copy)
    # Engines that are writable by others are refused, and the transfer may have changed the mode bits.
    for path in copy.iterdir():
        path.chmod(0o600)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    for entry in manifest["artefacts"].values():
        if entry["role"] == "engine":
            entry["build"]["compute_capabilities"] = device.driver.gpu.compute_capability
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return copy


def _builds(bundles: Sequence[Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield what to build here, the most important first: as the project builds it, then the alternatives."""
    models = [path for bundle in bundles for path in sorted(bundle.glob("model.*.onnx"))]
    for path in models:
        row = {"bundle": path.parent.name, "built_here": path.name, _USER_ALLOCATION: True}
        content = path.read_bytes()
        grouped, names = group_depthwise(content)
        if names:
            yield row | {"depthwise": "in groups of four"}, grouped
        yield row | {"depthwise": "as it is"}, content
    for path in models[:1]:
        yield {"bundle": path.parent.name, "built_here": path.name, _USER_ALLOCATION: False}, path.read_bytes()


def _load(library: TensorRtLibrary, plan: Path, scale: Scale, device: Device, row: Row) -> None:
    content = plan.read_bytes()
    row["bytes"] = len(content)
    runtime = library.module.Runtime(library.logger)
    row["validity"] = str(runtime.get_engine_validity(content))
    started = time.perf_counter()
    engine = runtime.deserialize_cuda_engine(content)
    row["deserialised"] = engine is not None
    if engine is not None:
        _time_engine(library, device, engine, scale, row)
        row["ready_s"] = time.perf_counter() - started


def _build(library: TensorRtLibrary, model: bytes, scale: Scale, device: Device, row: Row) -> None:
    trt = library.module
    builder = trt.Builder(library.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, library.logger)
    row["parsed"] = parser.parse(model)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    row["for_this_gpu"] = config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    if row[_USER_ALLOCATION]:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    started = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    row["build_s"] = time.perf_counter() - started
    engine = None if plan is None else trt.Runtime(library.logger).deserialize_cuda_engine(plan)
    row["engine"] = engine is not None
    if engine is not None:
        row["bytes"] = plan.nbytes
        _time_engine(library, device, engine, scale, row)


def _time_engine(library: TensorRtLibrary, device: Device, engine: Any, scale: Scale, row: Row) -> None:
    """Time the network alone, launched directly and replayed as a graph; its input is zeros."""
    config = engine.create_runtime_config()
    # Without the flag, the context allocates its own memory; whether that works is the question.
    managed = row.get(_USER_ALLOCATION, True)
    if managed:
        configure_contexts(library.module, config)
    context = engine.create_execution_context(config)
    row["context"] = context is not None
    if context is None:
        return
    with ExitStack() as stack:
        stream = stack.enter_context(Stream(device))
        if managed:
            memory = stack.enter_context(DeviceBuffer(device, max(1, int(engine.device_memory_size_v2))))
            context.set_device_memory(memory.pointer, memory.num_bytes)
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            item = np.dtype(library.module.nptype(engine.get_tensor_dtype(name))).itemsize
            buffer = stack.enter_context(DeviceBuffer(device, int(np.prod(engine.get_tensor_shape(name))) * item))
            buffer.fill(0, stream)
            context.set_tensor_address(name, buffer.pointer)
        _time_context(context, stream, scale, row)
        # The context must go before the memory that it uses.
        del context


def _time_context(context: Any, stream: Stream, scale: Scale, row: Row) -> None:
    def run(on: Stream) -> None:
        if not context.execute_async_v3(on.handle):
            raise BackendError("TensorRT-RTX did not run the engine")

    row["network_launched_us"] = float(np.median(time_work(stream, run, scale.of(20))))
    row["capturable"] = bool(context.is_stream_capturable(stream.handle))
    row["network_us"] = time_replays(stream, run, scale.of(50))
    stream.synchronize()


def _whole_frame(bundle: Path, copy: Path, scale: Scale, device: Device, row: Row) -> None:
    """Time whole frames, and compare the detections in an image of shapes with those of the CPU."""
    admitted, (height, width) = _admit(bundle, copy, device), (row["height"], row["width"])
    frame = make_scene(3, SceneOptions(height, width)).image
    options = frame_options(scale, frame_size=(height, width))
    with Segmenter.open(admitted, "tensorrt-rtx", options=options) as segmenter:
        path = segmenter.frame_path
        assert isinstance(path, DevicePath)
        row["call_us"] = float(np.median(time_calls(lambda: segmenter(frame), scale.of(100))))
        found = segmenter(frame)
        slot = path.start(frame)
        row |= {"found": slot.finish(), "graph": path.uses_graphs}
        if path.uses_graphs:
            row["network_us"] = time_replays(slot.stream, slot.enqueue_inference, scale.of(50))
            row["whole_us"] = time_replays(slot.stream, slot.enqueue_all, scale.of(50))
        path.give_back(slot)
        precision = segmenter.manifest.precision
    try:
        with Segmenter.open(admitted, "onnxruntime-cpu", options, precision) as segmenter:
            expected = segmenter(frame)
    except YolactError as error:
        row["on_the_cpu"] = {"not_measured": str(error)}
        return
    row["on_the_cpu"] = {"found": len(expected), "found_by_both": found_by_both(found, expected)}


def found_by_both(found: Instances, expected: Instances) -> int:
    """Count the expected instances that are found: same class, and masks that share nine tenths of their union."""
    masks, others = found.mask.dense(), expected.mask.dense()
    count = 0
    for mask, class_id in zip(others, expected.class_id, strict=True):
        shared, either = (masks & mask).sum(axis=(1, 2)), (masks | mask).sum(axis=(1, 2))
        count += bool(((shared >= 0.9 * np.maximum(either, 1)) & (found.class_id == class_id)).any())
    return count


if __name__ == "__main__":
    sys.exit(main())
