"""A GPU of host memory: the driver's functions in Python, and the real kernels as host C++.

``Device(driver=HostDriver())`` is a device of compute capability 8.7 named "Host", for everything in
:mod:`yolact_plugins`; :func:`host_gpu` is the same with a search for leaks behind it. What is different from CUDA is
chosen so that a wrong program fails here, too, and more often:

**Memory.** Device, pinned and mapped memory are host memory, full of 0xCD when it is allocated and after it is freed.
A kernel reads mapped memory at its host address, and pinned memory not at all. The range of a copy or a fill, and the
start of every address that a kernel gets, must lie in one live allocation: that is checked when the call is made and
again when its turn comes. After a kernel the 256 bytes on either side of what it got must be as they were; what it
reads there is poison. Freeing waits for everything, as CUDA does; with ``strict_free`` it waits for nothing, and is an
error while waiting work refers to the memory. Bytes that are written after they were freed are found by ``leaks``.

**Streams** are queues. Their work runs only when somebody synchronises or asks, on the thread that does, or when
another stream has to wait for its event. A program that uses a pinned buffer again too early, or reads a result before
it has waited, gets wrong data. A question is answered as of the moment when it is asked, and then the work goes on: who
polls is told "not ready" once. With a seed ``order`` other than 0 streams run ahead at random, in random order,
whenever something is enqueued, asked or waited for: that finds who relies on the laziness, or on the order in which
streams that do not wait for each other happen to run. The default streams 0, 1 and 2 exist, and wait for nobody.
Destroying a stream does not wait.

**Copies** between device and pinned or mapped memory are work in the stream. From pageable memory bytes are taken at
once; to pageable memory the call waits for the stream.

**Events** are places in a stream. A time between two that are reached, made for it, is one millisecond: no clock runs.

**Graphs.** What a capturing stream is given goes to the graph. Allocating, freeing, waiting, asking, copies of pageable
memory, and loading modules are errors meanwhile, on the capturing thread or, in the mode "global", on any; they
invalidate the capture. One stream is captured at a time: waiting for an event from outside is an error as in CUDA, but
so is joining a second stream. The works of a launched graph enter the stream one by one, after the graph's last run.

**Kernels** are found by their names among the package's sources and run as host C++ (:mod:`support.kernel_host`); the
cubin says how large their arguments are, which are copied when the call is made. A kernel that fails, and any other
error in a stream, reaches who waits as a :class:`CudaError`, once: later calls work, where CUDA's context is lost.

One lock is held by every call, also while work runs. A Python function may be work: :meth:`HostDriver.enqueue`.

What this does not show: anything that needs things to happen at the same time, and time itself.
"""

from support.host_gpu.driver import Counts, HostDriver, host_cubins, host_gpu, share_kernels

__all__ = ["Counts", "HostDriver", "host_cubins", "host_gpu", "share_kernels"]
