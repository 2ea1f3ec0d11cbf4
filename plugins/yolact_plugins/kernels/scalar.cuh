// Values of the network's dtype as float, and float as the network's dtype. Arithmetic is always in float32.
#pragma once

#include <cuda_fp16.h>

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }

__device__ __forceinline__ void store(float* address, float value) { *address = value; }
__device__ __forceinline__ void store(__half* address, float value) { *address = __float2half_rn(value); }
