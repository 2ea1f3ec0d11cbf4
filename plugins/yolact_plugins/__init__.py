"""Kernels of YOLACT's pre- and post-processing, and the NumPy functions that specify them."""

__all__: list[str] = []
