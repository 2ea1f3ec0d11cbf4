// The lists of single classes, and the one list of what all classes keep.
#pragma once

#include "top_keys.cuh"

// A class's list: every candidate, or those above the floor if there is one.
struct ClassKeys {
    const float* score;
    float min_confidence;
    int class_id;
    // Larger for better scores, 0 for candidates that are not listed.
    __device__ __forceinline__ unsigned order(int index) const {
        const float value = score[index];
        return min_confidence > 0.0f && !(value > min_confidence) ? 0 : order_of(value);
    }
    __device__ __forceinline__ Key operator()(int index) const {
        const unsigned value = order(index);
        return value == 0 ? 0 : make_key(value, class_id, index);
    }
};

// What kept_count holds: keys that were added so far and blocks that added theirs, both of this launch; and how many
// keys the latest launch added in all. The last block to finish leaves zeros for the next launch.
enum KeptCount { APPENDED = 0, FINISHED = 1, TOTAL = 2 };

struct KeptKeys {
    Key* keys;
    int* count;
};

// Thread 0, behind a barrier.
__device__ __forceinline__ void finish(const KeptKeys& kept) {
    __threadfence();
    if (atomicAdd(&kept.count[FINISHED], 1) + 1 != static_cast<int>(gridDim.x)) return;
    __threadfence();  // what the other blocks did before theirs comes before what follows
    kept.count[TOTAL] = atomicExch(&kept.count[APPENDED], 0);
    kept.count[FINISHED] = 0;
}

// Whole warps: those lanes that keep theirs add it.
__device__ __forceinline__ void append(bool is_kept, Key key, const KeptKeys& kept) {
    const unsigned ballot = __ballot_sync(WHOLE_WARP, is_kept);
    if (ballot == 0) return;
    const int lane = static_cast<int>(threadIdx.x % 32);
    int place = lane == 0 ? atomicAdd(&kept.count[APPENDED], __popc(ballot)) : 0;
    place = __shfl_sync(WHOLE_WARP, place, 0) + __popc(ballot & ((1u << lane) - 1u));
    if (is_kept) kept.keys[place] = key;
}
