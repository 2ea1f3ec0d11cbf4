// Bilinear interpolation along one axis with half-pixel centres (align_corners=False), in exact integer arithmetic.
//
//   position(i) = max((i + 1/2) * source / target - 1/2, 0),   low = min(floor(position), source - 1),
//   high = min(low + 1, source - 1),   fraction = position - low
//
// position is the fraction max((2 i + 1) source - target, 0) / (2 target), so low is an integer division and the
// rounding of `fraction` is the only one. Holds for source * target < 2^30, far beyond any frame.
#pragma once

struct LinearTap {
    int low, high;
    float fraction;  // weight of `high`
};

__device__ __forceinline__ LinearTap linear_tap(int index, int source, int target) {
    const unsigned numerator = static_cast<unsigned>(max((2 * index + 1) * source - target, 0));
    const unsigned denominator = 2u * static_cast<unsigned>(target);
    const int low = static_cast<int>(numerator / denominator);
    if (low >= source - 1) return {source - 1, source - 1, 0.0f};
    const float remainder = static_cast<float>(numerator - static_cast<unsigned>(low) * denominator);
    return {low, low + 1, remainder / static_cast<float>(denominator)};
}

// The fraction alone, for a pixel whose `low` is known and is not the last source pixel.
__device__ __forceinline__ float linear_fraction(int index, int low, int source, int target) {
    const int numerator = max((2 * index + 1) * source - target, 0) - low * 2 * target;
    return static_cast<float>(numerator) / static_cast<float>(2 * target);
}

// First target pixel whose `low` is at least `bound`; `target` if there is none.
__device__ __forceinline__ int first_with_low(int bound, int source, int target) {
    if (bound <= 0) return 0;
    if (bound >= source) return target;
    const int numerator = max((2 * bound + 1) * target - source, 0);
    return (numerator + 2 * source - 1) / (2 * source);
}

__device__ __forceinline__ float interpolate(float low, float high, float fraction) {
    return low * (1.0f - fraction) + high * fraction;
}
