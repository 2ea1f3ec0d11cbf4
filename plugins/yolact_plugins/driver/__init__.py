"""The CUDA driver from Python: devices, memory, modules, launches, graphs, and arrays of other libraries."""

__all__: list[str] = []
