"""A small family of kernels, with known parameters and figures, for tests of compiling and launching kernels."""

from __future__ import annotations

from pathlib import Path

from yolact_plugins.compile.sources import KernelSource

__all__ = ["ARCHS", "SAMPLE", "write_headers"]

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_110", "sm_120")
"""What the project compiles for."""

SAMPLE = KernelSource(
    "sample",
    r"""
#include <cuda_fp16.h>
#include "sample.cuh"

extern "C" __global__ void scale(float* values, int count, float factor) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] = twice(values[i]) * factor;
}

struct alignas(16) Numbers { float a; long long b; char c; };

extern "C" __global__ void mixed(
    const __half* values, unsigned char flag, short small, double large, Numbers numbers, float last) {
  __shared__ float shared[32];
  shared[threadIdx.x % 32] = __half2float(values[threadIdx.x]) + flag + small + (float)large + numbers.a + last;
  __syncthreads();
  if (threadIdx.x == 0 && shared[numbers.b % 32] > numbers.c) asm volatile("trap;");
}

extern "C" __global__ void nothing() {}

/* Contraction would make one instruction of this. */
extern "C" __global__ void product_and_sum(float* values) { values[0] = values[1] * values[2] + values[3]; }
""",
    {"sample.cuh": "static __device__ float twice(float value) { return 2.0f * value; }\n"},
)


def write_headers(folder: Path, cudart_version: int | None, fp16: str = '#include "cuda_fp16.hpp"\n') -> Path:
    """Write a folder that looks like the headers of a CUDA version, such as 12060; None leaves the version out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cuda_fp16.h").write_text(fp16)
    (folder / "cuda_fp16.hpp").write_text("/* arithmetic */\n")
    if cudart_version is not None:
        (folder / "cuda_runtime_api.h").write_text(f"/* api */\n#define CUDART_VERSION  {cudart_version}\n")
    return folder
