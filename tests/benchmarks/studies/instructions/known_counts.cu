// Small kernels whose executed instructions can be told by looking at their machine code.
#include <cuda_fp16.h>

// Every lane walks the loop equally often.
extern "C" __global__ void walk(int turns, int* out) {
    int x = static_cast<int>(threadIdx.x);
#pragma unroll 1
    for (int i = 0; i < turns; ++i) x = x * 3 + i;
    out[threadIdx.x] = x;
}

// Lanes below `border` go one way, the others another way, and all meet again.
extern "C" __global__ void part(int border, int left_turns, int right_turns, int* out) {
    const int lane = static_cast<int>(threadIdx.x);
    int x = lane;
    if (lane < border) {
#pragma unroll 1
        for (int i = 0; i < left_turns; ++i) x = x * 5 + i;
    } else {
#pragma unroll 1
        for (int i = 0; i < right_turns; ++i) x = (x ^ i) - 7;
    }
    out[lane] = __shfl_xor_sync(0xffffffffu, x, 1);
}

__device__ __forceinline__ float quotient(float a, float b) { return a / b; }

// IEEE division: a few instructions, and a subroutine for operands that these cannot serve.
extern "C" __global__ void divide(const float* a, const float* b, float* out) {
    out[threadIdx.x] = quotient(a[threadIdx.x], b[threadIdx.x]);
}

// Whole numbers of 32 and 64 bits, bits, votes, shared memory with a barrier.
extern "C" __global__ void mix(const unsigned* in, unsigned divisor, unsigned long long factor, unsigned long long* out) {
    __shared__ unsigned kept[64];
    __shared__ unsigned total;
    const unsigned i = threadIdx.x, x = in[i];
    if (i == 0) total = 0;
    kept[63 - i] = x / divisor + x % divisor;
    __syncthreads();
    atomicAdd(&total, kept[i]);
    const unsigned odd = __ballot_sync(0xffffffffu, x & 1u);
    const unsigned before = __shfl_up_sync(0xffffffffu, x, 3u);
    __syncthreads();
    unsigned long long wide = factor * x + (static_cast<unsigned long long>(before) << (i & 31u));
    if (wide > (factor << 7)) wide -= factor >> 3;
    out[i] = wide ^ total ^ __popc(odd) ^ static_cast<unsigned>(__ffs(static_cast<int>(x)) + __clz(static_cast<int>(x)));
}

// Decimals: fused products, the exponential, the smaller one, whole numbers and back.
extern "C" __global__ void decimals(const float* in, float* out) {
    const float x = in[threadIdx.x];
    const float y = fmaf(x, 1.5f, -fabsf(x));
    const int whole = static_cast<int>(floorf(y));
    out[threadIdx.x] = fminf(expf(-fabsf(x)), 0.75f) + static_cast<float>(whole) * 0.5f + rintf(x) - ceilf(y);
}

// Barriers that tell what all threads of a block say.
extern "C" __global__ void agree(const int* in, int* out) {
    const int x = in[threadIdx.x];
    const int larger = __syncthreads_count(x > 3), nine = __syncthreads_or(x == 9), small = __syncthreads_and(x < 100);
    out[threadIdx.x] = larger * 4 + (nine != 0) * 2 + (small != 0);
}

__device__ __forceinline__ unsigned bits_of(__half2 pair) { return *reinterpret_cast<const unsigned*>(&pair); }

// Pairs of halves: fused products, the larger of two and of three, and floats from and to halves.
extern "C" __global__ void halves(const __half2* in, const float* numbers, unsigned* out) {
    const unsigned i = threadIdx.x;
    const __half2 a = in[i], b = in[32 + i], c = in[64 + i];
    out[i] = bits_of(__hfma2(a, b, c));
    out[32 + i] = bits_of(__hfma2(a, __low2half2(b), __hneg2(c)));
    out[64 + i] = bits_of(__hmin2(a, b));
    out[96 + i] = bits_of(__hmax2(__hmax2(a, b), c));
    out[128 + i] = __float_as_uint(__high2float(a));
    out[160 + i] = bits_of(__floats2half2_rn(numbers[i], numbers[32 + i]));
    reinterpret_cast<__half*>(out + 192)[i] = __float2half_rn(numbers[64 + i]);
}

// An address of global memory that was kept in shared memory: nobody knows any more where it leads.
extern "C" __global__ void through(const int* in, int* out) {
    __shared__ const int* kept[32];
    kept[31 - threadIdx.x] = in + threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = *kept[threadIdx.x];
}

// The largest of three floats.
extern "C" __global__ void largest(const float* in, float* out) {
    const unsigned i = threadIdx.x;
    out[i] = fmaxf(fmaxf(in[i], in[32 + i]), in[64 + i]);
}

// How many threads and blocks there are.
extern "C" __global__ void sizes(unsigned* out) {
    const unsigned threads = blockDim.x * 100 + blockDim.y * 10 + blockDim.z;
    out[threadIdx.x] = threads * 1000 + gridDim.x * 100 + gridDim.y * 10 + gridDim.z;
}
