// candidates: class logits -> priors that may be objects, with their boxes and the scores of all classes.
//
// Formula: yolact_plugins.reference.class_score, candidates and decode. A prior is a candidate when
//     max over c >= 1 of softmax(class_logit[p])[c] > score_threshold        (class 0 is the background)
//   in the log-sum-exp form: with m the largest logit and s the sum of exp(logit - m), found in one pass over the row,
//   a score is exp(logit - m) / s. A candidate brings the scores of all foreground classes, because it enters the list
//   of every class in Fast NMS. Only candidates are decoded:
//     centre = prior.xy + regression.xy * variance_centre * prior.wh
//     size   = prior.wh * exp(regression.wh * variance_size)
//   Most priors need no sum: with f the largest foreground logit and b the background, s >= exp(f - m) + exp(b - m), so
//   the best score is at most 1 / (1 + exp(b - f)). Where that is below the threshold by more than all rounding of both
//   ways together (MARGIN), the prior is not a candidate.
//
// Shapes, all contiguous, boxes on 16 bytes, other arrays on their elements; T is float16 or float32:
//     class_logit     (P, C) T                    box_regression   (P, 4) T
//     prior           (P, 4) f32, centre-size     normaliser       (P, 2) f32, m and s; of candidates only
//     survivor        (ceil(P / 32),) u32 bits    candidate_count  (1,) i32
//     candidate_prior (capacity,) i32             candidate_xyxy   (capacity, 4) f32
//     candidate_score (C - 1, capacity) f32: class-major, so that Fast NMS reads one list without gaps
//     mask_coefficient (P, K) T                   prototype        (prototype_size,) T, all of it; only looked at
//     status          see status.cuh: NOT_FINITE where any value of the four outputs is NaN or infinite, whether or not
//                     a detection depends on it; CANDIDATE_OVERFLOW beyond `capacity`, when the first ones are kept
//
// candidates_score   grid: max(1, ceil(P / 64)) for the priors and at least 1 more that looks at the other outputs, in
//                    pieces of 32 kB; block: 128. Two lanes read a row by vectors of 16 bytes and what lies before and
//                    behind those by single values. Rows that need their sum get it from 8 lanes each. Every warp
//                    writes the bits of its 16 priors. Shared memory: none.
// candidates_gather  grid: max(1, ceil(P / 256)); block: 256. Blocks with candidates, and the last one, sum the bits of
//                    the words before their own, which is where their candidates go; then a warp for each candidate in
//                    turn, its lanes along the classes. Shared memory: 1056 bytes.
// Bytes moved: all outputs once and the bits; for every candidate its row of logits again, and 4 (C + 4) bytes written.
// Order: candidates ascend by prior, whatever the order of threads; no atomics but those that set bits.
#include "status.cuh"
#include "value_vectors.cuh"

constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int THREADS_THAT_SCORE = 128;
constexpr int ROWS_OF_A_WARP = 16;
constexpr int PRIORS_OF_A_BLOCK = THREADS_THAT_SCORE / 32 * ROWS_OF_A_WARP;
constexpr int LANES_OF_A_SUM = 8;
constexpr int VECTORS_OF_A_PIECE = 2048;
constexpr float LOWEST = -3.402823466e38f;
// 1 % covers exponentials whose arguments of up to 90 were rounded (1e-5), and sums that are rescaled at most C / 8 + 3
// times by factors which are two units in the last place off (5e-4 for C = 2^14). What other classes add only enlarges
// a sum, rounded or not.
constexpr float MARGIN = 1.01f;

// What is known of a row after one pass without exponentials.
struct RowLook {
    float foreground, background;  // the latter by the lanes of part 0 only
    bool is_finite;
};

// Whether the values first, first + stride, ... before `end` are: of finite ones nothing but 0 is added.
template <class Value>
__device__ __forceinline__ bool all_finite(const Value* values, int first, int end, int stride) {
    float sum = 0.0f;
    NOT_UNROLLED for (int i = first; i < end; i += stride) sum = fmaf(to_float(values[i]), 0.0f, sum);
    return isfinite(sum);
}

