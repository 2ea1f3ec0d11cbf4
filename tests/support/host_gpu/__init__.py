"""A GPU of host memory: the driver's functions in Python, and the real kernels as host C++.

Device, pinned and mapped memory are host memory, poisoned when it is allocated. Streams are queues whose work runs only
when somebody waits for it, or when another stream has to: a program that uses a buffer again too early, or reads a
result before it has waited, gets wrong data. A seed lets other streams run ahead at such moments, or not.

What it does not show: anything that needs things to happen at the same time, and time itself.
"""

from support.host_gpu.driver import HostDriver, host_gpu, share_kernels

__all__ = ["HostDriver", "host_gpu", "share_kernels"]
