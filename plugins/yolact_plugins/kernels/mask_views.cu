// mask_views: bits of masks -> arrays of the whole frame, made on demand.
//
// Formula: yolact_plugins.reference.id_map, and the masks themselves.
//
// Shapes, contiguous, windows on 16 bytes; n = detection_count[0] detections in m <= 256 rows:
//     arena, window (m, 8), offset (m + 1,): of `mask_bits`; see mask_window.cuh
//     id_map (H, W) i32: i + 1 of the best mask on top, or 0
//     dense  (m, H, W) u8: 0 or 1; rows from n on are not written
//
// Kernels, with blocks of 256:
//     mask_id_map      grid: (ceil(W / 256), ceil(H / 32)); a block for 256 columns of 32 rows, a thread for a column.
//                      The masks whose windows meet it are listed first. Shared memory: 8 KB.
//     mask_dense       grid: (*, m); a thread for each word of the frame: 32 rows of a column.
// Bytes moved: words under the windows once, the output once. Limits: H * W < 2^31.
// Order: no result depends on the order of threads or blocks.
#include "mask_window.cuh"

constexpr int BLOCK_THREADS = 256;

// A mask that meets a block: where its words of the block's rows lie.
struct Met {
    const unsigned* word;  // of the mask's first column
    int id, column, columns;
};

struct MetMasks {
    Met mask[MAX_DETECTIONS];
    int of_warp[BLOCK_THREADS / 32];
};

// Lists the masks whose windows meet word `word` of columns [first, first + 256), best first; returns how many.
__device__ int list_met(const unsigned* arena, const MaskWindow* window, const long long* offset, int count, int word,
                        int first, MetMasks& shared) {
    const int tid = static_cast<int>(threadIdx.x);
    Met met = {};
    bool meets = false;
    if (tid < count) {
        const MaskWindow mine = window[tid];
        const int row = word - mine.word;
        meets = row >= 0 && row < mine.words && mine.column < first + BLOCK_THREADS && mine.column + mine.columns > first;
        if (meets) {
            const long long place = offset[tid] + static_cast<long long>(row) * mine.columns;
            met = {arena + place, tid + 1, mine.column, mine.columns};
        }
    }
    const unsigned of_warp = __ballot_sync(FULL_WARP, meets);
    if (tid % 32 == 0) shared.of_warp[tid / 32] = __popc(of_warp);
    __syncthreads();
    int place = __popc(of_warp & ((1u << tid % 32) - 1)), total = 0;
    for (int w = 0; w < BLOCK_THREADS / 32; ++w) {
        if (w < tid / 32) place += shared.of_warp[w];
        total += shared.of_warp[w];
    }
    if (meets) shared.mask[place] = met;
    __syncthreads();
    return total;
}

extern "C" __global__ void __launch_bounds__(256) mask_id_map(const unsigned* arena, const MaskWindow* window,
                                                             const long long* offset, const int* detection_count,
                                                             int frame_height, int frame_width, int* id_map) {
    __shared__ MetMasks shared;
    const int count = min(*detection_count, MAX_DETECTIONS);
    const int word = static_cast<int>(blockIdx.y), first = static_cast<int>(blockIdx.x) * BLOCK_THREADS;
    const int met = list_met(arena, window, offset, count, word, first, shared);
    const int x = first + static_cast<int>(threadIdx.x);
    if (x >= frame_width) return;
    int id[WORD_BITS] = {};
    unsigned covered = 0;
    for (int i = 0; i < met && covered != FULL_WARP; ++i) {
        const Met mask = shared.mask[i];
        const int c = x - mask.column;
        if (c < 0 || c >= mask.columns) continue;
        const unsigned bits = mask.word[c] & ~covered;
        if (bits == 0) continue;
        covered |= bits;
        for (int r = 0; r < WORD_BITS; ++r) {
            if (bits >> r & 1u) id[r] = mask.id;
        }
    }
    const int rows = min(frame_height - word * WORD_BITS, WORD_BITS);
    int* out = id_map + static_cast<long long>(word) * WORD_BITS * frame_width + x;
    for (int r = 0; r < WORD_BITS; ++r, out += frame_width) {
        if (r < rows) *out = id[r];
    }
}

extern "C" __global__ void __launch_bounds__(256) mask_dense(const unsigned* arena, const MaskWindow* window,
                                                            const long long* offset, const int* detection_count,
                                                            int frame_height, int frame_width, unsigned char* dense) {
    const long long detection = blockIdx.y;
    if (detection >= *detection_count) return;
    const MaskWindow mine = window[detection];
    const unsigned* words = arena + offset[detection];
    unsigned char* out = dense + detection * frame_height * frame_width;
    const int blocks = (frame_width + BLOCK_THREADS - 1) / BLOCK_THREADS;  // of a row of words
    const int tasks = blocks * ((frame_height + WORD_BITS - 1) / WORD_BITS);
    for (int task = static_cast<int>(blockIdx.x); task < tasks; task += static_cast<int>(gridDim.x)) {
        const int word = task / blocks;
        const int x = (task - word * blocks) * BLOCK_THREADS + static_cast<int>(threadIdx.x);
        if (x >= frame_width) continue;
        const int row = word - mine.word, c = x - mine.column;
        const bool reached = row >= 0 && row < mine.words && c >= 0 && c < mine.columns;
        unsigned bits = reached ? words[static_cast<long long>(row) * mine.columns + c] : 0;
        const int rows = min(frame_height - word * WORD_BITS, WORD_BITS);
        unsigned char* pixel = out + static_cast<long long>(word) * WORD_BITS * frame_width + x;
        for (int r = 0; r < rows; ++r, bits >>= 1, pixel += frame_width) {
            *pixel = static_cast<unsigned char>(bits & 1u);
        }
    }
}
