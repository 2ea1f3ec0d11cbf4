// fast_nms: candidates -> detections by YOLACT's matrix suppression, per class or over all classes.
//
// Formula: yolact_plugins.reference.fast_nms and cross_class_fast_nms. In each class (or over the best class of every
//   candidate) the `top_k` best boxes are sorted; box j is kept iff IoU(i, j) <= iou_threshold for every better i, kept
//   or not. No box is clipped and no score is too small, unless min_confidence > 0: then scores have to be above it.
//   The per-class form returns the `max_instances` best of all classes, the cross-class form all it keeps.
//   Candidates are the same in all classes, and so is which of them hide each other; only who is the better one
//   differs. So the per-class form compares boxes once, and then has bits. Nothing is sorted before the end: all who
//   are better than a candidate among the top_k best are among them, too.
// Ties: equal scores are ordered by lower class, then by lower prior, as in the reference. The IoU test is that of
//   suppression.cuh, bit by bit as in NumPy; NaN (boxes without area) drops a box, as there.
//
// Shapes, contiguous, boxes on 16 bytes; n = candidate_count[0] <= capacity; m = max_instances, or top_k for the
// cross-class form; all in float32 whatever the network's dtype:
//     candidate_score  (C - 1, capacity) f32    candidate_xyxy  (capacity, 4) f32    candidate_prior  (capacity,) i32
//     overlap          (32, 1024) u32: bit b of word (w, j) is set where candidates 32 w + b and j hide each other;
//                      words of existing candidates only, and none if n > 1024
//     kept_key         ((C - 1) * top_k,) u64, see top_keys.cuh: what the classes keep, in any order
//     kept_count       (3,) i32: see KeptCount; the third one is how many keys there are
//     best_score, best_class      (capacity,) f32, i32: between the kernels of the cross-class form
//     detection_count (1,) i32    detection_prior, detection_class (m,) i32    detection_confidence (m,) f32
//     detection_xyxy (m, 4) f32: relative to the image; best first; rows from detection_count on are not written
//     window, offset, plan: of the detections' masks; see mask_assembly.cu, also for the settings
// Limits: top_k, max_instances <= 256; capacity <= 2^20; C - 1 <= 16384; else status gets LIMIT and the count is 0.
//
// Kernels:
//     fast_nms_overlap      grid: ceil(w (w + 1) / 8) with w = ceil(min(capacity, 1024) / 32), at least 1; block: 128.
//                           A warp for 32 x 32 candidates on or above the diagonal. Also zeroes
//                           the first two of kept_count. Shared memory: none.
//     fast_nms_class        grid: C - 1; block: 128. A thread for a candidate: its bits, and the scores of those who
//                           hide it. Where more than top_k are listed, first the bound of the top_k best. Where
//                           n > 1024, select, sort, load boxes, IoU. May be run again before the next kernel. Shared
//                           memory: 11312 bytes.
//     fast_nms_merge        grid: 1; block: 1024. The best kept boxes of all classes, and their masks' layout
//                           by `mask_layout`. Shared memory: 5296 bytes.
//     fast_nms_best_class   grid: ceil(capacity / 256); block: 256. Best class of every candidate; reads run along
//                           candidates. Shared memory: none.
//     fast_nms_cross_class  grid: 1; block: 1024. Select, sort, load boxes, IoU: a warp for each column j, its lanes
//                           over the better boxes. Also the masks' layout, by `mask_layout`. Shared memory: 11472 bytes.
// Bytes moved: 4 n (C - 1), up to three times; n / 8 for each candidate and listed score; 8 for each kept one, written
//   and read; results. Mostly from the second-level cache.
// Order: selection is by unique keys, so results do not depend on the order of threads, blocks or atomics.
#include "class_keys.cuh"
#include "mask_layout.cuh"
#include "status.cuh"
#include "suppression.cuh"

constexpr int COMPARED = 1024;  // candidates whose overlaps are kept as bits: 32 * 33 / 2 tiles
constexpr int TILES_OF_A_BLOCK = 4;
constexpr int THREADS_OF_A_CLASS = 128;

