// A half type for host C++, so that kernels which include <cuda_fp16.h> compile without a CUDA package.
// Conversions round to nearest, ties to even, as the intrinsics of the same names do.
#pragma once

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
