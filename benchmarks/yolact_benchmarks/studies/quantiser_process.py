"""A quantiser in a process of its own, so that its time and memory are measured alone.

The child may run in another Python, whose packages are incompatible with this environment. Of this project, it then
only has this package, which is why imports stay inside the functions that need them.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from yolact_benchmarks.machine.memory import peak_extra_bytes, peak_resident_bytes
from yolact_plugins.staging import scratch_folder

__all__ = ["Request", "Work", "child_main", "run_quantiser"]

# -I keeps the current folder and the environment out; of this project, the other Python only gets this package.
_BOOT = """
import importlib.util, json, sys
folder, path, request = sys.argv[1:]
sys.path[:0] = json.loads(path)
spec = importlib.util.spec_from_file_location("yolact_benchmarks", folder + "/__init__.py")
spec.submodule_search_locations = [folder]
package = importlib.util.module_from_spec(spec)
sys.modules["yolact_benchmarks"] = package
spec.loader.exec_module(package)
from yolact_benchmarks.studies.quantiser_process import child_main
child_main(request)
"""
_SECONDS_BETWEEN_LOOKS = 0.1
_TIME_LIMIT_S = 1800.0
_PACKAGES = {
    "ours": ("onnxruntime", "onnx", "numpy"),
    "onnxruntime": ("onnxruntime", "onnx", "numpy"),
    "modelopt": ("nvidia-modelopt", "onnxruntime", "onnx", "torch", "numpy"),
}


@dataclasses.dataclass(frozen=True)
class Request:
    """Task of the child.

    Attributes:
        tool: Name of the tool: ``"ours"``, ``"onnxruntime"`` or ``"modelopt"``.
        ranges: Method that chooses the ranges, by the tool's name for it.
        model: Path of the float network, in a writable folder.
        output: Path of the file to write.
        int8: Names of the convolutions to quantise to INT8; empty leaves the choice to the tool.
        single: Names of the other convolutions.
        images: Arguments of :func:`~yolact_calibration.quantisation.calibration_images.find_calibration_images`, for
            ours.
        most: Maximum number of these images; None takes all.
        held_back: Number of these images that are not used for calibration.
        inputs: Path of an ``.npy`` file with the same images as inputs of the network, ``(N, 3, H, W)``, for the
            others.
        options: Further options of the tool; an ONNX Runtime type is given by its name.
    """

    tool: str
    ranges: str
    model: str
    output: str
    int8: tuple[str, ...]
    single: tuple[str, ...]
    images: tuple[str, ...]
    most: int | None
    held_back: int
    inputs: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Work:
    """Cost of a quantisation.

    Attributes:
        seconds: Wall-clock time from the images to the written file; libraries were imported before.
        cpu_seconds: CPU time of the same, which other load on the machine hardly affects.
        extra_peak_mb: Peak memory above that of the imported libraries, MB.
        peak_mb: Peak memory of the process, including the libraries, MB.
        packages: Versions of the packages involved.
        error: First line of the error message if no file was written, else None.
    """

    seconds: float | None = None
    cpu_seconds: float | None = None
    extra_peak_mb: int | None = None
    peak_mb: int | None = None
    packages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    error: str | None = None


def run_quantiser(request: Request, python: str = sys.executable, memory_limit_mb: int | None = None) -> Work:
    """Run a quantiser in a fresh process and return its cost.

    Args:
        request: Task of the process.
        python: Interpreter that has the tool.
        memory_limit_mb: Resident memory at which the process is killed, MB; None sets no limit.
    """
    with scratch_folder("quantiser") as folder:
        answer, talk = Path(folder, "answer.json"), Path(folder, "talk")
        asked = Path(folder, "request.json")
        asked.write_text(json.dumps({**dataclasses.asdict(request), "answer": str(answer)}))
        package = Path(__file__).parents[1]
        # The peer's Python keeps its own path: ours has packages that were built for another interpreter.
        path = sys.path if python == sys.executable else []
        with talk.open("wb") as log:
            child = subprocess.Popen(
                [python, "-I", "-c", _BOOT, str(package), json.dumps(path), str(asked)], stdout=log, stderr=log
            )
            ended = _wait(child, memory_limit_mb)
        if ended is not None:
            return Work(error=ended)
        if not answer.exists():
            words = talk.read_text(errors="replace").strip().splitlines()
            return Work(error=f"exit status {child.returncode}: {words[-1] if words else 'no message'}")
        return Work(**json.loads(answer.read_text()))


def _wait(child: subprocess.Popen[bytes], memory_limit_mb: int | None) -> str | None:
    """Wait for the child; return the reason if it had to be killed, else None."""
    deadline = time.monotonic() + _TIME_LIMIT_S
    try:
        while child.poll() is None:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            if memory_limit_mb is not None and _resident_mb(child.pid) > memory_limit_mb:
                return f"ended: it took more than the {memory_limit_mb} MB that were allowed"
            if time.monotonic() > deadline:
                return f"ended: it took more than {_TIME_LIMIT_S:.0f} s"
        return None
    finally:
        child.kill()
        child.wait()


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def child_main(request_file: str) -> None:
    """Execute a request in the child, and write its cost to the answer file."""
    document = json.loads(Path(request_file).read_text())
    answer = Path(document.pop("answer"))
    request = Request(**document)
    answer.write_text(json.dumps(dataclasses.asdict(_measured(request))))


def _measured(request: Request) -> Work:
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES[request.tool]}
    seconds = cpu_seconds = 0.0

    def work() -> None:
        nonlocal seconds, cpu_seconds
        started, cpu_started = time.perf_counter(), _cpu_seconds()
        run()
        seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - cpu_started

    try:
        run = _TOOLS[request.tool](request)
        extra = peak_extra_bytes(work)
    except Exception as error:  # any error of a tool is a result of the study
        lines = str(error).strip().splitlines() or [""]
        return Work(packages=packages, error=f"{type(error).__name__}: {lines[0]}"[:300])
    peak = peak_resident_bytes()
    return Work(round(seconds, 2), round(cpu_seconds, 2), round(extra / 1e6), round(peak / 1e6), packages)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _ours(request: Request) -> Callable[[], None]:
    import onnx

    from yolact_calibration.quantisation.calibration_cache import calibrate
    from yolact_calibration.quantisation.calibration_images import find_calibration_images
    from yolact_calibration.quantisation.int8 import choose_ranges
    from yolact_calibration.quantisation.network_graph import NetworkGraph
    from yolact_calibration.quantisation.qdq import quantise
    from yolact_calibration.quantisation.qdq_placement import Dialect, quantisable_tensors
    from yolact_calibration.quantisation.ranges import RangeMethod
    from yolact_export.graph.file import write_model
    from yolact_runtime.model.manifest import METADATA_KEY, Manifest

    dialect, method = Dialect(request.options["dialect"]), RangeMethod(request.ranges)

    def run() -> None:
        images = find_calibration_images(request.images, most=request.most)
        if request.held_back:
            images, _ = images.hold_back(request.held_back)
        model = onnx.load(request.model)
        manifest = {prop.key: prop.value for prop in model.metadata_props}[METADATA_KEY]
        spec = Manifest.from_json(manifest, request.model).input
        tensors = quantisable_tensors(NetworkGraph(model))
        with scratch_folder("quantiser") as cache:
            seen = calibrate(model, tensors, images, spec, num_threads=0, cache=Path(cache))
        ranges = choose_ranges(seen.histograms, method, dialect)
        write_model(quantise(model, ranges, request.int8, dialect), Path(request.output))

    return run


def _onnxruntime(request: Request) -> Callable[[], None]:
    import numpy as np
    import onnx  # noqa: F401  # imported before the measurement begins, like the others' libraries
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The images, one at a time."""

        def __init__(self) -> None:
            self._left = iter(np.load(request.inputs, mmap_mode="r"))

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._left, None)
            return None if image is None else {"image": np.ascontiguousarray(image[None])}

    def run() -> None:
        options = {k: QuantType[v] if k.endswith("_type") else v for k, v in request.options.items()}
        chosen = {"op_types_to_quantize": ["Conv"], "nodes_to_quantize": list(request.int8)} if request.int8 else {}
        quantize_static(
            request.model,
            request.output,
            Reader(),
            calibrate_method=CalibrationMethod[request.ranges],
            **chosen,
            **options,
        )

    return run


def _modelopt(request: Request) -> Callable[[], None]:
    import numpy as np

    quantization = importlib.import_module("modelopt.onnx.quantization")

    def run() -> None:
        quantization.quantize(
            request.model,
            quantize_mode="int8",
            calibration_data=np.load(request.inputs),
            calibration_method=request.ranges,
            calibration_eps=["cpu"],
            nodes_to_exclude=list(request.single),
            high_precision_dtype="fp32",
            output_path=request.output,
            log_level="ERROR",
            **request.options,
        )

    return run


_TOOLS: dict[str, Callable[[Request], Callable[[], None]]] = {
    "ours": _ours,
    "onnxruntime": _onnxruntime,
    "modelopt": _modelopt,
}
