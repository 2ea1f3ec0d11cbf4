// Where a mask can have pixels: a window of the prototypes and a window of the frame for each detection.
//
// A word of bits holds 32 rows of a column, and begins at a multiple of 32 rows, so that one word holds the same rows in
// every mask. Bit b of word w of column c of a mask is pixel (x, y) = (column + c, 32 (word + w) + b) of the frame, and
// lies at arena[offset + w * columns + c]. Bits below the frame's bottom edge are 0.
#pragma once

// As eight int32 in memory on 16 bytes, (n, 8), in this order.
struct alignas(16) MaskWindow {
    int left, right, top, bottom;  // prototype pixels [left, right) x [top, bottom)
    int word, words;               // words of a frame column: rows [32 word, 32 (word + words))
    int column, columns;           // frame columns [column, column + columns); both counts are 0 where there is no pixel
};

constexpr int WORD_BITS = 32;
constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int MAX_DETECTIONS = 256;

// What precedes a detection in the lists of work that kernels divide among their blocks. As four int32 in memory on 16
// bytes, (n + 1, 4), in this order: row 0 holds what all take, so that it is read without knowing n, row i + 1 detection i.
struct alignas(16) MaskPlan {
    int strip;       // strips of 32 frame columns
    int task;        // strips cut into tasks of `task_words` words of each column
    int tile;        // tiles of the probabilities inside the windows
    int task_words;  // the same in all rows
};

// The last of `count` detections before which no more than `index` items of the list lie; the whole warp calls it. `plan`
// is that of detection 0.
__device__ __forceinline__ int find_owner(const MaskPlan* plan, int MaskPlan::* list, int count, int index, int lane) {
    int before = 0;
    for (int base = 0; base < count; base += 32) {
        const int i = base + lane;
        before += __popc(__ballot_sync(FULL_WARP, i < count && plan[i].*list <= index));
    }
    return before - 1;
}

__device__ __forceinline__ int sum_of_warp(int value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(FULL_WARP, value, step);
    return value;
}

// Sum of `value` over the lanes up to this one.
template <class Value>
__device__ __forceinline__ Value sum_up_to(Value value, int lane) {
    for (int step = 1; step < 32; step *= 2) {
        const Value before = __shfl_up_sync(FULL_WARP, value, static_cast<unsigned>(step));
        if (lane >= step) value += before;
    }
    return value;
}
