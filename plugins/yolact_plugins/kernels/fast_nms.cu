// fast_nms: candidates -> detections by YOLACT's matrix suppression, per class or over all classes.
//
// Formula: yolact_plugins.reference.fast_nms and cross_class_fast_nms. In each class (or over the best class of every
//   candidate) the `top_k` best boxes are sorted; box j is kept iff IoU(i, j) <= iou_threshold for every better i, kept
//   or not. No box is clipped and no score is too small, unless min_confidence > 0: then scores have to be above it.
//   The per-class form returns the `max_instances` best of all classes, the cross-class form all it keeps.
// Ties: equal scores are ordered by lower class, then by lower prior, as in the reference. IoU is computed in float32
//   with every operation rounded on its own, hence bit by bit as in NumPy; NaN (boxes without area) drops a box, as
//   there.
//
// Shapes, contiguous, boxes on 16 bytes; n = candidate_count[0] <= capacity; m = max_instances, or top_k for the
// cross-class form; all in float32 whatever the network's dtype:
//     candidate_score  (C - 1, capacity) f32    candidate_xyxy  (capacity, 4) f32    candidate_prior  (capacity,) i32
//     kept_score, kept_candidate  (C - 1, max_instances) f32, i32, and kept_count (C - 1,) i32: between the kernels,
//                                 best first
//     best_score, best_class      (capacity,) f32, i32: between the kernels of the cross-class form
//     detection_count (1,) i32    detection_prior, detection_class (m,) i32    detection_confidence (m,) f32
//     detection_xyxy (m, 4) f32: relative to the image; best first; rows from detection_count on are not written
// Limits: top_k, max_instances <= 256; capacity <= 2^20; C - 1 <= 16384; else status gets LIMIT and the count is 0.
//
// Kernels:
//     fast_nms_class        grid: C - 1; block: 256. Select, sort, load boxes, IoU: a warp for each column j, its lanes
//                           over the better boxes. Shared memory: 10288 bytes.
//     fast_nms_merge        grid: 1; block: 1024. The best of the kept ones of all classes. Shared memory: 5136 bytes.
//     fast_nms_best_class   grid: ceil(capacity / 256); block: 256. Best class of every candidate; reads run along
//                           candidates. Shared memory: none.
//     fast_nms_cross_class  grid: 1; block: 1024. As fast_nms_class, over best classes. Shared memory: 10288 bytes.
// Bytes moved: 4 n (C - 1), read once where n <= 256, else up to 9 times, from the second-level cache as a rule; boxes
//   16 * min(n, top_k) for each class; results.
// Order: selection is by unique keys, so results do not depend on the order of threads, blocks or atomics.
#include "status.cuh"
#include "top_keys.cuh"

struct SuppressStorage {
    TopStorage top;
    float4 xyxy[MAX_TOP];
    int keep[MAX_TOP];
    int kept_of_warp[MAX_TOP / 32];
};

// As numpy.maximum and numpy.minimum: NaN wins, unlike in fmaxf.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }
__device__ __forceinline__ float smaller(float a, float b) { return a < b || a != a ? a : b; }

__device__ __forceinline__ float area(const float4& box) {
    return __fmul_rn(__fsub_rn(box.z, box.x), __fsub_rn(box.w, box.y));
}

__device__ __forceinline__ float iou(const float4& a, const float4& b) {
    const float width = larger(__fsub_rn(smaller(a.z, b.z), larger(a.x, b.x)), 0.0f);
    const float height = larger(__fsub_rn(smaller(a.w, b.w), larger(a.y, b.y)), 0.0f);
    const float intersection = __fmul_rn(width, height);
    return __fdiv_rn(intersection, __fsub_rn(__fadd_rn(area(a), area(b)), intersection));
}

// Sets keep[j] for `count` boxes that lie best first in shared memory.
__device__ void suppress(SuppressStorage& shared, int count, float iou_threshold) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warps = static_cast<int>(blockDim.x) / 32;
    for (int j = static_cast<int>(threadIdx.x) / 32; j < count; j += warps) {
        const float4 box = shared.xyxy[j];
        bool hidden = !(iou_threshold >= 0.0f);  // the reference compares with 0 too: the rest of the matrix
        for (int i = lane; i < j; i += 32) hidden |= !(iou(shared.xyxy[i], box) <= iou_threshold);
        hidden = __any_sync(WHOLE_WARP, hidden);
        if (lane == 0) shared.keep[j] = !hidden;
    }
    __syncthreads();
}