// Candidates 32 row + i against 32 column + lane, row <= column: 32 words, and 32 on the other side of the diagonal.
__device__ __forceinline__ void compare_tile(const float4* boxes, int count, int row, int column, float iou_threshold,
                                             unsigned* overlap) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int mine = 32 * column + lane;
    const bool exists = mine < count;
    const float4 box = boxes[min(mine, count - 1)];
    const float area = area_of(box);
    const float4* const others = boxes + 32 * row;
    const int rows = min(count - 32 * row, 32);
    unsigned bits = 0;
    for (int i = 0; i < rows; ++i) {
        if (overlap_of(others[i], area_of(others[i]), box, area).may_hide(iou_threshold)) bits |= 1u << i;
    }
    if (!exists) bits = 0;
    if (row == column) bits &= ~(1u << lane);  // nothing hides itself
    for (unsigned rest = bits; rest != 0; rest &= rest - 1u) {
        const int i = __ffs(static_cast<int>(rest)) - 1;
        if (!overlap_of(others[i], area_of(others[i]), box, area).hides(iou_threshold)) bits &= ~(1u << i);
    }
    if (exists) overlap[row * COMPARED + mine] = bits;
    if (row == column) return;
    unsigned transposed = 0;
    if (__any_sync(WHOLE_WARP, bits != 0)) {
        for (int i = 0; i < 32; ++i) {
            const unsigned ballot = __ballot_sync(WHOLE_WARP, bits >> i & 1u);
            if (i == lane) transposed = ballot;
        }
    }
    if (lane < rows) overlap[column * COMPARED + 32 * row + lane] = transposed;
}

extern "C" __global__ void __launch_bounds__(128) fast_nms_overlap(
    const float* candidate_xyxy, const int* candidate_count, int capacity, float iou_threshold, unsigned* overlap,
    int* kept_count) {
    if (blockIdx.x == 0 && threadIdx.x == 0) kept_count[APPENDED] = kept_count[FINISHED] = 0;
    const int count = min(*candidate_count, capacity);
    const int words = (count + 31) / 32;
    const int tile = static_cast<int>(blockIdx.x * TILES_OF_A_BLOCK + threadIdx.x / 32);
    if (count > COMPARED || tile >= words * (words + 1) / 2) return;
    // Tiles are numbered along columns, which end at the diagonal: column (column + 1) / 2 of them before each.
    const int column = static_cast<int>((sqrtf(static_cast<float>(8 * tile + 1)) - 1.0f) * 0.5f);
    const int row = tile - column * (column + 1) / 2;
    compare_tile(reinterpret_cast<const float4*>(candidate_xyxy), count, row, column, iou_threshold, overlap);
}

// Whether a candidate that is better in this class hides `mine`, whose order in it is given.
__device__ __forceinline__ bool is_hidden(const ClassKeys& keys, const unsigned* overlap, int count, int mine,
                                          unsigned order) {
    const int words = (count + 31) / 32;
    for (int first = 0; first < words; first += 4) {
        unsigned loaded[4];
        for (int i = 0; i < 4; ++i) loaded[i] = first + i < words ? overlap[(first + i) * COMPARED + mine] : 0;
        for (int i = 0; i < 4; ++i) {
            for (unsigned bits = loaded[i]; bits != 0; bits &= bits - 1u) {
                const int other = 32 * (first + i) + __ffs(static_cast<int>(bits)) - 1;
                const unsigned others = keys.order(other);
                if (others > order || (others == order && other < mine)) return true;
            }
        }
    }
    return false;
}

// The smallest key of a class that is among its `top_k` best; 1 where all that are listed are, 0 where none is listed.
__device__ __forceinline__ Key bound_of(const ClassKeys& keys, int count, int top_k, SuppressStorage& shared) {
    if (count <= top_k) return 1;
    const int tid = static_cast<int>(threadIdx.x);
    int listed = 0;
    for (int first = 0; first < count; first += THREADS_OF_A_CLASS) {
        const bool is_listed = first + tid < count && keys.order(first + tid) != 0;
        listed += __popc(__ballot_sync(WHOLE_WARP, is_listed));
    }
    if (tid % 32 == 0) shared.kept_of_warp[tid / 32] = listed;
    __syncthreads();
    listed = 0;
    for (int w = 0; w < THREADS_OF_A_CLASS / 32; ++w) listed += shared.kept_of_warp[w];
    if (listed <= top_k) return listed == 0 ? 0 : 1;
    return find_bound(HeldKeys<COMPARED / THREADS_OF_A_CLASS, ClassKeys>(keys, count), top_k, shared.top);
}

