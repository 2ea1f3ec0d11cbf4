// mask_assembly: prototypes, coefficients and boxes -> binary masks of the frame, as bits inside boxes.
//
// Formula: yolact_plugins.reference.mask_assembly. For detection i with prior p, in this order:
//     linear = sum over k of mask_coefficient[p, k] * prototype[k, y, x]
//     soft[i, y, x] = sigmoid(linear) inside the crop window, else 0
//     mask[i] = bilinear(soft[i] -> frame, half-pixel centres) > 0.5
//   Crop window, in prototype pixels: index j is kept iff max(low * size - 1, 0) <= j < min(high * size + 1, size),
//   with low, high the ends of the box in either order, widened by `margin` times its length; infinity does not crop.
//   A box that is not finite has no mask. Only pixels whose taps reach into the window are ever computed or stored.
//
// Shapes, contiguous, boxes, windows and plans on 16 bytes; T is float16 or float32; n = detection_count[0] detections
//   in m <= 256 rows:
//     prototype (K, Hp, Wp) T, K <= 256      mask_coefficient (P, K) T
//     detection_xyxy (m, 4) f32, relative    detection_prior (m,) i32
//     window (m, 8) i32: see mask_window.cuh
//     offset (m + 1,) i64: words before each mask; offset[n] is the need of all
//     plan   (m + 1, 4) i32: see mask_window.cuh
//     soft   (m, Hp, Wp) f32: written inside the windows, or everywhere (zeros outside) when `fill` is not 0, which is
//            what the mask-IoU network of YOLACT++ reads
//     arena  (arena_words,) u32
//     task_runs (wanted_tasks + m (ceil(W / 32) + ceil(H / 32)),) i32: runs that begin in each task of `mask_bits`
//     status ARENA_OVERFLOW: masks that do not fit have no words; NOT_FINITE; LIMIT. Nothing is ever written outside of
//            a buffer.
//
// Kernels (any number of blocks):
//     mask_layout      grid: 1, blocks of 256; a thread for each detection. Shared memory: 160 bytes. A task has as many
//                      words of a strip as make about `wanted_tasks` tasks of all masks, and at least 4. Fast NMS does
//                      the same at its end; this is for the windows of another margin.
//     mask_soft        blocks of 128 walk the tiles of all masks; a thread has 4 pixels of a row that one load brings,
//                      where planes are a multiple of 4. Shared memory: 1 KB of coefficients.
//     mask_bits        blocks of 256 whose warps walk the tasks of all masks: a lane is a column of the frame. It
//                      interpolates across columns once for each prototype row, then makes its own words down the rows.
//                      Up to 64 registers: with fewer, some compilers spill.
// Bytes moved: prototypes inside windows once per detection (from the second-level cache), soft windows twice, one bit
//   for each frame pixel of a window. Limits: H * Hp, W * Wp < 2^30, H * W < 2^31.
// Order: no result depends on the order of threads or blocks.
#include "mask_layout.cuh"
#include "scalar.cuh"

constexpr int MAX_PROTOTYPES = 256;
constexpr int BLOCK_WARPS = 8;

extern "C" __global__ void __launch_bounds__(256) mask_layout(
    const float* detection_xyxy, const int* detection_count, int prototype_height, int prototype_width,
    int frame_height, int frame_width, float margin, long long arena_words, int wanted_tasks, MaskWindow* window,
    long long* offset, MaskPlan* plan, unsigned* status) {
    __shared__ LayoutStorage shared;
    const LayoutSettings settings = {
        {prototype_height, prototype_width}, {frame_height, frame_width}, margin, arena_words, wanted_tasks};
    lay_out_masks(detection_xyxy, *detection_count, settings, {window, offset, plan}, status, shared);
}

struct SoftInputs {
    const int* prior;
    const MaskWindow* window;
    const MaskPlan* plan;
    int count, prototypes;
    Size size;
    int fill;
};

// Four prototype pixels that one load brings.
template <class Value>
struct alignas(4 * sizeof(Value)) Four {
    Value value[4];
};