// Two lanes, part 0 and part 1, look at a row by vectors. They begin behind the background, at the first address of 16
// bytes; LENGTH values at the left end of the row and LENGTH at its right end are read one by one, some of them again.
template <class Value>
__device__ __forceinline__ RowLook look_at_row(const Value* logit, int num_classes, int part) {
    constexpr int LENGTH = Vector<Value>::LENGTH;
    typename Vector<Value>::Sums sums;
    typename Vector<Value>::Maxima maxima;
    const int beyond = values_beyond_16_bytes(logit);
    // Types of parameters are written out: to NVRTC 12 a generic lambda is a function of the host.
    using Bytes = typename Vector<Value>::Bytes;
    for_vectors<2>(logit + (LENGTH - beyond), part, (beyond + num_classes) / LENGTH - 1, [&](const Bytes& values) {
        sums.add(values);
        maxima.add(values);
    });
    const Value* const left = logit + part;
    const Value* const right = left + (num_classes - LENGTH);
    const float background = to_float(left[0]);
    float foreground = part == 0 ? maxima.largest() : fmaxf(maxima.largest(), background);
    float sum = 0.0f;
    for (int k = 0; k < LENGTH; k += 2) {
        const float values[2] = {to_float(left[k]), to_float(right[k])};
        sum = fmaf(values[0], values[1], sum);
        foreground = fmaxf(foreground, k == 0 ? values[1] : fmaxf(values[0], values[1]));
    }
    const bool is_finite = sums.are_finite() && isfinite(sum);
    return {foreground, background, is_finite || all_finite(logit, 0, num_classes, 1)};
}

// The same of a row that is too short for that: a lane takes every other value.
template <class Value>
__device__ __forceinline__ RowLook look_at_short_row(const Value* logit, int num_classes, int part) {
    const float background = to_float(logit[part]);
    float foreground = part == 0 ? LOWEST : background;
    NOT_UNROLLED for (int c = part + 2; c < num_classes; c += 2) foreground = fmaxf(foreground, to_float(logit[c]));
    return {foreground, background, all_finite(logit, 0, num_classes, 1)};
}

// The largest logit of a row, or of a part of it, and the sum of exponentials that belongs to it. `largest` starts at a
// finite value: the difference of two is never NaN.
struct RowSum {
    float largest, sum;
};

// Of the sum so far and of what is added, one is scaled by exp(-|difference|) and the other one, times exp(0), stays.
__device__ __forceinline__ void add_logit(RowSum& row, float logit) {
    const float factor = expf(-fabsf(logit - row.largest));
    row.sum = logit > row.largest ? row.sum * factor + 1.0f : row.sum + factor;
    row.largest = logit > row.largest ? logit : row.largest;
}

__device__ __forceinline__ void merge(RowSum& row, int flip) {
    const float largest = __shfl_xor_sync(FULL_WARP, row.largest, flip);
    const float sum = __shfl_xor_sync(FULL_WARP, row.sum, flip);
    const float factor = expf(-fabsf(row.largest - largest));
    row.sum = row.largest < largest ? row.sum * factor + sum : row.sum + sum * factor;
    row.largest = fmaxf(row.largest, largest);
}

// Which of the `open` ones of a warp's 16 rows are candidates, as bits, decided by their sums: four rows at once.
// `foreground` is that of row lane % 16.
template <class Value>
__device__ unsigned find_candidates(const Value* class_logit, int num_classes, float score_threshold, float foreground,
                                    unsigned open, float* normaliser) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    unsigned found = 0;
    while (open != 0) {
        unsigned rest = open;
        for (int i = 0; i < 32 / LANES_OF_A_SUM; ++i) {
            if (i < lane / LANES_OF_A_SUM) rest &= rest - 1u;
            open &= open - 1u;
        }
        const int row = __ffs(static_cast<int>(rest)) - 1;  // -1 where fewer are left
        const Value* logit = class_logit + static_cast<long long>(row) * num_classes;
        RowSum sum = {LOWEST, 0.0f};
        for (int c = row < 0 ? num_classes : lane % LANES_OF_A_SUM; c < num_classes; c += LANES_OF_A_SUM) {
            add_logit(sum, to_float(logit[c]));
        }
        for (int flip = 1; flip < LANES_OF_A_SUM; flip *= 2) merge(sum, flip);
        const float best = __shfl_sync(FULL_WARP, foreground, max(row, 0));
        if (row >= 0 && expf(best - sum.largest) / sum.sum > score_threshold) {
            found |= 1u << row;
            if (lane % LANES_OF_A_SUM == 0) {
                normaliser[2 * row] = sum.largest;
                normaliser[2 * row + 1] = sum.sum;
            }
        }
    }
    for (int flip = LANES_OF_A_SUM; flip < 32; flip *= 2) found |= __shfl_xor_sync(FULL_WARP, found, flip);
    return found;
}

