// The best of many scores by one block, in one order: score descending, then class ascending, then index ascending.
//
// A key packs all three, so that keys are unique and one comparison decides:
//     bits 63..34  bits of the score + 1 (scores are in [0, 1], where float bits ascend with the value)
//     bits 33..20  16383 - class        bits 19..0  1048575 - index
// Key 0 stands for "no entry". The k-th largest key is found by its bytes from the left, with a histogram for each; it
// takes four rounds where scores differ, and eight at most.
#pragma once

constexpr unsigned WHOLE_WARP = 0xffffffffu;
constexpr int MAX_TOP = 256;
constexpr int MAX_CLASSES = 1 << 14;
constexpr int MAX_INDEX = 1 << 20;

using Key = unsigned long long;

// Ascends with the score, and is never 0. A score that is not in [0, 1] belongs to a frame whose status says so; its
// key must be unique all the same.
__device__ __forceinline__ unsigned order_of(float score) { return min(__float_as_uint(score), 0x3ffffffeu) + 1u; }

__device__ __forceinline__ Key make_key(unsigned order, int class_id, int index) {
    return static_cast<Key>(order) << 34 | static_cast<Key>(MAX_CLASSES - 1 - class_id) << 20 |
           static_cast<Key>(MAX_INDEX - 1 - index);
}

__device__ __forceinline__ float score_of(Key key) { return __uint_as_float(static_cast<unsigned>(key >> 34) - 1u); }
__device__ __forceinline__ int class_of(Key key) {
    return MAX_CLASSES - 1 - (static_cast<int>(key >> 20) & (MAX_CLASSES - 1));
}
__device__ __forceinline__ int index_of(Key key) { return MAX_INDEX - 1 - (static_cast<int>(key) & (MAX_INDEX - 1)); }

struct TopStorage {
    Key found[MAX_TOP];
    Key sorted[MAX_TOP];
    int histogram[256];
    int count;      // keys found
    int digit;      // byte of the k-th largest key in this round; -1 where there are fewer than k keys
    int above;      // keys with a larger byte
    int with_byte;  // keys with that byte
};

// One warp: the byte in which the `needed`-th largest key lies.
__device__ __forceinline__ void find_digit(TopStorage& top, int needed) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int highest = 255 - 8 * lane;
    int sum = 0;
    for (int i = 0; i < 8; ++i) sum += top.histogram[highest - i];
    int inclusive = sum;
    for (int step = 1; step < 32; step *= 2) {
        const int before = __shfl_up_sync(WHOLE_WARP, inclusive, static_cast<unsigned>(step));
        if (lane >= step) inclusive += before;
    }
    if (lane == 31 && inclusive < needed) top.digit = -1;
    int above = inclusive - sum;
    if (above >= needed || inclusive < needed) return;
    for (int digit = highest;; --digit) {
        const int with_byte = top.histogram[digit];
        if (above + with_byte >= needed) {
            top.digit = digit;
            top.above = above;
            top.with_byte = with_byte;
            return;
        }
        above += with_byte;
    }
}

// Keys 0 .. count - 1, each read once by one thread of the block: the first HELD of a thread stay in its registers.
template <int HELD, class KeyOf>
class HeldKeys {
   public:
    __device__ __forceinline__ HeldKeys(const KeyOf& key_of, int count)
        : key_of(key_of), count(count), threads(static_cast<int>(blockDim.x)) {
        for (int k = 0; k < HELD; ++k) {
            const int i = static_cast<int>(threadIdx.x) + k * threads;
            held[k] = i < count ? key_of(i) : 0;
        }
    }

    template <class Take>
    __device__ __forceinline__ void for_each(const Take& take) const {
        for (int k = 0; k < HELD && k * threads < count; ++k) {
            if (held[k] != 0) take(held[k]);
        }
        for (int i = static_cast<int>(threadIdx.x) + HELD * threads; i < count; i += threads) {
            const Key key = key_of(i);
            if (key != 0) take(key);
        }
    }

   private:
    const KeyOf& key_of;
    int count, threads;
    Key held[HELD];
};

// Smallest key that is among the `needed` largest; 1 where there are fewer.
template <class Keys>
__device__ __forceinline__ Key find_bound(const Keys& keys, int needed, TopStorage& top) {
    const int tid = static_cast<int>(threadIdx.x);
    Key prefix = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = tid; i < 256; i += static_cast<int>(blockDim.x)) top.histogram[i] = 0;
        __syncthreads();
        keys.for_each([&](Key key) {
            // Two shifts, because one of 64 bits in the first round would be undefined.
            if (key >> shift >> 8 == prefix) atomicAdd(&top.histogram[(key >> shift) & 255u], 1);
        });
        __syncthreads();
        if (tid < 32) find_digit(top, needed);
        __syncthreads();
        if (top.digit < 0) return 1;
        prefix = prefix << 8 | static_cast<Key>(top.digit);
        needed -= top.above;
        // Where the last bytes of scores of 0 decide nothing, the bound would be 0, and "no entry" above it.
        if (top.with_byte == needed) return prefix == 0 ? 1 : prefix << shift;
    }
    return prefix;
}

// The `wanted` <= MAX_TOP largest of keys 0 .. count - 1 (or all there are) into top.sorted, largest first; returns how
// many. The whole block calls it, with a multiple of 32 threads.
template <int HELD, class KeyOf>
__device__ __forceinline__ int select_top(const KeyOf& key_of, int count, int wanted, TopStorage& top) {
    if (wanted <= 0) return 0;
    const int tid = static_cast<int>(threadIdx.x);
    if (tid == 0) top.count = 0;
    const HeldKeys<HELD, KeyOf> keys(key_of, count);
    const Key bound = count > MAX_TOP ? find_bound(keys, wanted, top) : 1;
    __syncthreads();
    keys.for_each([&](Key key) {
        if (key >= bound) top.found[atomicAdd(&top.count, 1)] = key;
    });
    __syncthreads();
    const int found = top.count;
    for (int mine = tid; mine < found; mine += static_cast<int>(blockDim.x)) {
        const Key key = top.found[mine];
        int rank = 0;
        for (int i = 0; i < found; ++i) rank += top.found[i] > key;
        top.sorted[rank] = key;
    }
    __syncthreads();
    return min(found, wanted);
}
