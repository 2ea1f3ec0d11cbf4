// candidates: class logits -> priors that may be objects, with their boxes and the scores of all classes.
//
// Formula: yolact_plugins.reference.class_score, candidates and decode. A prior is a candidate when
//     max over c >= 1 of softmax(class_logit[p])[c] > score_threshold        (class 0 is the background)
//   in the log-sum-exp form: with m the largest logit and s the sum of exp(logit - m), found in one pass over the row,
//   a score is exp(logit - m) / s. A candidate brings the scores of all foreground classes, because it enters the list
//   of every class in Fast NMS. Only candidates are decoded:
//     centre = prior.xy + regression.xy * variance_centre * prior.wh
//     size   = prior.wh * exp(regression.wh * variance_size)
//
// Shapes, all contiguous, boxes on 16 bytes; T is float16 or float32:
//     class_logit     (P, C) T                    box_regression   (P, 4) T
//     prior           (P, 4) f32, centre-size     normaliser       (P, 2) f32, m and s; of candidates only
//     survivor        (ceil(P / 32),) u32 bits    candidate_count  (1,) i32
//     candidate_prior (capacity,) i32             candidate_xyxy   (capacity, 4) f32
//     candidate_score (C - 1, capacity) f32: class-major, so that Fast NMS reads one list without gaps
//     mask_coefficient (P, K) T                   prototype        (prototype_size,) T, all of it; only looked at
//     status          see status.cuh: NOT_FINITE where any value of the four outputs is NaN or infinite, whether or not a
//                     detection depends on it; CANDIDATE_OVERFLOW beyond `capacity`, when the first ones are kept
//
// Grid of both kernels: max(1, ceil(P / 32)), a block for 32 priors, which are one word of `survivor`.
//   candidates_score   block: 256; 8 lanes read a row side by side and merge their parts. Then the block looks at its
//                      share of the other outputs: at the rows of its priors, and at every gridDim-th piece of the
//                      prototypes. Shared memory: 4 bytes.
//   candidates_gather  block: 128; sums the bits of the words before its own, which is where its candidates go.
//                      Shared memory: 144 bytes.
// Bytes moved: all outputs once and the bits; for every candidate its row of logits again, and 4 (C + 4) bytes written.
// Order: candidates ascend by prior, whatever the order of threads; no atomics but those that set bits.
#include "scalar.cuh"
#include "status.cuh"

constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int LANES_OF_A_ROW = 8;
constexpr int PRIORS_OF_A_BLOCK = 32;
constexpr float LOWEST = -3.402823466e38f;

// What is known of a row, or of a part of it. `largest` starts at a finite value: the difference of two is never NaN.
struct RowScore {
    float largest, sum, foreground, background;
};

// An infinite logit that is not the largest leaves the scores of its row finite: it is looked for by itself.
__device__ __forceinline__ void add_logit(RowScore& row, float logit, bool is_background, bool& is_finite) {
    is_finite = is_finite && isfinite(logit);
    if (logit > row.largest) {
        row.sum = row.sum * expf(row.largest - logit) + 1.0f;
        row.largest = logit;
    } else {
        row.sum += expf(logit - row.largest);  // NaN here makes the sum NaN
    }
    if (is_background) {
        row.background = logit;
    } else {
        row.foreground = fmaxf(row.foreground, logit);
    }
}

__device__ __forceinline__ void merge(RowScore& row, int flip) {
    const float largest = __shfl_xor_sync(FULL_WARP, row.largest, flip);
    const float sum = __shfl_xor_sync(FULL_WARP, row.sum, flip);
    const float both = fmaxf(row.largest, largest);
    row.sum = row.sum * expf(row.largest - both) + sum * expf(largest - both);
    row.largest = both;
    row.foreground = fmaxf(row.foreground, __shfl_xor_sync(FULL_WARP, row.foreground, flip));
    row.background = fmaxf(row.background, __shfl_xor_sync(FULL_WARP, row.background, flip));
}

// Outputs of a network that decide only once there are detections.
template <class Value>
struct OtherOutputs {
    const Value* box_regression;
    const Value* mask_coefficient;
    const Value* prototype;
    int num_prototypes;
    long long prototype_size;
};