// A warp's 16 priors.
template <class Value>
__device__ void score_priors(const Value* class_logit, int num_priors, int num_classes, float score_threshold,
                             float* normaliser, unsigned* survivor, unsigned* status) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int warp = static_cast<int>(blockIdx.x * (PRIORS_OF_A_BLOCK / ROWS_OF_A_WARP) + threadIdx.x / 32);
    const int prior = warp * ROWS_OF_A_WARP + lane % ROWS_OF_A_WARP;
    const bool exists = prior < num_priors;
    RowLook look = {LOWEST, LOWEST, true};
    if (exists) {
        const Value* const logit = class_logit + static_cast<long long>(prior) * num_classes;
        const bool is_short = num_classes < 2 * Vector<Value>::LENGTH;  // the same for all threads
        look = is_short ? look_at_short_row(logit, num_classes, lane / ROWS_OF_A_WARP)
                        : look_at_row(logit, num_classes, lane / ROWS_OF_A_WARP);
    }
    // A network that overflowed shows here; compared, its values would pass as "nothing found".
    if (!look.is_finite) atomicOr(status, STATUS_NOT_FINITE);
    const float foreground =
        fmaxf(look.foreground, __shfl_xor_sync(FULL_WARP, look.foreground, ROWS_OF_A_WARP));
    // Bounded, so that a threshold smaller than 1e-38 is not taken for one that infinity reaches.
    const float lead = fminf(expf(look.background - foreground), 3e38f);
    const bool is_open = exists && lane < ROWS_OF_A_WARP && !(score_threshold * (1.0f + lead) > MARGIN);
    const unsigned open = __ballot_sync(FULL_WARP, is_open);
    const long long first = static_cast<long long>(warp) * ROWS_OF_A_WARP;
    const unsigned found = open == 0 ? 0
                                     : find_candidates(class_logit + first * num_classes, num_classes, score_threshold,
                                                       foreground, open, normaliser + 2 * first);
    if (lane == 0 && warp < (num_priors + 31) / 32 * 2) {
        reinterpret_cast<unsigned short*>(survivor)[warp] = static_cast<unsigned short>(found);
    }
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

// A piece of up to 32 kB, by the whole block; the answer is about this thread's share.
template <class Value>
__device__ __forceinline__ bool piece_is_finite(const Value* values, int length) {
    constexpr int LENGTH = Vector<Value>::LENGTH;
    const int tid = static_cast<int>(threadIdx.x);
    const int vectors = values_beyond_16_bytes(values) == 0 ? length / LENGTH : 0;
    typename Vector<Value>::Sums sums;
    using Bytes = typename Vector<Value>::Bytes;
    for_vectors<THREADS_THAT_SCORE>(values, tid, vectors, [&](const Bytes& vector) { sums.add(vector); });
    const bool suspect = !sums.are_finite();
    // What is behind the last vector, or everything where the array does not lie on 16 bytes, or there is a suspicion.
    const bool is_finite = all_finite(values, vectors * LENGTH + tid, length, THREADS_THAT_SCORE);
    return suspect ? all_finite(values, 0, length, 1) : is_finite;
}

