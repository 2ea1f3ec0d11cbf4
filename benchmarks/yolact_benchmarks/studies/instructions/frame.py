"""A frame on the simulated GPU, whose kernels are machine code that is executed and counted."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_benchmarks.measure.scenes import make_mask_iou_network, make_outputs, yolact_manifest
from yolact_benchmarks.studies.instructions.execution import Counts, ExecutionError, execute
from yolact_benchmarks.studies.instructions.machine_code import MachineCode, read_kernels
from yolact_benchmarks.studies.instructions.table import GPUS
from yolact_plugins.compile.compiler import compile_cubin
from yolact_plugins.compile.sources import families, read_source
from yolact_plugins.driver.cubin import Parameter
from yolact_plugins.driver.driver import Device
from yolact_runtime.cuda.device_instances import DeviceInstances
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = [
    "SCENES",
    "Kernels",
    "LaunchCounts",
    "MachineRunner",
    "Scene",
    "count_frame",
    "executed",
    "require_same",
    "simulated_device",
    "tree",
]

HEIGHT, WIDTH = 1080, 1920
_OF_OUTLINES = 1e-3


@dataclass(frozen=True)
class Scene:
    """Objects in a frame of 1080p.

    Attributes:
        count: Number of objects.
        area: Mean area of their boxes, as a fraction of the frame.
        min_confidence: Score threshold of the segmenter. With its default of 0, the list of instances is always full.
    """

    count: int
    area: float
    min_confidence: float = 0.3

    def __str__(self) -> str:
        return f"{self.count} of {self.area:.1%}" + ("" if self.min_confidence else ", min_confidence 0")


SCENES = (Scene(1, 0.025), Scene(10, 0.025), Scene(100, 0.025), Scene(1, 0.45), Scene(20, 0.3), Scene(10, 0.025, 0.0))


@dataclass
class LaunchCounts:
    """Counts of one launch of a frame."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    counts: Counts


@dataclass
class Kernels:
    """All kernels of the tree, for one architecture.

    Attributes:
        arch: Architecture, such as ``"sm_90"``.
        codes: Machine code by the name of the kernel.
        parameters: Parameters by the name of the kernel.
    """

    arch: str
    codes: dict[str, MachineCode] = field(default_factory=dict)
    parameters: dict[str, tuple[Parameter, ...]] = field(default_factory=dict)

    @classmethod
    def compiled(cls, arch: str, disassembler: Path) -> Kernels:
        """Compile with the options of the product, so that all instructions are those that run in production."""
        kernels = cls(arch)
        for family in families():
            cubin = compile_cubin(read_source(family), arch)
            kernels.codes |= read_kernels(cubin.code, disassembler)
            kernels.parameters |= cubin.parameters
        return kernels


class MachineRunner:
    """Runner of machine code that replaces a family's host build."""

    def __init__(self, kernels: Kernels, driver: Any, launches: list[LaunchCounts]) -> None:
        self._kernels, self._driver, self._launches = kernels, driver, launches

    def run_packed(
        self, name: str, grid: Sequence[int], block: Sequence[int], values: Sequence[npt.NDArray[np.generic]]
    ) -> None:
        """Run a kernel to its end, and append its counts to the launches."""
        parameters = self._kernels.parameters[name]
        arguments = [(each.offset, value.tobytes()) for each, value in zip(parameters, values, strict=True)]
        memory = [(each.pointer, each.size) for each in self.live()]
        counts = execute(self._kernels.codes[name], tuple(grid), tuple(block), arguments, memory)
        self._launches.append(LaunchCounts(name, tuple(grid), tuple(block), counts))

    def live(self) -> list[Any]:
        """Return the allocations that a kernel may access: those of the GPU, without those that are only pinned."""
        return [each for each in self._driver.library.memory.live() if each.kind != "pinned"]


def tree() -> Path:
    """Return the path of the checkout whose kernels and runtime are imported."""
    return Path(inspect.getfile(read_source)).parents[3]