template <class Value>
__device__ bool all_finite(const Value* values, long long first, long long end, long long stride) {
    bool is_finite = true;
    for (long long i = first; i < end; i += stride) is_finite = is_finite && isfinite(to_float(values[i]));
    return is_finite;
}

// This block's share of the other outputs.
template <class Value>
__device__ bool others_are_finite(const OtherOutputs<Value>& other, int num_priors) {
    const int tid = static_cast<int>(threadIdx.x);
    const long long threads = static_cast<long long>(blockDim.x);
    const int first = static_cast<int>(blockIdx.x) * PRIORS_OF_A_BLOCK;
    const int end = min(first + PRIORS_OF_A_BLOCK, num_priors);
    const long long wide = other.num_prototypes;
    bool is_finite = all_finite(other.box_regression, 4ll * first + tid, 4ll * end, threads);
    is_finite = all_finite(other.mask_coefficient, wide * first + tid, wide * end, threads) && is_finite;
    const long long start = static_cast<long long>(blockIdx.x) * threads + tid;
    return all_finite(other.prototype, start, other.prototype_size, threads * gridDim.x) && is_finite;
}

template <class Value>
__device__ void score_priors(const Value* class_logit, int num_priors, int num_classes, float score_threshold,
                             const OtherOutputs<Value>& other, float* normaliser, unsigned* survivor, unsigned* status,
                             unsigned& word) {
    const int tid = static_cast<int>(threadIdx.x);
    const int in_block = tid / LANES_OF_A_ROW;
    const int prior = static_cast<int>(blockIdx.x) * PRIORS_OF_A_BLOCK + in_block;
    if (tid == 0) word = 0;
    const float minus_infinity = __uint_as_float(0xff800000u);
    RowScore row = {LOWEST, 0.0f, minus_infinity, minus_infinity};
    bool is_finite = others_are_finite(other, num_priors);
    if (prior < num_priors) {
        const Value* logit = class_logit + static_cast<long long>(prior) * num_classes;
        for (int c = tid % LANES_OF_A_ROW; c < num_classes; c += LANES_OF_A_ROW) {
            add_logit(row, to_float(logit[c]), c == 0, is_finite);
        }
    }
    // A network that overflowed shows here; compared, its values would pass as "nothing found".
    if (!is_finite) atomicOr(status, STATUS_NOT_FINITE);
    for (int flip = 1; flip < LANES_OF_A_ROW; flip *= 2) merge(row, flip);
    __syncthreads();
    if (prior < num_priors && tid % LANES_OF_A_ROW == 0) {
        if (expf(row.foreground - row.largest) / row.sum > score_threshold) {
            atomicOr(&word, 1u << in_block);
            normaliser[2ll * prior] = row.largest;
            normaliser[2ll * prior + 1] = row.sum;
        }
    }
    __syncthreads();
    if (tid == 0) survivor[blockIdx.x] = word;
}

extern "C" __global__ void __launch_bounds__(256) candidates_score_f32(
    const float* class_logit, int num_priors, int num_classes, float score_threshold, const float* box_regression,
    const float* mask_coefficient, const float* prototype, int num_prototypes, long long prototype_size,
    float* normaliser, unsigned* survivor, unsigned* status) {
    __shared__ unsigned word;
    const OtherOutputs<float> other = {box_regression, mask_coefficient, prototype, num_prototypes, prototype_size};
    score_priors(class_logit, num_priors, num_classes, score_threshold, other, normaliser, survivor, status, word);
}

extern "C" __global__ void __launch_bounds__(256) candidates_score_f16(
    const __half* class_logit, int num_priors, int num_classes, float score_threshold, const __half* box_regression,
    const __half* mask_coefficient, const __half* prototype, int num_prototypes, long long prototype_size,
    float* normaliser, unsigned* survivor, unsigned* status) {
    __shared__ unsigned word;
    const OtherOutputs<__half> other = {box_regression, mask_coefficient, prototype, num_prototypes, prototype_size};
    score_priors(class_logit, num_priors, num_classes, score_threshold, other, normaliser, survivor, status, word);
}

template <class Value>
__device__ float4 decode(const Value* regression, const float* prior, float variance_centre, float variance_size) {
    float value[4];
    for (int i = 0; i < 4; ++i) value[i] = to_float(regression[i]);
    const float width = prior[2] * expf(value[2] * variance_size);
    const float height = prior[3] * expf(value[3] * variance_size);
    const float left = prior[0] + value[0] * variance_centre * prior[2] - width / 2;
    const float top = prior[1] + value[1] * variance_centre * prior[3] - height / 2;
    return make_float4(left, top, left + width, top + height);
}

