// A half type for host C++, so that kernels which include <cuda_fp16.h> compile without a CUDA package.
// Conversions round to nearest, ties to even, as the intrinsics of the same names do.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __half {
    std::uint16_t bits;
};

inline float __half2float(__half value) {
    const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
    const std::uint32_t exponent = (value.bits >> 10) & 0x1fu;
    const std::uint32_t fraction = value.bits & 0x3ffu;
    std::uint32_t bits;
    if (exponent == 0) {  // zero and subnormals: the fraction counts steps of 2^-24
        float magnitude = static_cast<float>(fraction) * 5.9604644775390625e-8f;
        std::memcpy(&bits, &magnitude, sizeof bits);
    } else if (exponent == 0x1f) {
        bits = 0x7f800000u | fraction << 13;
    } else {
        bits = (exponent + 112) << 23 | fraction << 13;
    }
    bits |= sign;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

inline __half __float2half_rn(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint16_t sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7fffu)};
    if (bits >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // rounds to infinity
    if (bits < 0x38800000u) {  // subnormal or zero: adding 0.5 moves the fraction to where float32 rounds for us
        float magnitude;
        std::memcpy(&magnitude, &bits, sizeof magnitude);
        magnitude += 0.5f;
        std::memcpy(&bits, &magnitude, sizeof bits);
        return {static_cast<std::uint16_t>(sign | (bits - 0x3f000000u))};
    }
    const std::uint32_t odd = bits >> 13 & 1u;
    return {static_cast<std::uint16_t>(sign | ((bits - 0x38000000u + 0xfffu + odd) >> 13))};
}

inline __half __float2half(float value) { return __float2half_rn(value); }

struct __half2 {
    __half x, y;
};

inline float __low2float(__half2 pair) { return __half2float(pair.x); }
inline float __high2float(__half2 pair) { return __half2float(pair.y); }
// Rounded to float32 in between, which a product with 0, 1 or another power of two does not notice.
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return {__float2half_rn(std::fma(__half2float(a.x), __half2float(b.x), __half2float(c.x))),
            __float2half_rn(std::fma(__half2float(a.y), __half2float(b.y), __half2float(c.y)))};
}
inline __half2 __hmax2(__half2 a, __half2 b) {
    return {__float2half_rn(std::fmax(__half2float(a.x), __half2float(b.x))),
            __float2half_rn(std::fmax(__half2float(a.y), __half2float(b.y)))};
}
