"""Random frames of any size and settings, every launch of which is executed as machine code and by the host build.

Both start from the same memory. The memory afterwards must be the same in every array of the frame: bit by bit, except
for floats of the kernels that compute exponentials, which may differ in their last bits. An address outside of all
allocations is an error, and so is a misaligned one. The frame continues with the results of the host build.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_benchmarks.measure.scenes import make_mask_iou_network, yolact_manifest
from yolact_benchmarks.studies.instructions.execution import ExecutionError
from yolact_benchmarks.studies.instructions.frame import Kernels, LaunchCounts, MachineRunner, simulated_device
from yolact_runtime.cuda.device_instances import DeviceInstances
from yolact_runtime.mask_rescoring import MaskRescoring
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["RandomFrame", "check_frame", "require_near"]

_MIN_SIDE_RESCORED = 256
# Kernels that compute exponentials, and their relative and absolute tolerances.
_NOT_EXACT = ("candidates_", "mask_soft", "mask_iou")
_RELATIVE, _ABSOLUTE = 2e-5, 1e-6
_IN_ANY_ORDER = ("fast_nms_class", "kept_key")


@dataclass(frozen=True)
class RandomFrame:
    """Settings of a random frame, derived from a seed.

    Attributes:
        seed: Seed of the network's outputs and of the pixels.
        height: Height of the frame, pixels.
        width: Width of the frame, pixels.
        side: Side of the network's square input, pixels.
        classes: Number of classes, without the background.
        prototypes: Number K of prototypes.
        objects: Number of priors for which one class is certain.
        noise: Roughness of the masks: 0 is smooth; from 1 on, pixels are independent of each other.
        dtype: Dtype of the network's input and outputs.
        multiprocessors: Number of multiprocessors of the GPU that is simulated.
        nms: Name of the NMS method.
        min_confidence: Score threshold: instances at or below it are left out.
        crop_margin: Margin by which boxes grow before masks are cropped; infinite for the whole frame.
        max_instances: Maximum number of instances.
        rescored: Whether to use the mask-IoU network of YOLACT++.
    """

    seed: int
    height: int
    width: int
    side: int
    classes: int
    prototypes: int
    objects: int
    noise: float
    dtype: str
    multiprocessors: int
    nms: str
    min_confidence: float
    crop_margin: float
    max_instances: int
    rescored: bool

    @classmethod
    def of(cls, seed: int) -> RandomFrame:
        """Draw the settings of a frame from a seed."""
        random = np.random.default_rng(seed)
        rescored = bool(random.random() < 0.1)
        height, width = (int(random.choice([random.integers(1, 40), random.integers(1, 330)])) for _ in "hw")
        return cls(
            seed=seed,
            height=height,
            width=width,
            side=_MIN_SIDE_RESCORED if rescored else int(random.integers(9, 90)),
            classes=int(random.choice([1, 2, 3, int(random.integers(4, 40)), 80, 81])),
            prototypes=int(random.choice([1, 2, 7, 8, 31, 32, 33, int(random.integers(1, 70))])),
            objects=int(random.choice([0, 1, 2, int(random.integers(3, 30)), int(random.integers(30, 150))])),
            noise=float(random.choice([0, 0, 0.3, 2])),
            dtype=str(random.choice(["float32", "float16"])),
            multiprocessors=int(random.choice([1, 2, 5, 16])),
            nms=str(random.choice(["fast", "fast", "cross-class"])),
            min_confidence=float(random.choice([0, 0.05, 0.3])),
            crop_margin=float(random.choice([0, 0, 0.2, np.inf])),
            max_instances=4 if rescored else int(random.choice([1, 5, 31, 100, 200])),
            rescored=rescored,
        )

    def outputs(self, manifest: Manifest) -> dict[str, npt.NDArray[Any]]:
        """Make outputs that a network could return, with values that are hard on kernels."""
        random = np.random.default_rng(self.seed + 1)
        priors, side = manifest.priors.num_priors, 2 * manifest.priors.feature_sizes[0][0]
        logit = random.normal(0, 1, (priors, self.classes + 1))
        logit[:, 0] += random.choice([0, 6, 12])
        chosen = random.integers(0, priors, self.objects)
        logit[chosen, random.integers(1, self.classes + 1, self.objects)] = 12 + random.uniform(0, 5, self.objects)
        if self.objects > 3:
            # Ties: the same logits for several priors.
            logit[chosen[: self.objects // 3]] = logit[chosen[0]]
        regression = random.normal(0, random.choice([0.3, 2]), (priors, 4))
        regression[chosen[::5], 2:] = random.choice([-30, 0, 12])
        coefficient = np.tanh(random.normal(0, 1, (priors, self.prototypes)))
        # Probabilities of one half, exactly and nearly.
        coefficient[chosen[::4]] *= random.choice([0, -0.0, 1e-7, 1e-4])
        row, column = np.meshgrid(*[np.linspace(0, 1, side)] * 2, indexing="ij")
        phase = random.uniform(0, 6, (self.prototypes, 4, 1, 1))
        prototype = np.sin(phase[:, 0] + 9 * row * phase[:, 1]) * np.cos(phase[:, 2] + 7 * column * phase[:, 3])
        prototype = np.maximum(prototype + self.noise * random.normal(0, 1, prototype.shape), random.choice([0, -9]))
        named = zip(
            ("box_regression", "class_logit", "mask_coefficient", "prototype"),
            (regression, logit, coefficient, prototype),
            strict=True,
        )
        return {name: array[None].astype(self.dtype) for name, array in named}


def check_frame(frame: RandomFrame, kernels: Kernels) -> int:
    """Compare every launch of the frame, of its id map and of its dense masks.

    Returns:
        Number of launches.

    Raises:
        ExecutionError: The machine code does something that is not allowed, or gives other results than the host build.
    """
    manifest = yolact_manifest(frame.side, frame.classes)
    outputs = frame.outputs(manifest)
    pixels = np.random.default_rng(frame.seed).integers(0, 256, (frame.height, frame.width, 3), np.uint8)
    options = SegmenterOptions(
        nms=frame.nms,
        min_confidence=frame.min_confidence,
        crop_margin=frame.crop_margin,
        max_instances=frame.max_instances,
        mask_rescoring=frame.rescored,
        frames_in_flight=1,
    )
    rescoring = None
    if frame.rescored:
        rescoring = MaskRescoring.of_network(make_mask_iou_network(frame.classes), manifest)
    with simulated_device(frame.multiprocessors) as device:
        network = ReplayNetwork(device, manifest, outputs, frame.dtype)
        with Segmenter(manifest, network, rescoring, options) as segmenter:
            path: Any = segmenter.frame_path
            with _compared(kernels, device, path) as launches:
                slot = path.start(pixels)
                with DeviceInstances(path, slot, slot.finish()) as instances:
                    instances.id_map()
                    instances.dense()
    return len(launches)


class _ComparingRunner:
    """Runner that executes each launch twice from the same memory, and compares the results."""

    def __init__(self, machine: MachineRunner, host: Any, path: Any) -> None:
        self._machine, self._host, self._path = machine, host, path

    def run_packed(
        self, name: str, grid: Sequence[int], block: Sequence[int], values: Sequence[npt.NDArray[np.generic]]
    ) -> None:
        memory = [(each.pointer, _bytes_at(each.pointer, each.size)) for each in self._machine.live()]
        before = [content.copy() for _, content in memory]
        self._machine.run_packed(name, grid, block, values)
        found = [content.copy() for _, content in memory]
        for (_, content), kept in zip(memory, before, strict=True):
            content[:] = kept
        self._host.run_packed(name, grid, block, values)
        for (pointer, content), made in zip(memory, found, strict=True):
            if not np.array_equal(content, made):
                self._explain(name, pointer, content, made)

    def _explain(self, name: str, pointer: int, content: npt.NDArray[np.uint8], made: npt.NDArray[np.uint8]) -> None:
        arrays = {key: array for slot in self._path._slots for key, array in slot.memory.arrays.items()}
        differing = np.flatnonzero(content != made)
        for key, array in arrays.items():
            first = array.pointer - pointer
            inside = differing[(differing >= first) & (differing < first + array.num_bytes)]
            if key != "results" and len(inside):
                shapes = [each[first : first + array.num_bytes].view(array.dtype) for each in (made, content)]
                require_near(name, key, *shapes)
                differing = np.setdiff1d(differing, inside)
        if len(differing):
            raise ExecutionError(f"{name}: {len(differing)} bytes differ from {hex(pointer)} + {differing[0]} on")


def require_near(name: str, array: str, found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Compare an array that a kernel wrote.

    Raises:
        ExecutionError: A value differs; if the kernel computes exponentials, by more than a few last bits.
    """
    if (name, array) == _IN_ANY_ORDER:
        found, expected = np.sort(found), np.sort(expected)
    if found.dtype.kind == "f" and name.startswith(_NOT_EXACT):
        with np.errstate(invalid="ignore"):
            near = np.isclose(found, expected, _RELATIVE, _ABSOLUTE, equal_nan=True)
    else:
        near = found.view(np.uint8).reshape(-1, found.itemsize) == expected.view(np.uint8).reshape(-1, found.itemsize)
        near = near.all(axis=1)
    if not near.all():
        at = int(np.flatnonzero(~near)[0])
        raise ExecutionError(
            f"{name} leaves {found[at]} in {array}[{at}], the host build {expected[at]}; {int((~near).sum())} differ"
        )


def _bytes_at(pointer: int, size: int) -> npt.NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))


@contextmanager
def _compared(kernels: Kernels, device: Any, path: Any) -> Iterator[list[LaunchCounts]]:
    from support.kernel_host import HostKernels  # type: ignore[import-not-found, unused-ignore]

    launches: list[LaunchCounts] = []
    machine = MachineRunner(kernels, device.driver, launches)
    host_build = HostKernels.__dict__["of"]
    of_family = HostKernels.of
    HostKernels.of = staticmethod(lambda family: _ComparingRunner(machine, of_family(family), path))
    try:
        yield launches
    finally:
        HostKernels.of = host_build
