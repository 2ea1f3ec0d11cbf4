// Kernels with one mistake each: what the host shim has to notice.
extern "C" __global__ void sums_of_blocks(const int* values, int* sums, int count) {
    __shared__ int partial[64];
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    const int tid = static_cast<int>(threadIdx.x);
    partial[tid] = i < count ? values[i] : 0;
    __syncthreads();
    for (int step = 32; step > 0; step /= 2) {
        if (tid < step) partial[tid] += partial[tid + step];
        __syncthreads();
    }
    if (tid == 0) sums[blockIdx.x] = partial[0];
}

extern "C" __global__ void barrier_in_a_branch(int* out) {
    if (threadIdx.x < 16) __syncthreads();
    out[threadIdx.x] = 1;
}

extern "C" __global__ void barriers_at_two_places(int* out) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}

extern "C" __global__ void early_return_before_a_shuffle(int* out, int count) {
    const int i = static_cast<int>(threadIdx.x);
    if (i >= count) return;
    out[i] = __shfl_xor_sync(0xffffffffu, i, 1);
}

extern "C" __global__ void missing_barrier(int* out) {
    __shared__ int number[64];
    number[threadIdx.x] = static_cast<int>(threadIdx.x);
    out[threadIdx.x] = number[63 - threadIdx.x];
}

// Nothing keeps a fast warp from writing the second number before a slow one has read the first.
extern "C" __global__ void missing_second_barrier(int* out) {
    __shared__ int number;
    int sum = 0;
    for (int i = 1; i <= 2; ++i) {
        if (__any_sync(0xffffffffu, 1) && threadIdx.x == 0) number = i;
        __syncthreads();
        sum += number;
    }
    out[threadIdx.x] = sum;
}

extern "C" __global__ void one_element_too_far(int* out, int count) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i <= count) out[i] = i;
}

extern "C" __global__ void past_the_shared_array(int* out) {
    __shared__ int number[64];
    number[threadIdx.x + 1] = 1;
    __syncthreads();
    out[threadIdx.x] = number[threadIdx.x];
}

extern "C" __global__ void first_come_first_served(int* out, int* next) {
    out[atomicAdd(next, 1)] = static_cast<int>(threadIdx.x);
}