// Pixels place .. place + 3 of a plane, for all prototypes in order.
template <class Value>
__device__ __forceinline__ void combine(const Value* prototype, const float* coefficient, int prototypes, int plane,
                                        int place, float* linear) {
    const Value* pixel = prototype + place;
    int k = 0;
    // Planes of other sizes do not begin on four pixels.
    if (plane % 4 == 0) {
        constexpr int AT_ONCE = 8;
        for (; k + AT_ONCE <= prototypes; k += AT_ONCE) {
            Four<Value> loaded[AT_ONCE];
            for (int i = 0; i < AT_ONCE; ++i, pixel += plane) loaded[i] = *reinterpret_cast<const Four<Value>*>(pixel);
            for (int i = 0; i < AT_ONCE; ++i) {
                for (int j = 0; j < 4; ++j) {
                    linear[j] = fmaf(coefficient[k + i], to_float(loaded[i].value[j]), linear[j]);
                }
            }
        }
    }
    for (; k < prototypes; ++k, pixel += plane) {
        for (int j = 0; j < 4; ++j) {
            if (place + j < plane) linear[j] = fmaf(coefficient[k], to_float(pixel[j]), linear[j]);
        }
    }
}

template <class Value>
__device__ void soft_masks(const Value* prototype, const Value* mask_coefficient, const SoftInputs& inputs, float* soft,
                           unsigned* status, float* coefficient) {
    const int tid = static_cast<int>(threadIdx.x);
    const Span all_x = {0, inputs.size.width}, all_y = {0, inputs.size.height};
    const int plane = inputs.size.height * inputs.size.width;
    const int of_each = tiles_of(all_x, all_y);
    const MaskPlan* plan = inputs.plan + 1;
    const int tiles = inputs.fill ? inputs.count * of_each : inputs.plan[0].tile;
    for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x)) {
        const int detection = inputs.fill ? tile / of_each
                                          : find_owner(plan, &MaskPlan::tile, inputs.count, tile, tid % 32);
        const int first_tile = inputs.fill ? detection * of_each : plan[detection].tile;
        const Value* row = mask_coefficient + static_cast<long long>(inputs.prior[detection]) * inputs.prototypes;
        __syncthreads();  // the coefficients of the tile before have been read
        for (int k = tid; k < inputs.prototypes; k += TILE_THREADS) coefficient[k] = to_float(row[k]);
        __syncthreads();
        const MaskWindow mine = inputs.window[detection];
        const Span x = inputs.fill ? all_x : Span{mine.left, mine.right};
        const Span y = inputs.fill ? all_y : Span{mine.top, mine.bottom};
        const int fours = fours_of(x), index = (tile - first_tile) * TILE_THREADS + tid;
        const int py = y.first + index / fours;
        const int first = py * inputs.size.width;  // pixel of the plane with which the row begins
        const int place = ((first + x.first) & ~3) + 4 * (index % fours);
        const int px = place - first;
        if (py >= y.last || px >= x.last) continue;
        float linear[4] = {};
        const bool in_rows = py >= mine.top && py < mine.bottom;
        if (in_rows && px < mine.right && px + 3 >= mine.left) {
            combine(prototype, coefficient, inputs.prototypes, plane, place, linear);
        }
        float* out = soft + static_cast<long long>(detection) * plane + place;
        for (int j = 0; j < 4; ++j) {
            const bool inside = in_rows && px + j >= mine.left && px + j < mine.right;
            if (inside && !isfinite(linear[j])) atomicOr(status, STATUS_NOT_FINITE);
            if (px + j >= x.first && px + j < x.last) out[j] = inside ? 1.0f / (1.0f + expf(-linear[j])) : 0.0f;
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) mask_soft_f32(
    const float* prototype, const float* mask_coefficient, const int* detection_prior, const int* detection_count,
    const MaskWindow* window, const MaskPlan* plan, int num_prototypes, int height, int width, int fill, float* soft,
    unsigned* status) {
    __shared__ float coefficient[MAX_PROTOTYPES];
    if (num_prototypes > MAX_PROTOTYPES && threadIdx.x == 0) atomicOr(status, STATUS_LIMIT);
    if (num_prototypes > MAX_PROTOTYPES) return;
    const int count = min(*detection_count, MAX_DETECTIONS);
    soft_masks(prototype, mask_coefficient,
               {detection_prior, window, plan, count, num_prototypes, {height, width}, fill}, soft, status, coefficient);
}

extern "C" __global__ void __launch_bounds__(128) mask_soft_f16(
    const __half* prototype, const __half* mask_coefficient, const int* detection_prior, const int* detection_count,
    const MaskWindow* window, const MaskPlan* plan, int num_prototypes, int height, int width, int fill, float* soft,
    unsigned* status) {
    __shared__ float coefficient[MAX_PROTOTYPES];
    if (num_prototypes > MAX_PROTOTYPES && threadIdx.x == 0) atomicOr(status, STATUS_LIMIT);
    if (num_prototypes > MAX_PROTOTYPES) return;
    const int count = min(*detection_count, MAX_DETECTIONS);
    soft_masks(prototype, mask_coefficient,
               {detection_prior, window, plan, count, num_prototypes, {height, width}, fill}, soft, status, coefficient);
}

// A probability that is above or below one half by more than this keeps its side through both interpolations: their
// weights add up to 1 within 2^-24, and a product or a sum of numbers up to 1 is off by 2^-25, 2^-22 in all.
constexpr float CLEAR = 9.5367431640625e-7f;  // 2^-20
constexpr float SURELY_INSIDE = 0.5f + CLEAR, SURELY_OUTSIDE = 0.5f - CLEAR;

// A column of the frame between two columns of the prototypes. Outside of the crop window probabilities are 0, and `soft`
// need not have been written: a tap there has the weight 0, and is read from a column inside.
struct Column {
    int low, high;  // prototype columns
    float low_weight, high_weight;
};

__device__ __forceinline__ Column make_column(const LinearTap& tap, const MaskWindow& window, bool valid) {
    const bool has_low = valid && tap.low >= window.left && tap.low < window.right;
    const bool has_high = valid && tap.high >= window.left && tap.high < window.right;
    return {min(max(tap.low, window.left), window.right - 1), min(max(tap.high, window.left), window.right - 1),
            has_low ? 1.0f - tap.fraction : 0.0f, has_high ? tap.fraction : 0.0f};
}

struct Taps {
    float low, high;
};

// The probability of one prototype row at a column, and on which side of one half it stays for sure.
constexpr unsigned UNSURE = 0, INSIDE = 1, OUTSIDE = 2;

struct Row {
    float value;
    unsigned side;
};

__device__ __forceinline__ Row make_row(const Column& column, const Taps& taps) {
    const float value = taps.low * column.low_weight + taps.high * column.high_weight;
    return {value, value > SURELY_INSIDE ? INSIDE : value < SURELY_OUTSIDE ? OUTSIDE : UNSURE};
}

// How rows of the frame lie between rows of the prototypes: frame row y lies numerator / (2 H) below prototype row u, with
// numerator = (2 y + 1) Hp - H - 2 H u; see linear_taps.cuh.
struct Rows {
    int step;          // of the numerator, from one frame row to the next: 2 Hp
    int whole;         // from one prototype row to the next: 2 H
    int last;          // row of the prototypes
    float frame_rows;  // in a prototype row: H / Hp
    float of_step;     // 1 / step
};

__device__ __forceinline__ float row_fraction(const Rows& rows, bool is_last, int numerator) {
    if (is_last) return 0.0f;
    return static_cast<float>(max(numerator, 0)) / static_cast<float>(rows.whole);
}

// Bits of the frame rows `mine` of a word between two prototype rows, where the values of some lane do not settle them;
// `is_last`: below the last row, which is then both. `numerator` is that of the frame row with the lane's number.
__device__ __forceinline__ unsigned mixed_bits(const Row& above, const Row& below, unsigned mine, const Rows& rows,
                                               bool is_last, int numerator, int lane) {
    if (mine == 0) return 0;
    // Where one value is inside and the other outside, all rows before the crossing are as the upper one. The position
    // computed here is off by less than `tolerance` rows: the steps of `slope`, `ratio` and the two products, each of
    // at most (32 + frame_rows) 2^-22 / |slope|, and the rounding of the interpolation that it replaces, 2^-22 / |slope|.
    const float slope = __fdividef(1.0f, below.value - above.value);
    const float ratio = (0.5f - above.value) * slope;
    const float start = static_cast<float>(numerator - lane * rows.step);
    const float position = ratio * rows.frame_rows - start * rows.of_step;
    const float tolerance = (32.0f + rows.frame_rows) * 1.9073486328125e-6f * fabsf(slope);  // 2^-19
    const bool same = (above.side & below.side) != 0;
    const bool crossing = (above.side | below.side) == (INSIDE | OUTSIDE);
    const bool settled = same || (crossing && fabsf(position - rintf(position)) > tolerance);
    if (__all_sync(FULL_WARP, settled)) {
        const int before = static_cast<int>(fminf(fmaxf(ceilf(position), 0.0f), 32.0f));
        const unsigned upper_rows = before == 0 ? 0 : FULL_WARP >> (32 - before);
        const unsigned as_above = same ? FULL_WARP : upper_rows;
        return mine & (above.side == INSIDE ? as_above : ~as_above);
    }
    const float fraction = row_fraction(rows, is_last, numerator);
    unsigned bits = 0;
    for (unsigned rest = mine; rest != 0; rest &= rest - 1) {
        const int row = __ffs(static_cast<int>(rest)) - 1;
        const float value = interpolate(above.value, below.value, __shfl_sync(FULL_WARP, fraction, row));
        if (value > 0.5f) bits |= 1u << row;
    }
    return bits;
}

// Goes down the prototype rows of a window at one column: the rows above and below where it is, and what lies ahead.
struct Walk {
    int left;                 // rows to go down: the last one is that below the window, or the last of all
    int reserve;              // from so many rows before the end on there is nothing new to read
    bool ends_outside;        // the end is below the window, where probabilities are 0
    const float *low, *high;  // taps two rows below the row above
    Row above, below;
    Taps next;
};

__device__ __forceinline__ Walk begin_walk(const Column& column, const MaskWindow& window, const float* soft, int pitch,
                                           int last, int upper) {
    Walk walk = {};
    walk.ends_outside = window.bottom <= last;
    walk.left = min(window.bottom, last) - upper;
    walk.reserve = walk.ends_outside ? 2 : 1;
    walk.low = soft + (upper + 2) * pitch + column.low;
    walk.high = soft + (upper + 2) * pitch + column.high;
    Taps taps[3] = {};
    for (int i = 0; i < 3; ++i) {
        const int row = min(upper + i, last);
        if (row >= window.top && row < window.bottom) {
            taps[i] = {soft[row * pitch + column.low], soft[row * pitch + column.high]};
        }
    }
    walk.above = make_row(column, taps[0]);
    walk.below = make_row(column, taps[1]);
    walk.next = taps[2];
    return walk;
}

__device__ __forceinline__ void go_down(Walk& walk, const Column& column, int pitch) {
    --walk.left;
    walk.low += pitch;
    walk.high += pitch;
    walk.above = walk.below;
    walk.below = make_row(column, walk.next);
    if (walk.left > walk.reserve) {
        walk.next = {*walk.low, *walk.high};
    } else if (walk.ends_outside) {
        walk.next = {};  // otherwise the last row once more
    }
}

// Words [first, last) of 32 columns of a mask, into `out`; returns how many runs begin there in the lane's column. `soft`
// is the mask's plane, with `pitch` columns.
__device__ __forceinline__ int make_words(const Column& column, const float* soft, const Rows& rows,
                                          const MaskWindow& window, int pitch, int first, int last, int lane, bool valid,
                                          unsigned* out) {
    // The row above counts only for whether a run begins: the one above the window's first word is outside.
    const bool has_before = first > window.word;
    const int origin = rows.step / 2 - rows.whole / 2;  // numerator of frame row 0 below prototype row 0
    const int start_row = first * WORD_BITS - (has_before ? 1 : 0);
    const int lowest = max(start_row * rows.step + origin, 0) / rows.whole;
    const int upper = max(min(lowest, rows.last), window.top - 1);
    Walk walk = begin_walk(column, window, soft, pitch, rows.last, upper);
    int numerator = (first * WORD_BITS + lane) * rows.step + origin - upper * rows.whole;
    unsigned before = 0;  // the word above
    if (has_before) {
        const float fraction = row_fraction(rows, upper == rows.last, numerator - (lane + 1) * rows.step);
        if (interpolate(walk.above.value, walk.below.value, fraction) > 0.5f) before = 1u << (WORD_BITS - 1);
    }
    int runs = 0;
    for (int word = first; word < last; ++word) {
        const int height = rows.whole / 2 - word * WORD_BITS;  // of the frame from here on
        unsigned bits = 0, done = height < WORD_BITS ? FULL_WARP << height : 0;
        for (;;) {
            const unsigned so_far = __ballot_sync(FULL_WARP, numerator < rows.whole || walk.left <= 0);
            const unsigned mine = so_far & ~done;
            if (__all_sync(FULL_WARP, (walk.above.side & walk.below.side) != 0)) {
                if (walk.above.side == INSIDE) bits |= mine;
            } else {
                bits |= mixed_bits(walk.above, walk.below, mine, rows, walk.left <= 0, numerator, lane);
            }
            done |= so_far;
            if (done == FULL_WARP) break;
            numerator -= rows.whole;
            go_down(walk, column, pitch);
        }
        if (valid) *out = bits;
        runs += __popc(bits & ~__funnelshift_l(before, bits, 1));
        before = bits;
        numerator += WORD_BITS * rows.step;
        out += window.columns;
    }
    return runs;
}

extern "C" __global__ void __launch_bounds__(256, 4) mask_bits(
    const float* soft, const MaskWindow* window, const long long* offset, const int* detection_count,
    int prototype_height, int prototype_width, int frame_height, int frame_width, const MaskPlan* plan, int* task_runs,
    unsigned* arena) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int count = min(*detection_count, MAX_DETECTIONS);
    const MaskPlan all = plan[0];
    const Rows rows = {2 * prototype_height, 2 * frame_height, prototype_height - 1,
                       __fdividef(static_cast<float>(frame_height), static_cast<float>(prototype_height)),
                       __fdividef(0.5f, static_cast<float>(prototype_height))};
    const int warps = static_cast<int>(gridDim.x) * BLOCK_WARPS;
    int task = static_cast<int>(blockIdx.x) * BLOCK_WARPS + static_cast<int>(threadIdx.x) / 32;
    for (; task < all.task; task += warps) {
        const int detection = find_owner(plan + 1, &MaskPlan::task, count, task, lane);
        const MaskWindow mine = window[detection];
        const int cuts = (mine.words + all.task_words - 1) / all.task_words;
        const int place = task - plan[detection + 1].task;
        const int strip = place / cuts;
        const int first = (place - strip * cuts) * all.task_words;
        const int c = strip * 32 + lane;
        const float* probability = soft + static_cast<long long>(detection) * prototype_height * prototype_width;
        const LinearTap tap = linear_tap(min(mine.column + c, frame_width - 1), prototype_width, frame_width);
        const bool valid = c < mine.columns;
        const Column column = make_column(tap, mine, valid);
        unsigned* out = arena + offset[detection] + static_cast<long long>(first) * mine.columns + c;
        const int last = min(first + all.task_words, mine.words);
        const int runs = sum_of_warp(make_words(column, probability, rows, mine, prototype_width,
                                                mine.word + first, mine.word + last, lane, valid, out));
        if (lane == 0) task_runs[task] = runs;
    }
}