def count_frame(
    scene: Scene, kernels: Kernels, dtype: str = "float32", **options: Any
) -> tuple[dict[str, int], list[LaunchCounts]]:
    """Run a frame and count its launches, after a first one that lets the frame's memory grow to its final size.

    Args:
        scene: Objects in the frame.
        kernels: Kernels to execute.
        dtype: Dtype of the network's outputs and of its input.
        options: Further options of the segmenter. With ``mask_rescoring`` the frame is one of YOLACT++, and an id map
            and dense masks are made as well, as for results that stay on the GPU.

    Returns:
        Numbers of detections (``found``) and of runs (``runs``), and the launches in order.

    Raises:
        ExecutionError: The machine code uses an unknown feature, or gives other results than the host build of its
            sources.
    """
    manifest = yolact_manifest()
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    made = make_outputs(scene.count, scene.area, scene.count, manifest)
    outputs = {name: array.astype(dtype) for name, array in made.items()}
    chosen = SegmenterOptions(
        **{"min_confidence": scene.min_confidence, "max_instances": 100, "mask_rescoring": False, **options},
        frames_in_flight=1,
        frame_size=(HEIGHT, WIDTH),
    )
    rescoring = None
    if chosen.mask_rescoring:
        from yolact_runtime.mask_rescoring import MaskRescoring  # earlier checkouts do not have this module

        rescoring = MaskRescoring.of_network(make_mask_iou_network(len(manifest.class_names)), manifest)
    launches: list[LaunchCounts] = []
    with simulated_device(GPUS[kernels.arch][0]) as device:
        network = ReplayNetwork(device, manifest, outputs, dtype)
        with Segmenter(manifest, network, rescoring, chosen) as segmenter:
            path: Any = segmenter.frame_path
            expected = _finished(path, frame)
            with executed(kernels, device, launches):
                found = _finished(path, frame)
    require_same(found, expected)
    return {"found": int(found["count"]), "runs": len(found["run_start"])}, launches


@contextmanager
def simulated_device(num_multiprocessors: int) -> Iterator[Device]:
    """Open the simulated GPU of the tests, with the number of multiprocessors of the GPU that it stands for."""
    if (folder := str(tree() / "tests")) not in sys.path:
        sys.path.insert(0, folder)
    from support.host_gpu import HostDriver  # type: ignore[import-not-found, unused-ignore]

    with Device(driver=HostDriver()) as device:
        device.num_multiprocessors = num_multiprocessors
        yield device


def _finished(path: Any, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    slot = path.start(frame)
    results = _results(slot, slot.finish())
    if path.model.rescore:
        with DeviceInstances(path, slot, int(results["count"])) as instances:
            results |= {"id_map": instances.id_map().numpy(slot.stream), "dense": instances.dense().numpy(slot.stream)}
    else:
        path.give_back(slot)
    return results


@contextmanager
def executed(kernels: Kernels, device: Device, launches: list[LaunchCounts]) -> Iterator[None]:
    """Let the simulated GPU run machine code inside the block, and append the counts of each launch to `launches`."""
    from support.kernel_host import HostKernels  # type: ignore[import-not-found, unused-ignore]

    runner = MachineRunner(kernels, device.driver, launches)
    host_build = HostKernels.__dict__["of"]
    HostKernels.of = staticmethod(lambda _family: runner)
    try:
        yield
    finally:
        HostKernels.of = host_build


def _results(slot: Any, count: int) -> dict[str, npt.NDArray[Any]]:
    """Return the results that the host reads of a frame, cut off after the last detection and the last run."""
    results = slot.memory.results
    num_runs = int(results["run_offset"][count])
    lengths = {"offset": count + 1, "run_offset": count + 1, "run_start": num_runs, "run_end": num_runs}
    kept = {name: value[: lengths.get(name, count)] for name, value in results.items() if name != "status"}
    return {"count": np.array(count), **{name: value.copy() for name, value in kept.items()}}


def require_same(found: dict[str, npt.NDArray[Any]], expected: dict[str, npt.NDArray[Any]]) -> None:
    """Compare the results of a frame.

    Raises:
        ExecutionError: Something differs: floats by more than a few last bits, the sums of runs by more than a
            thousandth (the last bit of an exponential moves pixels of an outline), or anything else at all.
    """
    for name, value in expected.items():
        if name in {"id_map", "dense"}:
            differ = bool(np.count_nonzero(found[name] != value) > _OF_OUTLINES * value.size)
        elif name.startswith("run_"):
            differ = abs(found[name].astype(np.int64).sum() / max(value.astype(np.int64).sum(), 1) - 1) > _OF_OUTLINES
        elif value.dtype.kind == "f":
            differ = found[name].shape != value.shape or not np.allclose(found[name], value, rtol=1e-5, atol=1e-6)
        else:
            differ = not np.array_equal(found[name], value)
        if differ:
            raise ExecutionError(f"{name} of the machine code is not that of the host build: {found[name]}, {value}")