// Blocks take the pieces of all arrays in turn, from the `number`-th one in steps of `stride`.
template <class Value>
__device__ bool others_are_finite(const OtherOutputs<Value>& other, int num_priors, int number, int stride) {
    constexpr int IN_A_PIECE = VECTORS_OF_A_PIECE * Vector<Value>::LENGTH;
    const long long coefficients = static_cast<long long>(other.num_prototypes) * num_priors;
    const int of_coefficients = static_cast<int>((coefficients + IN_A_PIECE - 1) / IN_A_PIECE);
    const int of_prototypes = static_cast<int>((other.prototype_size + IN_A_PIECE - 1) / IN_A_PIECE);
    const int of_boxes = (4 * num_priors + IN_A_PIECE - 1) / IN_A_PIECE;
    bool is_finite = true;
    for (int i = number; i < of_coefficients + of_prototypes + of_boxes; i += stride) {
        int piece = i;
        const Value* values = other.mask_coefficient;
        long long size = coefficients;
        if (piece >= of_coefficients) {
            piece -= of_coefficients;
            values = other.prototype;
            size = other.prototype_size;
            if (piece >= of_prototypes) {
                piece -= of_prototypes;
                values = other.box_regression;
                size = 4ll * num_priors;
            }
        }
        const long long first = static_cast<long long>(piece) * IN_A_PIECE;
        const int length = static_cast<int>(min(size - first, static_cast<long long>(IN_A_PIECE)));
        is_finite = piece_is_finite(values + first, length) && is_finite;
    }
    return is_finite;
}

template <class Value>
__device__ void score(const Value* class_logit, int num_priors, int num_classes, float score_threshold,
                      const OtherOutputs<Value>& other, float* normaliser, unsigned* survivor, unsigned* status) {
    const int num_scoring = max((num_priors + PRIORS_OF_A_BLOCK - 1) / PRIORS_OF_A_BLOCK, 1);
    const int number = static_cast<int>(blockIdx.x) - num_scoring;
    if (number < 0) {
        score_priors(class_logit, num_priors, num_classes, score_threshold, normaliser, survivor, status);
        return;
    }
    const bool is_finite =
        others_are_finite(other, num_priors, number, static_cast<int>(gridDim.x) - num_scoring);
    if (!is_finite) atomicOr(status, STATUS_NOT_FINITE);
}

extern "C" __global__ void __launch_bounds__(THREADS_THAT_SCORE) candidates_score_f32(
    const float* class_logit, int num_priors, int num_classes, float score_threshold, const float* box_regression,
    const float* mask_coefficient, const float* prototype, int num_prototypes, long long prototype_size,
    float* normaliser, unsigned* survivor, unsigned* status) {
    const OtherOutputs<float> other = {box_regression, mask_coefficient, prototype, num_prototypes, prototype_size};
    score(class_logit, num_priors, num_classes, score_threshold, other, normaliser, survivor, status);
}

