"""Python interface to the CUDA driver: devices, memory, modules, launches, graphs, and arrays of other libraries."""

__all__: list[str] = []