// How many kept boxes are better than this thread's, -1 if its own is not kept; `total` counts all. Whole block.
__device__ int rank_among_kept(SuppressStorage& shared, int count, int& total) {
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

// Selects, sorts and suppresses; returns this thread's rank among the kept ones or -1, its key is top.sorted[tid].
template <class KeyOf>
__device__ int select_and_suppress(const KeyOf& key_of, int count, int top_k, float iou_threshold, const float* xyxy,
                                   SuppressStorage& shared, int& total) {
    const int tid = static_cast<int>(threadIdx.x);
    const int best = select_top(key_of, count, top_k, shared.top);
    if (tid < best) {
        shared.xyxy[tid] = *reinterpret_cast<const float4*>(xyxy + 4ll * index_of(shared.top.sorted[tid]));
    }
    __syncthreads();
    suppress(shared, best, iou_threshold);
    return rank_among_kept(shared, best, total);
}

// A class's list: every candidate, or those above the floor where there is one.
struct ClassKeys {
    const float* score;
    float min_confidence;
    __device__ Key operator()(int index) const {
        const float value = score[index];
        return min_confidence > 0.0f && !(value > min_confidence) ? 0 : make_key(value, 0, index);
    }
};

extern "C" __global__ void __launch_bounds__(256) fast_nms_class(
    const float* candidate_score, const float* candidate_xyxy, const int* candidate_count, int capacity,
    float iou_threshold, float min_confidence, int top_k, int max_instances, float* kept_score, int* kept_candidate,
    int* kept_count, unsigned* status) {
    __shared__ SuppressStorage shared;
    const int tid = static_cast<int>(threadIdx.x);
    const long long class_id = blockIdx.x;
    if (top_k > MAX_TOP || max_instances > MAX_TOP || capacity > MAX_INDEX) {
        if (tid == 0) kept_count[class_id] = 0;
        if (tid == 0) atomicOr(status, STATUS_LIMIT);
        return;
    }
    const ClassKeys keys = {candidate_score + class_id * capacity, min_confidence};
    int total;
    const int rank = select_and_suppress(keys, min(*candidate_count, capacity), top_k, iou_threshold, candidate_xyxy,
                                         shared, total);
    if (tid == 0) kept_count[class_id] = min(total, max_instances);
    if (rank >= 0 && rank < max_instances) {
        const int index = index_of(shared.top.sorted[tid]);
        kept_candidate[class_id * max_instances + rank] = index;
        kept_score[class_id * max_instances + rank] = candidate_score[class_id * capacity + index];
    }
}

struct Detections {
    int* count;
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

// The kept ones of all classes; the rank inside a class is by score and prior already.
struct KeptKeys {
    const float* score;
    const int* count;
    int row_length;
    __device__ Key operator()(int index) const {
        const int class_id = index / row_length;
        const int rank = index % row_length;
        return rank < count[class_id] ? make_key(score[index], class_id, rank) : 0;
    }
};

extern "C" __global__ void __launch_bounds__(1024) fast_nms_merge(
    const float* kept_score, const int* kept_candidate, const int* kept_count, const int* candidate_prior,
    const float* candidate_xyxy, int num_classes, int max_instances, int* detection_count, int* detection_prior,
    int* detection_class, float* detection_confidence, float* detection_xyxy, unsigned* status) {
    __shared__ TopStorage shared;
    const int tid = static_cast<int>(threadIdx.x);
    if (max_instances > MAX_TOP || num_classes > MAX_CLASSES) {
        if (tid == 0) *detection_count = 0;
        if (tid == 0) atomicOr(status, STATUS_LIMIT);
        return;
    }
    const KeptKeys keys = {kept_score, kept_count, max(max_instances, 1)};
    const int count = select_top(keys, num_classes * max_instances, max_instances, shared);
    if (tid == 0) *detection_count = count;
    if (tid >= count) return;
    const Key key = shared.sorted[tid];
    const int place = class_of(key) * max_instances + index_of(key);
    write_detection({detection_count, detection_prior, detection_class, detection_confidence, detection_xyxy}, tid,
                    candidate_prior, candidate_xyxy, kept_candidate[place], class_of(key), kept_score[place]);
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
    __device__ Key operator()(int index) const {
        const float value = score[index];
        return min_confidence > 0.0f && !(value > min_confidence) ? 0 : make_key(value, class_id[index], index);
    }
};

extern "C" __global__ void __launch_bounds__(1024) fast_nms_cross_class(
    const float* best_score, const int* best_class, const int* candidate_prior, const float* candidate_xyxy,
    const int* candidate_count, int capacity, int num_classes, float iou_threshold, float min_confidence, int top_k,
    int* detection_count, int* detection_prior, int* detection_class, float* detection_confidence,
    float* detection_xyxy, unsigned* status) {
    __shared__ SuppressStorage shared;
    const int tid = static_cast<int>(threadIdx.x);
    if (top_k > MAX_TOP || capacity > MAX_INDEX || num_classes > MAX_CLASSES) {
        if (tid == 0) *detection_count = 0;
        if (tid == 0) atomicOr(status, STATUS_LIMIT);
        return;
    }
    const BestClassKeys keys = {best_score, best_class, min_confidence};
    int total;
    const int rank = select_and_suppress(keys, min(*candidate_count, capacity), top_k, iou_threshold, candidate_xyxy,
                                         shared, total);
    if (tid == 0) *detection_count = total;
    if (rank < 0) return;
    const int index = index_of(shared.top.sorted[tid]);
    write_detection({detection_count, detection_prior, detection_class, detection_confidence, detection_xyxy}, rank,
                    candidate_prior, candidate_xyxy, index, best_class[index], best_score[index]);
}
