// mask_runs: bits of masks -> runs of pixels, and everything that a frame brings back -> the host's memory.
//
// Formula: a run is a longest stretch of set bits in a column of a mask. Runs are sorted by mask and by start, with
//   start <= position < end and position = x * H + y as in COCO RLE; runs that touch across columns are not joined.
//
// Shapes, contiguous, windows, plans and all that is copied on 16 bytes; n = detection_count[0] detections in m <= 256:
//     arena, window (m, 8), offset (m + 1,), plan (m + 1, 4), task_runs: of `mask_bits`; see mask_assembly.cu
//     run_offset (m + 1,) i32: runs before each mask; run_offset[n] is the need of all
//     run_start, run_end (run_capacity,) i32, in the GPU's memory
//     results, host_results (result_bytes,), a multiple of 16; host_start, host_end (run_capacity,) i32: mapped memory
//     status RUN_OVERFLOW: runs that do not fit are left out. Nothing is ever written outside of a buffer.
//
// Kernels (any number of blocks of 256):
//     mask_runs_write  a warp walks the words of a strip of 32 columns, a lane those of a column: once to count, once to
//                      write; it looks at a single row only where a run begins or ends.
//     mask_results     copies the results, and as many runs as there are, 16 bytes at a time: what crosses a bus goes in
//                      whole lines.
// Bytes moved: the arena once (the second time it is in the first-level cache), 8 bytes for each run written, read and
//   written to the host. Limits: H * W < 2^31.
// Order: no result depends on the order of threads or blocks.
#include "mask_window.cuh"
#include "status.cuh"

constexpr int BLOCK_WARPS = 8;

struct RunBuffers {
    int capacity;
    int* start;
    int* end;
};

// Runs that begin in the first `tasks` tasks; the whole warp calls it.
__device__ __forceinline__ int runs_before(const int* task_runs, int tasks, int lane) {
    const int4* four = reinterpret_cast<const int4*>(task_runs);
    int sum = 0;
    for (int i = lane; i < tasks / 4; i += 32) sum += four[i].x + four[i].y + four[i].z + four[i].w;
    const int rest = tasks / 4 * 4 + lane;
    if (rest < tasks) sum += task_runs[rest];
    return sum_of_warp(sum);
}

__device__ __forceinline__ int count_column(const unsigned* word, int words, int pitch) {
    unsigned before = 0;
    int runs = 0;
    for (int w = 0; w < words; ++w, word += pitch) {
        const unsigned bits = *word;
        runs += __popc(bits & ~__funnelshift_l(before, bits, 1));
        before = bits;
    }
    return runs;
}

// `position` is that of the first word's first row, `place` that of the column's first run.
__device__ __forceinline__ void write_column(const unsigned* word, int words, int pitch, int position, int place,
                                             const RunBuffers& out) {
    unsigned before = 0;
    int end_place = place;
    for (int w = 0; w < words; ++w, word += pitch, position += WORD_BITS) {
        const unsigned bits = *word;
        const unsigned above = __funnelshift_l(before, bits, 1);
        for (unsigned starts = bits & ~above; starts != 0; starts &= starts - 1, ++place) {
            if (place < out.capacity) out.start[place] = position + __ffs(static_cast<int>(starts)) - 1;
        }
        for (unsigned ends = above & ~bits; ends != 0; ends &= ends - 1, ++end_place) {
            if (end_place < out.capacity) out.end[end_place] = position + __ffs(static_cast<int>(ends)) - 1;
        }
        before = bits;
    }
    if (before >> (WORD_BITS - 1) != 0 && end_place < out.capacity) out.end[end_place] = position;
}

extern "C" __global__ void __launch_bounds__(256) mask_runs_write(
    const unsigned* arena, const MaskWindow* window, const long long* offset, const int* detection_count,
    const MaskPlan* plan, const int* task_runs, int frame_height, int run_capacity, int* run_offset, int* run_start,
    int* run_end, unsigned* status) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int count = min(*detection_count, MAX_DETECTIONS);
    const MaskPlan all = plan[0];
    const int warp = static_cast<int>(blockIdx.x) * BLOCK_WARPS + static_cast<int>(threadIdx.x) / 32;
    // The first items of the list are the n + 1 offsets, the others the strips.
    for (int item = warp; item <= count + all.strip; item += static_cast<int>(gridDim.x) * BLOCK_WARPS) {
        const int strip = item - count - 1;
        const int detection = strip < 0 ? item : find_owner(plan + 1, &MaskPlan::strip, count, strip, lane);
        const MaskPlan first = detection < count ? plan[detection + 1] : all;
        const MaskWindow mine = strip < 0 ? MaskWindow{} : window[detection];
        const int cuts = (mine.words + all.task_words - 1) / all.task_words;
        const int before = runs_before(task_runs, first.task + (strip - first.strip) * cuts, lane);
        if (strip < 0) {
            if (lane == 0) run_offset[detection] = before;
            if (lane == 0 && detection == count && before > run_capacity) atomicOr(status, STATUS_RUN_OVERFLOW);
            continue;
        }
        const int c = (strip - first.strip) * 32 + lane;
        const int words = c < mine.columns ? mine.words : 0;
        const unsigned* word = arena + offset[detection] + c;
        const int runs = count_column(word, words, mine.columns);
        const int place = before + sum_up_to(runs, lane) - runs;
        if (runs == 0) continue;
        const int position = (mine.column + c) * frame_height + mine.word * WORD_BITS;
        write_column(word, words, mine.columns, position, place, {run_capacity, run_start, run_end});
    }
}

// `count` numbers, 16 bytes at a time and the rest one by one.
__device__ __forceinline__ void copy_numbers(const int* from, int* to, int count, int thread, int threads) {
    const int4* wide_from = reinterpret_cast<const int4*>(from);
    int4* wide_to = reinterpret_cast<int4*>(to);
    for (int i = thread; i < count / 4; i += threads) wide_to[i] = wide_from[i];
    const int rest = count / 4 * 4 + thread;
    if (rest < count) to[rest] = from[rest];
}

extern "C" __global__ void __launch_bounds__(256) mask_results(
    const int* results, int* host_results, int result_bytes, const int* detection_count, const int* run_offset,
    const int* run_start, const int* run_end, int run_capacity, int* host_start, int* host_end) {
    const int thread = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    const int threads = static_cast<int>(gridDim.x * blockDim.x);
    copy_numbers(results, host_results, result_bytes / 4, thread, threads);
    const int runs = min(run_offset[min(*detection_count, MAX_DETECTIONS)], run_capacity);
    copy_numbers(run_start, host_start, runs, thread, threads);
    copy_numbers(run_end, host_end, runs, thread, threads);
}
