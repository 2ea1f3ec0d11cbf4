"""Every call of the driver fails once, or from then on for ever: what is left, what is said, and that it ends."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.device_network import HostNetwork, replay, tensor_specs
from support.host_gpu import HostDriver
from support.properties import example_count
from support.scenes import DEFAULT_PROTOTYPE, Thing, raw_outputs, small_manifest
from support.tools import needs_tool
from yolact_plugins.driver.driver import Device
from yolact_plugins.errors import CudaContextLostError, CudaError
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.errors import YolactError

pytestmark = [needs_tool("g++"), pytest.mark.usefixtures("kernel_cache")]

FRAME = np.zeros((12, 16, 3), np.uint8)
MANIFEST = small_manifest()
OUTPUTS = raw_outputs(MANIFEST, [Thing((0.25, 0.25, 0.75, 0.75))])
ILLEGAL_ADDRESS, NOT_SUPPORTED = 700, 801
# A resource whose own release the driver refuses is lost: nobody can give it back.
RELEASES = ("cuMemFree", "cuMemFreeHost", "cuStreamDestroy", "cuEventDestroy", "cuModuleUnload")
RELEASES += ("cuGraphDestroy", "cuGraphExecDestroy", "cuDevicePrimaryCtxRelease", "cuCtxPushCurrent", "cuCtxPopCurrent")


@dataclasses.dataclass
class Day:
    """A robot's day: open, frames, a stream that is stopped early, results that stay on the GPU, close.

    Attributes:
        driver: Of the simulated GPU.
        network: None where the GPU did not open.
        errors: What the calls raised before the end, in order.
        at_close: What closing raised, in order.
    """

    driver: HostDriver
    network: HostNetwork | None = None
    errors: list[BaseException] = dataclasses.field(default_factory=list)
    at_close: list[BaseException] = dataclasses.field(default_factory=list)

    def run(self) -> None:
        try:
            device = Device(driver=self.driver)
        except CudaError as error:
            self.errors.append(error)
            return
        self.network = HostNetwork(device, tensor_specs(MANIFEST, DEFAULT_PROTOTYPE.shape), replay([OUTPUTS]))  # type: ignore[arg-type]  # three numbers
        try:
            segmenter = Segmenter(MANIFEST, self.network, None, SegmenterOptions(min_confidence=0.1))
        except YolactError as error:
            self.errors.append(error)
        else:
            for step in (self.frames, self.stream, self.on_device):
                self._try(lambda step=step: step(segmenter), self.errors)  # type: ignore[misc]  # bound here
            self._try(segmenter.close, self.at_close)
        self._try(device.close, self.at_close)

    def frames(self, segmenter: Segmenter) -> None:
        for _ in range(3):  # as it is, captured, and as a graph
            segmenter(FRAME)

    def stream(self, segmenter: Segmenter) -> None:
        with segmenter.stream([FRAME] * 5, timeout_s=60) as results:
            assert len(list(itertools.islice(results, 2))) == 2

    def on_device(self, segmenter: Segmenter) -> None:
        with segmenter.on_device(FRAME) as found:
            found.id_map()

    def _try(self, step: Callable[[], Any], into: list[BaseException]) -> None:
        try:
            step()
        except YolactError as error:
            into.append(error)


class Fault:
    """Fails the call of a number, or all from there on, and remembers whose it was."""

    def __init__(self, number: int, status: int, sticky: bool) -> None:
        self.number, self.status, self.sticky = number, status, sticky
        self.calls: list[str] = []

    def __call__(self, name: str) -> int | None:
        self.calls.append(name)
        place = len(self.calls) - 1
        if place == self.number or (self.sticky and place > self.number):
            return self.status
        # Nobody looks at the results: kernels that do nothing are enough, and quick.
        return 0 if name == "cuLaunchKernel" else None

    @property
    def met(self) -> str | None:
        return self.calls[self.number] if 0 <= self.number < len(self.calls) else None


def day_with(fault: Fault) -> Day:
    driver = HostDriver()
    driver.library.inject = fault
    day = Day(driver)
    thread = threading.Thread(target=day.run)
    thread.start()
    thread.join(120)
    assert not thread.is_alive(), f"hangs when call {fault.number}, {fault.met}, fails"
    for reader in threading.enumerate():
        if reader.name == "yolact-stream":
            reader.join(120)
            assert not reader.is_alive()
    return day


def places() -> list[int]:
    """Every call of a day without faults; in a quick run some of them, the last ones always."""
    fault = Fault(-1, 0, sticky=False)
    day = day_with(fault)
    assert not day.errors
    assert not day.at_close
    assert day.driver.leaks() == []
    return list(range(0, len(fault.calls), max(1, 100 // example_count(100))))


def check(day: Day, fault: Fault) -> None:
    said = f"call {fault.number}, {fault.met}: {[str(error) for error in (*day.errors, *day.at_close)]}"
    assert day.driver.library.misuses == [], said
    if day.network is not None:
        assert day.network.num_contexts == 0, said
        assert day.network.closed, said


def test_after_the_loss_of_the_context_everything_ends_and_closes(caplog: pytest.LogCaptureFixture) -> None:
    for number in places():
        caplog.clear()
        fault = Fault(number, ILLEGAL_ADDRESS, sticky=True)
        with caplog.at_level(logging.ERROR):
            day = day_with(fault)
        check(day, fault)
        assert day.at_close == []
        for error in day.errors:
            assert isinstance(error, CudaContextLostError), (fault.met, error)
            assert "start the process again" in str(error)
        for error in day.errors[1:]:
            assert "the GPU's context is lost (first error: " in str(error)
        # Once, whoever met it.
        assert caplog.text.count("the GPU's context is lost") == (fault.met is not None)
    gc.collect()


def test_a_call_that_fails_once_leaks_nothing() -> None:
    for number in places():
        fault = Fault(number, NOT_SUPPORTED, sticky=False)
        day = day_with(fault)
        check(day, fault)
        if fault.met is None:
            continue
        left = day.driver.leaks()
        allowed = 1 if fault.met in RELEASES else 0
        assert len(left) <= allowed, (number, fault.met, left, fault.calls[number - 6 : number + 3])
        if fault.met in RELEASES:
            continue
        assert day.at_close == [] or "Synchronize" in fault.met or "SetCurrent" in fault.met, (fault.met, day.at_close)
    gc.collect()
