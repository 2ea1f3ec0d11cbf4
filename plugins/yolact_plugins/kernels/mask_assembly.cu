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
// Shapes, contiguous, boxes on 16 bytes; T is float16 or float32; n = detection_count[0] detections in m <= 256 rows:
//     prototype (K, Hp, Wp) T, K <= 256      mask_coefficient (P, K) T
//     detection_xyxy (m, 4) f32, relative    detection_prior (m,) i32
//     window (m, 8) i32: see mask_window.cuh
//     offset (m + 1,) i64: words before each mask; offset[n] is the need of all
//     soft   (m, Hp, Wp) f32: written inside the windows, or everywhere (zeros outside) when `fill` is not 0, which is
//            what the mask-IoU network of YOLACT++ reads
//     arena  (arena_words,) u32
//     id_map (H, W) i32: i + 1 of the best mask on top, or 0
//     dense  (m, H, W) u8: 0 or 1; rows from n on are not written
//     run_count (m,), run_offset (m + 1,), run_start, run_end (run_capacity,) i32: runs of each column, sorted, with
//            start <= position < end and position = x * H + y as in COCO RLE; runs that touch across columns are not
//            joined; run_offset[n] is the need of all
//     status ARENA_OVERFLOW: masks that do not fit have no words; RUN_OVERFLOW: runs that do not fit are left out;
//            NOT_FINITE; LIMIT. Nothing is ever written outside of a buffer.
//
// Kernels (any number of blocks along the axis marked *), all with blocks of 256:
//     mask_layout      grid: 1; a thread for each detection. Shared memory: 2 KB.
//     mask_soft        grid: (*, m); a thread for each prototype pixel. Shared memory: 1 KB of coefficients.
//     mask_bits        grid: (*, m); a warp makes the words of 32 frame columns for all frame rows between two
//                      prototype rows: it interpolates across columns once, then down the rows; a ballot is a word.
//     mask_id_map      grid: (ceil(W / 32), ceil(H / 8)); a warp for each word; its lanes look for masks that reach it.
//     mask_dense       grid: (*, m); a thread for each pixel.
//     mask_runs_count, mask_runs_write   grid: m; a thread for each column, the second walks it twice. Shared memory:
//                      32 bytes.
// Bytes moved: prototypes inside windows once per detection (from the second-level cache), soft windows twice, one bit
//   for each frame pixel of a window. Limits: H * Hp, W * Wp < 2^30, H * W < 2^31.
// Order: no result depends on the order of threads or blocks.
#include "linear_taps.cuh"
#include "mask_window.cuh"
#include "scalar.cuh"
#include "status.cuh"

constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int MAX_DETECTIONS = 256;
constexpr int MAX_PROTOTYPES = 256;
constexpr int BLOCK_WARPS = 8;

struct Span {
    int first, last;
};

struct Size {
    int height, width;
};

