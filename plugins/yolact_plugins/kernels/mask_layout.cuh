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

struct LayoutStorage {
    long long of_warp[4][MAX_DETECTIONS / 32];
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

// Sum of `value` over the threads before this one, and over all; each call of a block needs its own `of_warp`.
__device__ inline long long sum_before(long long value, int tid, long long* of_warp, long long& total) {
    const long long inclusive = sum_up_to(value, tid % 32);
    if (tid % 32 == 31 && tid < MAX_DETECTIONS) of_warp[tid / 32] = inclusive;
    __syncthreads();
    long long result = inclusive - value;
    total = 0;
    for (int w = 0; w < MAX_DETECTIONS / 32; ++w) {
        if (w < tid / 32) result += of_warp[w];
        total += of_warp[w];
    }
    return result;
}

// All threads of a block of at least 256 call it; what they wrote before must be visible to the block.
__device__ inline void lay_out_masks(const float* detection_xyxy, int detections, const LayoutSettings& settings,
                                     MaskWindow* window, long long* offset, MaskPlan* plan, unsigned* status,
                                     LayoutStorage& shared) {
    const int tid = static_cast<int>(threadIdx.x);
    const int count = min(detections, MAX_DETECTIONS);
    if (tid == 0 && detections > MAX_DETECTIONS) atomicOr(status, STATUS_LIMIT);
    MaskWindow mine = {};
    if (tid < count) {
        const float4 box = reinterpret_cast<const float4*>(detection_xyxy)[tid];
        mine = make_window(box, settings.prototype, settings.frame, settings.margin);
    }
    const long long need = static_cast<long long>(mine.words) * mine.columns;
    long long all_words, strips, tasks, tiles;
    const long long before = sum_before(need, tid, shared.of_warp[0], all_words);
    if (need > 0 && before + need > settings.arena_words) {
        atomicOr(status, STATUS_ARENA_OVERFLOW);
        mine.words = mine.columns = 0;
    }
    // Rounded up: then there are at most `wanted_tasks`, and one more for each strip and each row of words of a mask.
    const int strip_words = static_cast<int>((all_words + 31) / 32);
    const int task_words = max((strip_words + settings.wanted_tasks - 1) / settings.wanted_tasks, MIN_TASK_WORDS);
    const int my_strips = (mine.columns + 31) / 32;
    const int my_tiles = tiles_of({mine.left, mine.right}, {mine.top, mine.bottom});
    MaskPlan first = {0, 0, 0, task_words};
    first.strip = static_cast<int>(sum_before(my_strips, tid, shared.of_warp[1], strips));
    const int cuts = (mine.words + task_words - 1) / task_words;
    first.task = static_cast<int>(sum_before(my_strips * cuts, tid, shared.of_warp[2], tasks));
    first.tile = static_cast<int>(sum_before(my_tiles, tid, shared.of_warp[3], tiles));
    if (tid == 0) {
        offset[count] = all_words;
        plan[0] = {static_cast<int>(strips), static_cast<int>(tasks), static_cast<int>(tiles), task_words};
    }
    if (tid >= count) return;
    window[tid] = mine;
    offset[tid] = before;
    plan[tid + 1] = first;
}
