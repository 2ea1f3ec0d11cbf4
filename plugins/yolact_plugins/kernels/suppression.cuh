// Which boxes hide which: the IoU test of Fast NMS, for pairs and for a sorted list.
//
// A box is hidden by a better one unless IoU <= threshold, bit by bit as NumPy computes it: every operation rounded on
// its own, and NaN (boxes without area, or beyond float32) hides. Two things differ from NumPy and decide nothing:
//   * fminf and fmaxf prefer numbers to NaN, numpy.minimum and numpy.maximum do not. Where a coordinate is NaN, or two
//     infinite ones have no difference, the area of that box is NaN as well, and with it the union and the IoU.
//   * Most pairs are not divided. A float32 below fl(threshold * union) is below the exact product, too, because fl
//     rounds to the nearest. So for such an intersection the exact quotient is below the threshold, and the rounded one
//     is not above it. Everything else is divided: overlaps at the threshold or above it, unions of 0 or less, NaN.
// The test is symmetric in both boxes: sums and products are, and the sign of a zero decides nothing.
#pragma once

#include "top_keys.cuh"

__device__ __forceinline__ float area_of(const float4& box) {
    return __fmul_rn(__fsub_rn(box.z, box.x), __fsub_rn(box.w, box.y));
}

struct Overlap {
    float intersection, both;  // the latter is the area of the union

    // All that hide have this, and few others.
    __device__ __forceinline__ bool may_hide(float threshold) const {
        return !(intersection < __fmul_rn(threshold, both));
    }
    __device__ __forceinline__ bool hides(float threshold) const {
        return may_hide(threshold) && !(__fdiv_rn(intersection, both) <= threshold);
    }
};

__device__ __forceinline__ Overlap overlap_of(const float4& a, float area_a, const float4& b, float area_b) {
    const float width = fmaxf(__fsub_rn(fminf(a.z, b.z), fmaxf(a.x, b.x)), 0.0f);
    const float height = fmaxf(__fsub_rn(fminf(a.w, b.w), fmaxf(a.y, b.y)), 0.0f);
    const float intersection = __fmul_rn(width, height);
    return {intersection, __fsub_rn(__fadd_rn(area_a, area_b), intersection)};
}

struct SuppressStorage {
    TopStorage top;
    float4 xyxy[MAX_TOP];
    float area[MAX_TOP];
    int keep[MAX_TOP];
    int kept_of_warp[MAX_TOP / 32];
};

// Sets keep[j] for `count` boxes that lie best first in shared memory: a warp for a box j, its lanes over better ones.
__device__ __forceinline__ void suppress(SuppressStorage& shared, int count, float iou_threshold) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int warps = static_cast<int>(blockDim.x / 32);
    for (int j = static_cast<int>(threadIdx.x / 32); j < count; j += warps) {
        const float4 box = shared.xyxy[j];
        const float area = shared.area[j];
        bool hidden = !(iou_threshold >= 0.0f);  // the reference compares with 0 too: the rest of the matrix
        for (int i = lane; i < j; i += 32) {
            hidden |= overlap_of(shared.xyxy[i], shared.area[i], box, area).hides(iou_threshold);
        }
        hidden = __any_sync(WHOLE_WARP, hidden);
        if (lane == 0) shared.keep[j] = !hidden;
    }
    __syncthreads();
}

// Selects, sorts and suppresses; returns how many were selected: top.sorted, best first, and keep. Whole block.
template <int HELD, class KeyOf>
__device__ __forceinline__ int select_and_suppress(const KeyOf& key_of, int count, int top_k, float iou_threshold,
                                                   const float* xyxy, SuppressStorage& shared) {
    const int best = select_top<HELD>(key_of, count, top_k, shared.top);
    for (int i = static_cast<int>(threadIdx.x); i < best; i += static_cast<int>(blockDim.x)) {
        const float4 box = *reinterpret_cast<const float4*>(xyxy + 4ll * index_of(shared.top.sorted[i]));
        shared.xyxy[i] = box;
        shared.area[i] = area_of(box);
    }
    __syncthreads();
    suppress(shared, best, iou_threshold);
    return best;
}
