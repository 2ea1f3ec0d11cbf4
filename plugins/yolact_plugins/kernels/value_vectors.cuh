// 16 bytes of the network's values at once, 4 of float32 or 8 of float16: the largest, and whether all are finite.
//
// `Sums` finds values that are not finite by half an instruction a value. They go into running sums that finite values
// leave finite as a rule, and others never: in float16 value * 0 is added, in float32 the product of two values. That
// product may overflow; so a sum that is not finite is a suspicion, for which each value has to be looked at.
#pragma once

#include "scalar.cuh"

// In front of a loop that is rare, short, or unrolled by hand: more copies of it only cost preparations.
#ifdef __CUDACC__
#define NOT_UNROLLED _Pragma("unroll 1")
#else
#define NOT_UNROLLED
#endif

template <class Value>
struct Vector;

template <>
struct Vector<float> {
    static constexpr int LENGTH = 4;
    using Bytes = float4;

    struct Sums {
        float low = 0.0f, high = 0.0f;
        __device__ __forceinline__ void add(const Bytes& values) {
            low = fmaf(values.x, values.y, low);
            high = fmaf(values.z, values.w, high);
        }
        __device__ __forceinline__ bool are_finite() const { return isfinite(low) && isfinite(high); }
    };

    struct Maxima {
        float low = __uint_as_float(0xff800000u), high = __uint_as_float(0xff800000u);
        __device__ __forceinline__ void add(const Bytes& values) {
            low = fmaxf(fmaxf(low, values.x), values.y);
            high = fmaxf(fmaxf(high, values.z), values.w);
        }
        __device__ __forceinline__ float largest() const { return fmaxf(low, high); }
    };
};

template <>
struct Vector<__half> {
    static constexpr int LENGTH = 8;
    using Bytes = uint4;  // two values in a word

    static __device__ __forceinline__ __half2 pair_of(unsigned word) {
        return *reinterpret_cast<const __half2*>(&word);
    }

    struct Sums {
        __half2 sums = pair_of(0u);
        __device__ __forceinline__ void add(const Bytes& values) {
            const __half2 zeros = pair_of(0u);
            sums = __hfma2(pair_of(values.x), zeros, sums);
            sums = __hfma2(pair_of(values.y), zeros, sums);
            sums = __hfma2(pair_of(values.z), zeros, sums);
            sums = __hfma2(pair_of(values.w), zeros, sums);
        }
        __device__ __forceinline__ bool are_finite() const {
            return isfinite(__low2float(sums)) && isfinite(__high2float(sums));
        }
    };

    struct Maxima {
        __half2 maxima = pair_of(0xfc00fc00u);
        __device__ __forceinline__ void add(const Bytes& values) {
            const __half2 low = __hmax2(pair_of(values.x), pair_of(values.y));
            const __half2 high = __hmax2(pair_of(values.z), pair_of(values.w));
            maxima = __hmax2(maxima, __hmax2(low, high));
        }
        __device__ __forceinline__ float largest() const { return fmaxf(__low2float(maxima), __high2float(maxima)); }
    };
};

// How many values lie between the last address of 16 bytes and this one.
template <class Value>
__device__ __forceinline__ int values_beyond_16_bytes(const Value* address) {
    return static_cast<int>(static_cast<unsigned>(reinterpret_cast<unsigned long long>(address)) % 16u / sizeof(Value));
}

// Every STRIDE-th of `count` vectors, from the `first` one; `values` lie on 16 bytes. Four loads are under way at once.
template <int STRIDE, class Value, class Take>
__device__ __forceinline__ void for_vectors(const Value* values, int first, int count, const Take& take) {
    using Bytes = typename Vector<Value>::Bytes;
    const Bytes* next = reinterpret_cast<const Bytes*>(values) + first;
    int left = count - first;
    NOT_UNROLLED for (; left > 3 * STRIDE; left -= 4 * STRIDE) {
        const Bytes loaded[4] = {next[0], next[STRIDE], next[2 * STRIDE], next[3 * STRIDE]};
        for (int k = 0; k < 4; ++k) take(loaded[k]);
        next += 4 * STRIDE;
    }
    NOT_UNROLLED for (; left > 0; left -= STRIDE) {
        take(*next);
        next += STRIDE;
    }
}