// Bits of the words before `end`, summed by the whole block of 128 threads.
__device__ __forceinline__ int count_before(const unsigned* survivor, int end, int* partial) {
    int count = 0;
    const int threads = static_cast<int>(blockDim.x);
    for (int w = static_cast<int>(threadIdx.x); w < end; w += threads) count += __popc(survivor[w]);
    for (int step = 16; step > 0; step /= 2) count += __shfl_xor_sync(FULL_WARP, count, step);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = count;
    __syncthreads();
    return partial[0] + partial[1] + partial[2] + partial[3];
}

struct CandidateBuffers {
    int* count;
    int* prior;
    float* xyxy;
    float* score;
    int capacity;
};

struct GatherStorage {
    int partial[4];
    int prior[PRIORS_OF_A_BLOCK];
};

template <class Value>
__device__ void gather(const Value* class_logit, const Value* box_regression, const float* prior_box,
                       const float* normaliser, const unsigned* survivor, int num_classes, float variance_centre,
                       float variance_size, const CandidateBuffers& out, unsigned* status, GatherStorage& shared) {
    const int tid = static_cast<int>(threadIdx.x);
    const int word_index = static_cast<int>(blockIdx.x);
    const unsigned word = survivor[word_index];
    if (word == 0 && blockIdx.x + 1 != gridDim.x) return;  // all threads of the block alike
    const int base = count_before(survivor, word_index, shared.partial);
    const int end = base + __popc(word);
    const int room = max(min(end, out.capacity) - base, 0);
    if (tid == 0 && end > out.capacity) atomicOr(status, STATUS_CANDIDATE_OVERFLOW);
    if (tid == 0 && blockIdx.x + 1 == gridDim.x) *out.count = min(end, out.capacity);
    if (tid < PRIORS_OF_A_BLOCK && (word >> tid & 1u)) {
        const int rank = __popc(word & ((1u << tid) - 1u));
        const int prior = word_index * PRIORS_OF_A_BLOCK + tid;
        if (rank < room) {
            shared.prior[rank] = prior;
            out.prior[base + rank] = prior;
            const float4 box =
                decode(box_regression + 4ll * prior, prior_box + 4ll * prior, variance_centre, variance_size);
            *reinterpret_cast<float4*>(out.xyxy + 4ll * (base + rank)) = box;
        }
    }
    __syncthreads();
    for (int i = tid; i < room * (num_classes - 1); i += static_cast<int>(blockDim.x)) {
        const int rank = i % room;
        const int class_id = i / room;
        const long long prior = shared.prior[rank];
        const float logit = to_float(class_logit[prior * num_classes + class_id + 1]);
        const float score = expf(logit - normaliser[2 * prior]) / normaliser[2 * prior + 1];
        out.score[static_cast<long long>(class_id) * out.capacity + base + rank] = score;
    }
}

extern "C" __global__ void __launch_bounds__(128) candidates_gather_f32(
    const float* class_logit, const float* box_regression, const float* prior, const float* normaliser,
    const unsigned* survivor, int num_classes, float variance_centre, float variance_size, int* candidate_count,
    int* candidate_prior, float* candidate_xyxy, float* candidate_score, int capacity, unsigned* status) {
    __shared__ GatherStorage shared;
    gather(class_logit, box_regression, prior, normaliser, survivor, num_classes, variance_centre, variance_size,
           {candidate_count, candidate_prior, candidate_xyxy, candidate_score, capacity}, status, shared);
}

extern "C" __global__ void __launch_bounds__(128) candidates_gather_f16(
    const __half* class_logit, const __half* box_regression, const float* prior, const float* normaliser,
    const unsigned* survivor, int num_classes, float variance_centre, float variance_size, int* candidate_count,
    int* candidate_prior, float* candidate_xyxy, float* candidate_score, int capacity, unsigned* status) {
    __shared__ GatherStorage shared;
    gather(class_logit, box_regression, prior, normaliser, survivor, num_classes, variance_centre, variance_size,
           {candidate_count, candidate_prior, candidate_xyxy, candidate_score, capacity}, status, shared);
}