// As NumPy computes it: every operation rounded on its own.
__device__ Span crop_window(float low, float high, int size, float margin) {
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

__device__ MaskWindow make_window(const float4& box, const Size& prototype, const Size& frame, float margin) {
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
    window.word = first_column / WORD_BITS;
    window.words = (last_column + WORD_BITS - 1) / WORD_BITS - window.word;
    window.row = first_row;
    window.rows = last_row - first_row;
    return window;
}

extern "C" __global__ void __launch_bounds__(256) mask_layout(
    const float* detection_xyxy, const int* detection_count, int prototype_height, int prototype_width,
    int frame_height, int frame_width, float margin, long long arena_words, MaskWindow* window, long long* offset,
    unsigned* status) {
    __shared__ long long need[MAX_DETECTIONS];
    const int tid = static_cast<int>(threadIdx.x);
    const int count = min(*detection_count, MAX_DETECTIONS);
    if (tid == 0 && *detection_count > MAX_DETECTIONS) atomicOr(status, STATUS_LIMIT);
    MaskWindow mine = {};
    if (tid < count) {
        const float4 box = reinterpret_cast<const float4*>(detection_xyxy)[tid];
        mine = make_window(box, {prototype_height, prototype_width}, {frame_height, frame_width}, margin);
    }
    need[tid] = static_cast<long long>(mine.words) * mine.rows;
    __syncthreads();
    long long before = 0;
    for (int i = 0; i < tid; ++i) before += need[i];
    if (tid == 0 && count == 0) offset[0] = 0;
    if (tid >= count) return;
    if (need[tid] > 0 && before + need[tid] > arena_words) {
        atomicOr(status, STATUS_ARENA_OVERFLOW);
        mine.words = mine.rows = 0;
    }
    window[tid] = mine;
    offset[tid] = before;
    if (tid == count - 1) offset[count] = before + need[tid];
}

template <class Value>
__device__ void soft_mask(const Value* prototype, const Value* mask_coefficient, const int* detection_prior,
                          const MaskWindow* window, int num_prototypes, const Size& size, int fill, float* soft,
                          unsigned* status, float* coefficient) {
    const int tid = static_cast<int>(threadIdx.x);
    const long long detection = blockIdx.y;
    const MaskWindow mine = window[detection];
    const Value* row = mask_coefficient + static_cast<long long>(detection_prior[detection]) * num_prototypes;
    for (int k = tid; k < num_prototypes; k += static_cast<int>(blockDim.x)) coefficient[k] = to_float(row[k]);
    __syncthreads();
    const long long plane = static_cast<long long>(size.height) * size.width;
    const Span x = fill ? Span{0, size.width} : Span{mine.left, mine.right};
    const Span y = fill ? Span{0, size.height} : Span{mine.top, mine.bottom};
    const int width = max(x.last - x.first, 0);
    const int pixels = width * max(y.last - y.first, 0);
    const int stride = static_cast<int>(gridDim.x * blockDim.x);
    for (int i = static_cast<int>(blockIdx.x * blockDim.x) + tid; i < pixels; i += stride) {
        const int py = y.first + i / width;
        const int px = x.first + i % width;
        const bool inside = px >= mine.left && px < mine.right && py >= mine.top && py < mine.bottom;
        float linear = 0.0f;
        const Value* pixel = prototype + static_cast<long long>(py) * size.width + px;
        for (int k = 0; inside && k < num_prototypes; ++k) {
            linear = fmaf(coefficient[k], to_float(pixel[k * plane]), linear);
        }
        if (!isfinite(linear)) atomicOr(status, STATUS_NOT_FINITE);
        soft[detection * plane + static_cast<long long>(py) * size.width + px] =
            inside ? 1.0f / (1.0f + expf(-linear)) : 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(256) mask_soft_f32(
    const float* prototype, const float* mask_coefficient, const int* detection_prior, const int* detection_count,
    const MaskWindow* window, int num_prototypes, int height, int width, int fill, float* soft, unsigned* status) {
    __shared__ float coefficient[MAX_PROTOTYPES];
    if (num_prototypes > MAX_PROTOTYPES && threadIdx.x == 0) atomicOr(status, STATUS_LIMIT);
    if (num_prototypes > MAX_PROTOTYPES || static_cast<int>(blockIdx.y) >= *detection_count) return;
    soft_mask(prototype, mask_coefficient, detection_prior, window, num_prototypes, {height, width}, fill, soft, status,
              coefficient);
}

extern "C" __global__ void __launch_bounds__(256) mask_soft_f16(
    const __half* prototype, const __half* mask_coefficient, const int* detection_prior, const int* detection_count,
    const MaskWindow* window, int num_prototypes, int height, int width, int fill, float* soft, unsigned* status) {
    __shared__ float coefficient[MAX_PROTOTYPES];
    if (num_prototypes > MAX_PROTOTYPES && threadIdx.x == 0) atomicOr(status, STATUS_LIMIT);
    if (num_prototypes > MAX_PROTOTYPES || static_cast<int>(blockIdx.y) >= *detection_count) return;
    soft_mask(prototype, mask_coefficient, detection_prior, window, num_prototypes, {height, width}, fill, soft, status,
              coefficient);
}

// Probability at a prototype pixel, 0 outside of the crop window: there `soft` need not have been written.
__device__ __forceinline__ float soft_at(const float* soft, const MaskWindow& window, int width, int y, int x) {
    const bool inside = x >= window.left && x < window.right && y >= window.top && y < window.bottom;
    return inside ? soft[static_cast<long long>(y) * width + x] : 0.0f;
}

extern "C" __global__ void __launch_bounds__(256) mask_bits(
    const float* soft, const MaskWindow* window, const long long* offset, const int* detection_count,
    int prototype_height, int prototype_width, int frame_height, int frame_width, unsigned* arena) {
    const long long detection = blockIdx.y;
    if (detection >= *detection_count) return;
    const MaskWindow mine = window[detection];
    if (mine.rows == 0) return;
    const float* probability = soft + detection * prototype_height * prototype_width;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(blockIdx.x) * BLOCK_WARPS + static_cast<int>(threadIdx.x) / 32;
    const int tasks = (mine.bottom - mine.top + 1) * mine.words;
    for (int task = warp; task < tasks; task += static_cast<int>(gridDim.x) * BLOCK_WARPS) {
        const int upper = mine.top - 1 + task / mine.words;  // prototype row above the frame rows of this task
        const int word = task % mine.words;
        const int lower = min(upper + 1, prototype_height - 1);
        const int first = first_with_low(upper, prototype_height, frame_height);
        const int last = first_with_low(upper + 1, prototype_height, frame_height);
        const int x = (mine.word + word) * WORD_BITS + lane;
        const LinearTap tap = linear_tap(min(x, frame_width - 1), prototype_width, frame_width);
        const float above = interpolate(soft_at(probability, mine, prototype_width, upper, tap.low),
                                        soft_at(probability, mine, prototype_width, upper, tap.high), tap.fraction);
        const float below = interpolate(soft_at(probability, mine, prototype_width, lower, tap.low),
                                        soft_at(probability, mine, prototype_width, lower, tap.high), tap.fraction);
        for (int y = first; y < last; ++y) {
            const float fraction = upper == lower ? 0.0f : linear_fraction(y, upper, prototype_height, frame_height);
            const bool inside = x < frame_width && interpolate(above, below, fraction) > 0.5f;
            const unsigned bits = __ballot_sync(FULL_WARP, inside);
            if (lane == 0) arena[offset[detection] + static_cast<long long>(y - mine.row) * mine.words + word] = bits;
        }
    }
}

// 32 pixels of a mask in frame row y, or 0 where the mask does not reach.
__device__ __forceinline__ unsigned read_word(const unsigned* arena, const MaskWindow& window, long long offset, int y,
                                              int word) {
    const int row = y - window.row;
    const int column = word - window.word;
    if (row < 0 || row >= window.rows || column < 0 || column >= window.words) return 0;
    return arena[offset + static_cast<long long>(row) * window.words + column];
}

extern "C" __global__ void __launch_bounds__(256) mask_id_map(const unsigned* arena, const MaskWindow* window,
                                                             const long long* offset, const int* detection_count,
                                                             int frame_height, int frame_width, int* id_map) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int word = static_cast<int>(blockIdx.x);
    const int y = static_cast<int>(blockIdx.y) * BLOCK_WARPS + static_cast<int>(threadIdx.x) / 32;
    if (y >= frame_height) return;  // a whole warp
    const int count = *detection_count;
    unsigned covered = 0;
    int id = 0;
    for (int base = 0; base < count && covered != FULL_WARP; base += 32) {
        const int candidate = base + lane;
        unsigned bits = 0;
        if (candidate < count) bits = read_word(arena, window[candidate], offset[candidate], y, word);
        // Every lane holds one mask's word; those with pixels are handed round, best first.
        unsigned holders = __ballot_sync(FULL_WARP, bits != 0);
        while (holders != 0) {
            const int holder = __ffs(static_cast<int>(holders)) - 1;
            holders &= holders - 1;
            const unsigned held = __shfl_sync(FULL_WARP, bits, holder);
            if (id == 0 && (held >> lane & 1u)) id = base + holder + 1;
            covered |= held;
        }
    }
    const int x = word * WORD_BITS + lane;
    if (x < frame_width) id_map[static_cast<long long>(y) * frame_width + x] = id;
}

extern "C" __global__ void __launch_bounds__(256) mask_dense(const unsigned* arena, const MaskWindow* window,
                                                            const long long* offset, const int* detection_count,
                                                            int frame_height, int frame_width, unsigned char* dense) {
    const long long detection = blockIdx.y;
    if (detection >= *detection_count) return;
    const MaskWindow mine = window[detection];
    const int pixels = frame_height * frame_width;
    unsigned char* out = dense + detection * pixels;
    const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < pixels; i += stride) {
        const int y = static_cast<int>(i) / frame_width;
        const int x = static_cast<int>(i) % frame_width;
        const unsigned bits = read_word(arena, mine, offset[detection], y, x / WORD_BITS);
        out[i] = static_cast<unsigned char>(bits >> x % WORD_BITS & 1u);
    }
}

// Calls visit(first row, row after the last) for every run of a column of a mask; returns how many there are.
template <class Visit>
__device__ int walk_column(const unsigned* arena, const MaskWindow& window, long long offset, int column,
                           const Visit& visit) {
    const unsigned* word = arena + offset + column / WORD_BITS;
    const int bit = column % WORD_BITS;
    int runs = 0;
    int start = -1;
    for (int row = 0; row <= window.rows; ++row) {
        const bool inside =
            row < window.rows && (word[static_cast<long long>(row) * window.words] >> bit & 1u);
        if (inside && start < 0) start = row;
        if (!inside && start >= 0) {
            visit(runs, window.row + start, window.row + row);
            start = -1;
            ++runs;
        }
    }
    return runs;
}

struct RunStorage {
    int of_warp[BLOCK_WARPS];
};

// Sum of `value` over the threads before this one, and over the whole block of 256.
__device__ int sum_before(int value, RunStorage& shared, int& total) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    int inclusive = value;
    for (int step = 1; step < 32; step *= 2) {
        const int before = __shfl_up_sync(FULL_WARP, inclusive, static_cast<unsigned>(step));
        if (lane >= step) inclusive += before;
    }
    __syncthreads();  // the sums of the call before have been read
    if (lane == 31) shared.of_warp[warp] = inclusive;
    __syncthreads();
    int result = inclusive - value;
    total = 0;
    for (int w = 0; w < BLOCK_WARPS; ++w) {
        if (w < warp) result += shared.of_warp[w];
        total += shared.of_warp[w];
    }
    return result;
}

