"""The kernels of the frame pipeline, loaded once per GPU and shared by its segmenters."""

from __future__ import annotations

from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.compile.sources import read_source
from yolact_plugins.driver.driver import Device
from yolact_plugins.driver.module import Kernel, Module
from yolact_plugins.driver.ownership import Owned, close_after_failure, close_all

__all__ = ["DeviceKernels"]

_FAMILIES = ("preprocess", "candidates", "fast_nms", "mask_assembly", "mask_runs", "mask_views")
_MASK_IOU = "mask_iou"


class DeviceKernels(Owned):
    """All kernels that a frame needs.

    Args:
        device: The device to load the kernels on; kept alive.
        cache: Cache of machine code; None uses this machine's cache, and NVRTC for what it lacks.
        mask_iou: Whether to load the kernels of the mask-IoU network (YOLACT++), too.

    Raises:
        MissingCubinError, KernelCompileError, MissingDependencyError: The machine code cannot be found or compiled; see
            :meth:`yolact_plugins.compile.cache.CubinCache.get`.
        CudaError: The code does not load on this GPU.
    """

    def __init__(self, device: Device, cache: CubinCache | None = None, *, mask_iou: bool = False) -> None:
        self.device = device
        cache = cache or CubinCache()
        self._modules: dict[str, Module] = {}
        try:
            for family in (*_FAMILIES, _MASK_IOU) if mask_iou else _FAMILIES:
                self._modules[family] = Module(device, cache.get(read_source(family), device.arch))
        except BaseException:
            close_after_failure(self._release)
            raise
        super().__init__(device)

    def get(self, name: str) -> Kernel:
        """Return a kernel by its name, which is unique among all families."""
        self.require_open()
        for module in self._modules.values():
            if name in module.cubin.parameters:
                return module.kernel(name)
        raise KeyError(name)

    def _release(self) -> None:
        close_all(*(module.close for module in self._modules.values()))
