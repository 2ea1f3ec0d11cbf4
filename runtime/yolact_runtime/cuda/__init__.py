"""The frame pipeline on the GPU: at most one upload, the network, the kernels around it, one wait.

:mod:`yolact_runtime.segmenter` uses it if its backend keeps tensors on the GPU. Nothing here imports an inference
library; kernels and driver come from :mod:`yolact_plugins`.
"""

__all__: list[str] = []