__device__ __forceinline__ void keep_by_overlap(const ClassKeys& keys, const unsigned* overlap, int count, int top_k,
                                                const KeptKeys& kept, SuppressStorage& shared) {
    const Key bound = bound_of(keys, count, top_k, shared);
    if (bound == 0) return;
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (int first = static_cast<int>(threadIdx.x) - lane; first < count; first += THREADS_OF_A_CLASS) {
        const int mine = first + lane;
        const unsigned order = mine < count ? keys.order(mine) : 0;
        if (__ballot_sync(WHOLE_WARP, order != 0) == 0) continue;
        const Key key = order == 0 ? 0 : make_key(order, keys.class_id, mine);
        append(key >= bound && !is_hidden(keys, overlap, count, mine, order), key, kept);
    }
}

__device__ __forceinline__ void keep_sorted(const ClassKeys& keys, int count, int top_k, float iou_threshold,
                                            const float* xyxy, const KeptKeys& kept, SuppressStorage& shared) {
    const int best = select_and_suppress<4>(keys, count, top_k, iou_threshold, xyxy, shared);
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (int first = static_cast<int>(threadIdx.x) - lane; first < best; first += THREADS_OF_A_CLASS) {
        const int mine = first + lane;
        const bool is_kept = mine < best && shared.keep[mine];
        append(is_kept, is_kept ? shared.top.sorted[mine] : 0, kept);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS_OF_A_CLASS, 8) fast_nms_class(
    const float* candidate_score, const float* candidate_xyxy, const int* candidate_count, const unsigned* overlap,
    int capacity, float iou_threshold, float min_confidence, int top_k, Key* kept_key, int* kept_count,
    unsigned* status) {
    __shared__ SuppressStorage shared;
    const int class_id = static_cast<int>(blockIdx.x);
    const ClassKeys keys = {candidate_score + static_cast<long long>(class_id) * capacity, min_confidence, class_id};
    const KeptKeys kept = {kept_key, kept_count};
    const int count = min(*candidate_count, capacity);
    if (top_k > MAX_TOP || capacity > MAX_INDEX || gridDim.x > MAX_CLASSES) {
        if (threadIdx.x == 0) atomicOr(status, STATUS_LIMIT);
    } else if (top_k <= 0 || !(iou_threshold >= 0.0f)) {
        // Below 0 the reference keeps nothing, because it compares with the zeros of the rest of its matrix, too.
    } else if (count <= COMPARED) {
        keep_by_overlap(keys, overlap, count, top_k, kept, shared);
    } else {
        keep_sorted(keys, count, top_k, iou_threshold, candidate_xyxy, kept, shared);
    }
    __syncthreads();
    if (threadIdx.x == 0) finish(kept);
}

struct Detections {
    int* prior;
    int* class_id;
    float* confidence;
    float* xyxy;
};

__device__ __forceinline__ void write_detection(const Detections& out, int row, const int* candidate_prior,
                                                const float* candidate_xyxy, int candidate, int class_id, float score) {
    out.prior[row] = candidate_prior[candidate];
    out.class_id[row] = class_id;
    out.confidence[row] = score;
    reinterpret_cast<float4*>(out.xyxy)[row] = reinterpret_cast<const float4*>(candidate_xyxy)[candidate];
}

struct ListedKeys {
    const Key* keys;
    __device__ __forceinline__ Key operator()(int index) const { return keys[index]; }
};

extern "C" __global__ void __launch_bounds__(1024, 1) fast_nms_merge(
    const Key* kept_key, const int* kept_count, const int* candidate_prior, const float* candidate_xyxy,
    int max_instances, int* detection_count, int* detection_prior, int* detection_class, float* detection_confidence,
    float* detection_xyxy, int prototype_height, int prototype_width, int frame_height, int frame_width, float margin,
    long long arena_words, int wanted_tasks, MaskWindow* window, long long* offset, MaskPlan* plan, unsigned* status) {
    __shared__ TopStorage shared;
    __shared__ LayoutStorage layout;
    const int tid = static_cast<int>(threadIdx.x);
    int count = 0;
    if (max_instances <= MAX_TOP) {
        count = select_top<8>(ListedKeys{kept_key}, kept_count[TOTAL], max_instances, shared);
    } else if (tid == 0) {
        atomicOr(status, STATUS_LIMIT);
    }
    if (tid == 0) *detection_count = count;
    if (tid < count) {
        const Key key = shared.sorted[tid];
        write_detection({detection_prior, detection_class, detection_confidence, detection_xyxy}, tid,
                        candidate_prior, candidate_xyxy, index_of(key), class_of(key), score_of(key));
    }
    __syncthreads();
    lay_out_masks(detection_xyxy, count,
                  {{prototype_height, prototype_width}, {frame_height, frame_width}, margin, arena_words, wanted_tasks},
                  {window, offset, plan}, status, layout);
}

extern "C" __global__ void __launch_bounds__(256) fast_nms_best_class(const float* candidate_score,
                                                                     const int* candidate_count, int capacity,
                                                                     int num_classes, float* best_score,
                                                                     int* best_class) {
    const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (index >= min(*candidate_count, capacity)) return;
    float best = candidate_score[index];
    int class_id = 0;
    for (int c = 1; c < num_classes; ++c) {
        const float score = candidate_score[static_cast<long long>(c) * capacity + index];
        if (score > best) {  // strictly: of equal scores the lowest class
            best = score;
            class_id = c;
        }
    }
    best_score[index] = best;
    best_class[index] = class_id;
}

struct BestClassKeys {
    const float* score;
    const int* class_id;
    float min_confidence;
    __device__ __forceinline__ Key operator()(int index) const {
        const float value = score[index];
        const bool is_listed = !(min_confidence > 0.0f) || value > min_confidence;
        return is_listed ? make_key(order_of(value), class_id[index], index) : 0;
    }
};

// How many kept boxes are better than this thread's, -1 if its own is not kept; `total` counts all. Whole block.
__device__ __forceinline__ int rank_among_kept(SuppressStorage& shared, int count, int& total) {
    const int tid = static_cast<int>(threadIdx.x);
    const bool kept = tid < count && shared.keep[tid];
    const unsigned ballot = __ballot_sync(WHOLE_WARP, kept);
    if (tid < MAX_TOP && tid % 32 == 0) shared.kept_of_warp[tid / 32] = __popc(ballot);
    __syncthreads();
    int rank = __popc(ballot & ((1u << tid % 32) - 1u));
    total = 0;
    for (int w = 0; w < MAX_TOP / 32; ++w) {
        if (w < tid / 32) rank += shared.kept_of_warp[w];
        total += shared.kept_of_warp[w];
    }
    return kept ? rank : -1;
}

extern "C" __global__ void __launch_bounds__(1024, 1) fast_nms_cross_class(
    const float* best_score, const int* best_class, const int* candidate_prior, const float* candidate_xyxy,
    const int* candidate_count, int capacity, int num_classes, float iou_threshold, float min_confidence, int top_k,
    int* detection_count, int* detection_prior, int* detection_class, float* detection_confidence,
    float* detection_xyxy, int prototype_height, int prototype_width, int frame_height, int frame_width, float margin,
    long long arena_words, int wanted_tasks, MaskWindow* window, long long* offset, MaskPlan* plan, unsigned* status) {
    __shared__ SuppressStorage shared;
    __shared__ LayoutStorage layout;
    const int tid = static_cast<int>(threadIdx.x);
    int total = 0;
    if (top_k <= MAX_TOP && capacity <= MAX_INDEX && num_classes <= MAX_CLASSES) {
        const BestClassKeys keys = {best_score, best_class, min_confidence};
        const int best = select_and_suppress<4>(keys, min(*candidate_count, capacity), top_k, iou_threshold,
                                                candidate_xyxy, shared);
        const int rank = rank_among_kept(shared, best, total);
        if (rank >= 0) {
            const int index = index_of(shared.top.sorted[tid]);
            write_detection(
                {detection_prior, detection_class, detection_confidence, detection_xyxy}, rank,
                candidate_prior, candidate_xyxy, index, best_class[index], best_score[index]);
        }
    } else if (tid == 0) {
        atomicOr(status, STATUS_LIMIT);
    }
    if (tid == 0) *detection_count = total;
    __syncthreads();
    lay_out_masks(detection_xyxy, total,
                  {{prototype_height, prototype_width}, {frame_height, frame_width}, margin, arena_words, wanted_tasks},
                  {window, offset, plan}, status, layout);
}
