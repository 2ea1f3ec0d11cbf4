"""Compilation of CUDA C++ to machine code, and its storage in bundles and in this machine's cache.

``python -m yolact_plugins.compile --arch sm_87 -o my.bundle`` compiles every kernel ahead of time.
"""

__all__: list[str] = []
