// Detections -> windows of their masks, places of their words in the arena, and lists of the work that follows.
//
// A function of one block, so that a kernel that has just written the detections can call it at its end.
#pragma once

#include "linear_taps.cuh"
#include "mask_window.cuh"
#include "status.cuh"

// A tile is what a block of `mask_soft` computes at once: each of its threads has four pixels of a row.
constexpr int TILE_THREADS = 128;
// A task recomputes one row above it and finds its place anew, which is little beside so many words.
constexpr int MIN_TASK_WORDS = 4;

struct Span {
    int first, last;
};

struct Size {
    int height, width;
};

struct LayoutSettings {
    Size prototype, frame;
    float margin;
    long long arena_words;
    int wanted_tasks;
};

struct MaskLists {
    MaskWindow* window;
    long long* offset;
    MaskPlan* plan;
};

struct LayoutStorage {
    long long words[MAX_DETECTIONS / 32];  // sums of warps, as the others
    int strips[MAX_DETECTIONS / 32], tasks[MAX_DETECTIONS / 32], tiles[MAX_DETECTIONS / 32];
};

// As NumPy computes it: every operation rounded on its own.
__device__ inline Span crop_window(float low, float high, int size, float margin) {
    if (!isfinite(low) || !isfinite(high)) return {0, 0};
    if (isinf(margin)) return {0, size};
    const float near_end = fminf(low, high);
    const float far_end = fmaxf(low, high);
    const float extra = margin != 0.0f ? __fmul_rn(margin, __fsub_rn(far_end, near_end)) : 0.0f;
    const float length = static_cast<float>(size);
    const float first = __fsub_rn(__fmul_rn(__fsub_rn(near_end, extra), length), 1.0f);
    const float last = __fadd_rn(__fmul_rn(__fadd_rn(far_end, extra), length), 1.0f);
    return {static_cast<int>(ceilf(fminf(fmaxf(first, 0.0f), length))),
            static_cast<int>(ceilf(fmaxf(fminf(last, length), 0.0f)))};
}

__device__ inline MaskWindow make_window(const float4& box, const Size& prototype, const Size& frame, float margin) {
    const Span x = crop_window(box.x, box.z, prototype.width, margin);
    const Span y = crop_window(box.y, box.w, prototype.height, margin);
    MaskWindow window = {x.first, x.last, y.first, y.last, 0, 0, 0, 0};
    if (x.first >= x.last || y.first >= y.last) return window;
    // A pixel is reached by the window when its lower or its upper tap lies inside.
    const int first_column = first_with_low(x.first - 1, prototype.width, frame.width);
    const int last_column = first_with_low(x.last, prototype.width, frame.width);
    const int first_row = first_with_low(y.first - 1, prototype.height, frame.height);
    const int last_row = first_with_low(y.last, prototype.height, frame.height);
    if (first_column >= last_column || first_row >= last_row) return window;
    window.word = first_row / WORD_BITS;
    window.words = (last_row + WORD_BITS - 1) / WORD_BITS - window.word;
    window.column = first_column;
    window.columns = last_column - first_column;
    return window;
}

// Groups of four pixels that a row of a window reaches into, wherever in a group it begins.
__device__ inline int fours_of(const Span& x) { return x.first < x.last ? (x.last - x.first + 6) / 4 : 0; }

__device__ inline int tiles_of(const Span& x, const Span& y) {
    return (fours_of(x) * max(y.last - y.first, 0) + TILE_THREADS - 1) / TILE_THREADS;
}

// What a thread's `value` adds up to over the lanes before it, and the sum of its warp into `of_warp`.
template <class Value>
__device__ inline Value sum_in_warp(Value value, int tid, Value* of_warp) {
    const Value inclusive = sum_up_to(value, tid % 32);
    if (tid % 32 == 31) of_warp[tid / 32] = inclusive;
    return inclusive - value;
}

// Behind a barrier: the same over all threads before this one, and the sum over all.
template <class Value>
__device__ inline Value sum_before(Value in_warp, int tid, const Value* of_warp, Value& total) {
    total = 0;
    for (int w = 0; w < MAX_DETECTIONS / 32; ++w) {
        if (w < tid / 32) in_warp += of_warp[w];
        total += of_warp[w];
    }
    return in_warp;
}

// All threads of a block of at least 256 call it; `detection_xyxy` must be visible to the block.
__device__ inline void lay_out_masks(const float* detection_xyxy, int detections, const LayoutSettings& settings,
                                     const MaskLists& out, unsigned* status, LayoutStorage& shared) {
    const int tid = static_cast<int>(threadIdx.x);
    const int count = min(detections, MAX_DETECTIONS);
    const bool takes_part = tid < MAX_DETECTIONS;  // whole warps, which the others wait for
    MaskWindow mine = {};
    long long need = 0, before = 0;
    if (takes_part) {
        if (tid == 0 && detections > MAX_DETECTIONS) atomicOr(status, STATUS_LIMIT);
        if (tid < count) {
            const float4 box = reinterpret_cast<const float4*>(detection_xyxy)[tid];
            mine = make_window(box, settings.prototype, settings.frame, settings.margin);
        }
        need = static_cast<long long>(mine.words) * mine.columns;
        before = sum_in_warp(need, tid, shared.words);
    }
    __syncthreads();
    MaskPlan first = {};
    if (takes_part) {
        long long all_words;
        before = sum_before(before, tid, shared.words, all_words);
        if (tid < count) out.offset[tid] = before;
        if (tid == 0) out.offset[count] = all_words;
        if (need > 0 && before + need > settings.arena_words) {
            atomicOr(status, STATUS_ARENA_OVERFLOW);
            mine.words = mine.columns = 0;
        }
        // Rounded up: then there are at most `wanted_tasks`, and one more for each strip and each row of words of a mask.
        const int strip_words = static_cast<int>((all_words + 31) / 32);
        const int task_words = max((strip_words + settings.wanted_tasks - 1) / settings.wanted_tasks, MIN_TASK_WORDS);
        const int strips = (mine.columns + 31) / 32;
        const int cuts = (mine.words + task_words - 1) / task_words;
        first.strip = sum_in_warp(strips, tid, shared.strips);
        first.task = sum_in_warp(strips * cuts, tid, shared.tasks);
        first.tile =
            sum_in_warp(tiles_of({mine.left, mine.right}, {mine.top, mine.bottom}), tid, shared.tiles);
        first.task_words = task_words;
    }
    __syncthreads();
    if (tid >= max(count, 1)) return;
    MaskPlan all = first;
    first.strip = sum_before(first.strip, tid, shared.strips, all.strip);
    first.task = sum_before(first.task, tid, shared.tasks, all.task);
    first.tile = sum_before(first.tile, tid, shared.tiles, all.tile);
    if (tid == 0) out.plan[0] = all;
    if (tid >= count) return;
    out.window[tid] = mine;
    out.plan[tid + 1] = first;
}
