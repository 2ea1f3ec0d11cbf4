"""The way of a frame on the GPU: one upload or none, the network, our kernels around it, one wait.

What :mod:`yolact_runtime.segmenter` uses when its backend keeps tensors on the GPU. Nothing here imports a library of
the network; kernels and driver come from :mod:`yolact_plugins`.
"""

from yolact_runtime.cuda.device_instances import DeviceInstances
from yolact_runtime.cuda.device_path import DevicePath

__all__ = ["DeviceInstances", "DevicePath"]