extern "C" __global__ void __launch_bounds__(THREADS_THAT_SCORE) candidates_score_f16(
    const __half* class_logit, int num_priors, int num_classes, float score_threshold, const __half* box_regression,
    const __half* mask_coefficient, const __half* prototype, int num_prototypes, long long prototype_size,
    float* normaliser, unsigned* survivor, unsigned* status) {
    const OtherOutputs<__half> other = {box_regression, mask_coefficient, prototype, num_prototypes, prototype_size};
    score(class_logit, num_priors, num_classes, score_threshold, other, normaliser, survivor, status);
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

struct CandidateBuffers {
    int* count;
    int* prior;
    float* xyxy;
    float* score;
    int capacity;
};

constexpr int WORDS_OF_A_BLOCK = 8;  // of the gathering kernel: one for each warp

struct GatherStorage {
    int before_of_warp[WORDS_OF_A_BLOCK];
    int prior[32 * WORDS_OF_A_BLOCK];
};

// Bits of the words before `end`, summed by the whole block.
__device__ __forceinline__ int count_before(const unsigned* survivor, int end, int* part_of_warp) {
    int count = 0;
    const int threads = static_cast<int>(blockDim.x);
    for (int w = static_cast<int>(threadIdx.x); w < end; w += threads) count += __popc(survivor[w]);
    for (int step = 16; step > 0; step /= 2) count += __shfl_xor_sync(FULL_WARP, count, step);
    if (threadIdx.x % 32 == 0) part_of_warp[threadIdx.x / 32] = count;
    __syncthreads();
    int sum = 0;
    for (int w = 0; w < WORDS_OF_A_BLOCK; ++w) sum += part_of_warp[w];
    return sum;
}

template <class Value>
__device__ void gather(const Value* class_logit, const Value* box_regression, const float* prior_box,
                       const float* normaliser, const unsigned* survivor, int num_priors, int num_classes,
                       float variance_centre, float variance_size, const CandidateBuffers& out, unsigned* status,
                       GatherStorage& shared) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int warp = static_cast<int>(threadIdx.x / 32);
    const int num_words = (num_priors + 31) / 32;
    const int first_word = static_cast<int>(blockIdx.x) * WORDS_OF_A_BLOCK;
    // Every warp knows the block's words, lane i the i-th, and with `in_block` where the candidates of each begin.
    const int word_index = first_word + lane;
    const unsigned word_of_lane = lane < WORDS_OF_A_BLOCK && word_index < num_words ? survivor[word_index] : 0;
    const bool is_last = blockIdx.x + 1 == gridDim.x;
    if (__ballot_sync(FULL_WARP, word_of_lane != 0) == 0 && !is_last) return;  // all threads of the block alike
    int in_block = __popc(word_of_lane);
    for (int step = 1; step < WORDS_OF_A_BLOCK; step *= 2) {
        const int left = __shfl_up_sync(FULL_WARP, in_block, static_cast<unsigned>(step));
        if (lane >= step) in_block += left;
    }
    const int found = __shfl_sync(FULL_WARP, in_block, WORDS_OF_A_BLOCK - 1);
    const unsigned word = __shfl_sync(FULL_WARP, word_of_lane, warp);
    const int before = __shfl_sync(FULL_WARP, in_block, warp) - __popc(word);
    const int base = count_before(survivor, min(first_word, num_words), shared.before_of_warp);
    const int end = base + found;
    const int room = max(min(end, out.capacity) - base, 0);
    if (threadIdx.x == 0 && end > out.capacity) atomicOr(status, STATUS_CANDIDATE_OVERFLOW);
    if (threadIdx.x == 0 && is_last) *out.count = min(end, out.capacity);
    const int rank = before + __popc(word & ((1u << lane) - 1u));
    if ((word >> lane & 1u) && rank < room) {
        const int prior = (first_word + warp) * 32 + lane;
        shared.prior[rank] = prior;
        out.prior[base + rank] = prior;
        const float4 box =
            decode(box_regression + 4ll * prior, prior_box + 4ll * prior, variance_centre, variance_size);
        *reinterpret_cast<float4*>(out.xyxy + 4ll * (base + rank)) = box;
    }
    __syncthreads();
    for (int i = warp; i < room; i += WORDS_OF_A_BLOCK) {
        const long long prior = shared.prior[i];
        const float largest = normaliser[2 * prior];
        const float sum = normaliser[2 * prior + 1];
        const Value* const logit = class_logit + prior * num_classes + 1;
        float* const score = out.score + base + i;
        NOT_UNROLLED for (int c = lane; c < num_classes - 1; c += 32) {
            score[static_cast<long long>(c) * out.capacity] = expf(to_float(logit[c]) - largest) / sum;
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) candidates_gather_f32(
    const float* class_logit, const float* box_regression, const float* prior, const float* normaliser,
    const unsigned* survivor, int num_priors, int num_classes, float variance_centre, float variance_size,
    int* candidate_count, int* candidate_prior, float* candidate_xyxy, float* candidate_score, int capacity,
    unsigned* status) {
    __shared__ GatherStorage shared;
    gather(class_logit, box_regression, prior, normaliser, survivor, num_priors, num_classes, variance_centre,
           variance_size, {candidate_count, candidate_prior, candidate_xyxy, candidate_score, capacity}, status,
           shared);
}

extern "C" __global__ void __launch_bounds__(256) candidates_gather_f16(
    const __half* class_logit, const __half* box_regression, const float* prior, const float* normaliser,
    const unsigned* survivor, int num_priors, int num_classes, float variance_centre, float variance_size,
    int* candidate_count, int* candidate_prior, float* candidate_xyxy, float* candidate_score, int capacity,
    unsigned* status) {
    __shared__ GatherStorage shared;
    gather(class_logit, box_regression, prior, normaliser, survivor, num_priors, num_classes, variance_centre,
           variance_size, {candidate_count, candidate_prior, candidate_xyxy, candidate_score, capacity}, status,
           shared);
}