extern "C" __global__ void __launch_bounds__(256) mask_runs_count(const unsigned* arena, const MaskWindow* window,
                                                                 const long long* offset, const int* detection_count,
                                                                 int* run_count) {
    __shared__ RunStorage shared;
    const int detection = static_cast<int>(blockIdx.x);
    if (detection >= *detection_count) return;
    const MaskWindow mine = window[detection];
    int runs = 0;
    for (int column = static_cast<int>(threadIdx.x); column < mine.words * WORD_BITS; column += 32 * BLOCK_WARPS) {
        runs += walk_column(arena, mine, offset[detection], column, [](int, int, int) {});
    }
    int total;
    sum_before(runs, shared, total);
    if (threadIdx.x == 0) run_count[detection] = total;
}

extern "C" __global__ void __launch_bounds__(256) mask_runs_write(
    const unsigned* arena, const MaskWindow* window, const long long* offset, const int* detection_count,
    const int* run_count, int frame_height, int run_capacity, int* run_offset, int* run_start, int* run_end,
    unsigned* status) {
    __shared__ RunStorage shared;
    const int tid = static_cast<int>(threadIdx.x);
    const int detection = static_cast<int>(blockIdx.x);
    const int count = *detection_count;
    if (detection == 0 && tid == 0) run_offset[0] = 0;
    if (detection >= count) return;
    const MaskWindow mine = window[detection];
    int base;
    sum_before(tid < detection ? run_count[tid] : 0, shared, base);
    const int end = base + run_count[detection];
    if (tid == 0) run_offset[detection + 1] = end;
    if (tid == 0 && end > run_capacity) atomicOr(status, STATUS_RUN_OVERFLOW);
    for (int first = 0; first < mine.words * WORD_BITS; first += 32 * BLOCK_WARPS) {
        const int column = first + tid;
        const bool valid = column < mine.words * WORD_BITS;
        const int runs = valid ? walk_column(arena, mine, offset[detection], column, [](int, int, int) {}) : 0;
        int total;
        const int place = base + sum_before(runs, shared, total);
        if (runs > 0) {
            const int position = (mine.word * WORD_BITS + column) * frame_height;
            walk_column(arena, mine, offset[detection], column, [&](int run, int start, int stop) {
                if (place + run >= run_capacity) return;
                run_start[place + run] = position + start;
                run_end[place + run] = position + stop;
            });
        }
        base += total;
    }
}
