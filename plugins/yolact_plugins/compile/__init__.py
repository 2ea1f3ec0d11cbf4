"""From CUDA C++ to machine code, and where it is kept: in bundles, and in the cache of a machine.

``python -m yolact_plugins.compile --arch sm_87 -o my.bundle`` compiles every kernel ahead of time.
"""

__all__: list[str] = []
