"""Executed instructions of a frame's kernels without a GPU: ``python -m yolact_benchmarks.studies.instructions``.

**Method.** NVRTC compiles the kernels with the options of the product, NVIDIA's disassembler lists the machine code,
and :mod:`decoding` converts it to numbers. A frame of 1080p runs through the real runtime on the simulated GPU of the
tests, with artificial outputs in place of a network. Each kernel that it launches is machine code, which ``executor/``
executes warp by warp in host memory, counting the instructions that every warp issues. The results of the frame must be
those of the host build of the same sources: boxes and scores up to a few last bits, runs up to one in a thousand
(pixels on an outline, which the last bit of an exponential moves), everything else bit by bit.

Nothing is therefore assumed about loops, unrolling, inlining or predicates: the compiler's own code is executed, with
the frame's own data.

**What is counted.** An instruction counts once for a warp that issues it, however many lanes take part, and also if its
predicate is false in every lane, as on a GPU. Divergent lanes are groups, which issue their paths one after the other,
and reconverge at BSYNC, WARPSYNC or a barrier, never by chance. Memory is counted in requests of warps, and in the
distinct sectors of 32 bytes that each of them touches.

**What is assumed.** FCHK, which tells whether a division needs its subroutine, is assumed to be true for operands that
are zero, subnormal, infinite or NaN, for a dividend below 2^-102, and for quotients near the ends of the range. Uniform
registers are zero when a warp starts: on sm_87 a warp of a kernel with calls then sets its barrier registers, 19
instructions. Results of MUFU, the unit of approximate functions, are those of the C library, which may differ from the
GPU's in the last bits.

**What it is not.** A time. Instructions differ in their cost; memory latency is not counted, nor that a frame may wait
for a single block: for this, the largest numbers of instructions that one block and one warp issue are given. Caches,
bank conflicts, occupancy, launches and the scheduling of blocks are not modelled.

**What it also is.** A check of the machine code itself: :mod:`fuzz` runs random frames, and compares the memory after
every launch with that of the host build.

Architectures: sm_75 to sm_110. Kernels with features that the executor does not know end with an error that names them:
tensor cores, asynchronous copies, named barriers, local memory, most half-precision arithmetic, 64-bit atomics, and
64-bit integers, as sm_120 has them.
"""

__all__: list[str] = []
