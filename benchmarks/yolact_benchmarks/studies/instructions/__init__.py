"""Executed instructions of a frame's kernels without a GPU: ``python -m yolact_benchmarks.studies.instructions``.

**How.** NVRTC compiles the kernels with the options of the product, NVIDIA's disassembler lists the machine code, and
:mod:`decoding` makes numbers of it. A frame of 1080p runs through the real runtime on the simulated GPU of the tests,
with made-up outputs in the place of a network. Each kernel that it launches is machine code, which ``executor/``
executes warp by warp on this machine's memory, counting what every warp issues. What the frame leaves must be what the
host build of the same sources leaves: the boxes and scores to a few last bits, the runs but for one in a thousand
(pixels on an outline, which the last bit of an exponential moves), everything else bit by bit.

So nothing is assumed about loops, unrolling, inlining or predicates: the compiler's own code is walked, with the
frame's own data.

**What is counted.** An instruction counts once for a warp that issues it, however many lanes take part, and also where
its predicate is false in every lane, as on a GPU. Lanes that go different ways are groups, which issue their ways one
after the other, and are one again at BSYNC, WARPSYNC or a barrier, never by chance. Memory is counted in requests of
warps, and in the different pieces of 32 bytes that each of them touches.

**What is assumed.** Of FCHK, which says whether a division needs its subroutine: operands that are zero, subnormal,
infinite or NaN, a dividend below 2^-102, and quotients near the ends of the range do. Uniform registers are zero when a
warp starts: on sm_87 a warp of a kernel with calls then sets its barrier registers, 19 instructions. Results of MUFU,
the unit of approximate functions, are those of the C library, which may differ from the GPU's in the last bits.

**What it is not.** A time. Instructions differ in what they cost, waiting for memory is not counted, nor that one block
may be what a frame waits for: for this there are the largest numbers that one block and one warp issue. Caches, bank
conflicts, occupancy, launches and the scheduling of blocks are not looked at.

**What it also is.** A check of the machine code itself: :mod:`fuzz` runs random frames, and compares what every launch
leaves with what the host build leaves of the same memory.

Architectures: sm_75 to sm_110. Kernels that use what the executor does not know end with an error that names it:
tensor cores, asynchronous copies, named barriers, local memory, most arithmetic of halves, 64-bit atomics, and whole
numbers of 64 bits, as sm_120 has them.
"""

__all__: list[str] = []
