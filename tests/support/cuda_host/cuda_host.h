// CUDA C++ as host C++: every thread of a block is a fiber, blocks run one after the other.
//
// The kernel source is included unchanged after this header. What it checks: a __syncthreads that not all threads of
// the block reach, threads that wait at different barriers, a warp operation without all lanes, and, when compiled with
// -fsanitize=address, accesses outside of buffers. Shared memory is filled with 0xCD before every block, and the order
// of threads and blocks is a permutation of the caller's choice, so that results which depend on either show.
// What it cannot check: everything that needs threads to run at the same time. See docs/kernels.md.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __sanitizer_start_switch_fiber(void** save, const void* bottom, std::size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void* save, const void** bottom, std::size_t* size);
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
// One section holds all shared memory, so that it can be filled between blocks. It works in plain functions only:
// templates take shared memory as an argument.
#define __shared__ static __attribute__((section("cuda_shared"), used))
extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

struct uint3 {
    unsigned x, y, z;
};
using dim3 = uint3;
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_host {

constexpr std::size_t STACK_BYTES = 64 * 1024;

// Where a fiber, or the host, goes on. Contexts save the signal mask by a system call, jumps do not: they make a switch
// fifty times as fast. The sanitizer does not follow jumps between stacks, so it gets contexts.
struct Place {
    ucontext_t context;
    jmp_buf jump;
    void* fake_stack = nullptr;  // of the sanitizer
    bool started = false;
};

struct Fiber {
    Place place;
    std::unique_ptr<char[]> stack;
    uint3 thread{};
    int index = 0;
    int waits_at = 0;  // source line of the barrier or warp operation, 0 while running
    bool waits_for_warp = false;
    bool done = true;
};

struct Warp {
    int arrived = 0;
    int line = 0;
    unsigned phase = 0;
    unsigned long long value[2][32];  // two phases: a lane cannot be two operations ahead of one that still reads
};

struct Block {
    Place host;
    const void* host_bottom = nullptr;
    std::size_t host_size = 0;
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Warp> warps;
    std::vector<int> order, ready;
    std::vector<std::vector<int>> lanes;  // the same order, warp by warp
    std::size_t next_ready = 0;
    int size = 0, done = 0, arrived = 0, line = 0;
    bool greedy = false;  // who became ready last runs first: a warp runs as far ahead of the others as it can
    Fiber* current = nullptr;
    void (*body)(void*) = nullptr;
    void* argument = nullptr;
    char error[256] = "";
};

inline Block block;

inline void fail(const char* what, int line) {
    if (!block.error[0]) {
        std::snprintf(block.error, sizeof block.error, "%s at line %d, block (%u, %u, %u), thread %d", what, line,
                      blockIdx.x, blockIdx.y, blockIdx.z, block.current ? block.current->index : -1);
    }
}

inline void switch_to(Place& from, Fiber* target) {
    Place& to = target ? target->place : block.host;
    block.current = target;
    if (target) threadIdx = target->thread;
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom = target ? target->stack.get() : block.host_bottom;
    __sanitizer_start_switch_fiber(&from.fake_stack, bottom, target ? STACK_BYTES : block.host_size);
    swapcontext(&from.context, &to.context);
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#else
    if (_setjmp(from.jump)) return;
    if (to.started) _longjmp(to.jump, 1);
    to.started = true;
    setcontext(&to.context);
#endif
}

inline Fiber* next_fiber() {
    if (block.error[0] || block.next_ready == block.ready.size()) return nullptr;
    if (block.greedy) {
        const int latest = block.ready.back();
        block.ready.pop_back();
        return block.fibers[latest].get();
    }
    return block.fibers[block.ready[block.next_ready++]].get();
}

// Leaves the running fiber until something makes it ready again.
inline void suspend() {
    Fiber* self = block.current;
    switch_to(self->place, next_fiber());
}

inline void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    std::size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!block.host_bottom) block.host_bottom = bottom, block.host_size = size;
#endif
    for (;;) {
        Fiber* self = block.current;
        block.body(block.argument);
        self->done = true;
        ++block.done;
        suspend();
    }
}

inline void prepare(Fiber& fiber, int index) {
    if (!fiber.stack || !fiber.done) {  // new, or left in the middle of a kernel that failed
        if (!fiber.stack) fiber.stack.reset(new char[STACK_BYTES]);
        ucontext_t& context = fiber.place.context;
        getcontext(&context);
        context.uc_stack.ss_sp = fiber.stack.get();
        context.uc_stack.ss_size = STACK_BYTES;
        context.uc_link = nullptr;
        makecontext(&context, fiber_main, 0);
        fiber.place.started = false;
        fiber.place.fake_stack = nullptr;
    }
    fiber.index = index;
    fiber.done = false;
    fiber.waits_at = 0;
    const unsigned flat = static_cast<unsigned>(index);
    fiber.thread = {flat % blockDim.x, flat / blockDim.x % blockDim.y, flat / (blockDim.x * blockDim.y)};
}

__attribute__((no_sanitize_address)) inline void poison_shared() {
#if defined(__SANITIZE_ADDRESS__)
    // Between the arrays are bytes that the sanitizer lets nobody else write.
    volatile char* end = __stop_cuda_shared;
    for (volatile char* byte = __start_cuda_shared; byte < end; ++byte) *byte = static_cast<char>(0xCD);
#else
    if (__start_cuda_shared) std::memset(__start_cuda_shared, 0xCD, __stop_cuda_shared - __start_cuda_shared);
#endif
}

// Why a block stands still although nobody can run: a barrier that some of its threads will never reach.
inline void report_divergence() {
    const Fiber* waiting = nullptr;
    int count = 0;
    for (int i = 0; i < block.size; ++i) {
        if (block.fibers[i]->done) continue;
        waiting = block.fibers[i].get();
        ++count;
    }
    std::snprintf(block.error, sizeof block.error,
                  "%s at line %d is not reached by all threads: %d of %d wait, %d have ended; block (%u, %u, %u)",
                  waiting->waits_for_warp ? "a warp operation" : "a barrier", waiting->waits_at, count, block.size,
                  block.done, blockIdx.x, blockIdx.y, blockIdx.z);
}

inline void run_block() {
    poison_shared();
    for (int i = 0; i < block.size; ++i) prepare(*block.fibers[i], i);
    block.warps.assign((block.size + 31) / 32, Warp());
    block.ready = block.order;
    block.next_ready = 0;
    block.done = block.arrived = 0;
    block.host.started = true;
    if (Fiber* first = next_fiber()) switch_to(block.host, first);
    if (!block.error[0] && block.done < block.size) report_divergence();
}

// Permutes for seeds other than 0, which keeps the natural order.
inline std::vector<int> permutation(int count, unsigned seed) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 random(seed);
    for (int i = count - 1; seed && i > 0; --i) std::swap(order[i], order[random() % (i + 1u)]);
    return order;
}

template <class... Parameters>
struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::decay_t<Parameters>...> values;
    static void invoke(void* self) {
        auto* call = static_cast<Call*>(self);
        std::apply(call->kernel, call->values);
    }
};

template <class... Parameters, std::size_t... Index>
const char* launch(void (*kernel)(Parameters...), const unsigned* shape, unsigned seed, void** arguments,
                   std::index_sequence<Index...>) {
    Call<Parameters...> call{kernel, {*static_cast<std::decay_t<Parameters>*>(arguments[Index])...}};
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    block.body = Call<Parameters...>::invoke;
    block.argument = &call;
    block.size = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
    block.error[0] = 0;
    if (block.size < 1 || block.size > 1024) return "a block has 1 to 1024 threads";
    while (static_cast<int>(block.fibers.size()) < block.size) block.fibers.push_back(std::make_unique<Fiber>());
    block.order = permutation(block.size, seed);
    block.lanes.assign((block.size + 31) / 32, {});
    for (const int i : block.order) block.lanes[i / 32].push_back(i);
    block.greedy = seed % 2 == 0 && seed != 0;
    const int blocks = static_cast<int>(gridDim.x * gridDim.y * gridDim.z);
    for (const int flat : permutation(blocks, seed)) {
        const unsigned index = static_cast<unsigned>(flat);
        blockIdx = {index % gridDim.x, index / gridDim.x % gridDim.y, index / (gridDim.x * gridDim.y)};
        run_block();
        if (block.error[0]) return block.error;
    }
    return nullptr;
}

// Starts a kernel whose i-th parameter is stored at arguments[i]; returns why it failed, or null.
template <class... Parameters>
const char* launch(void (*kernel)(Parameters...), const unsigned* shape, int count, unsigned seed, void** arguments) {
    if (count != static_cast<int>(sizeof...(Parameters))) return "wrong number of arguments";
    return launch(kernel, shape, seed, arguments, std::index_sequence_for<Parameters...>());
}

// Lets every lane of a warp give a value and see those of all lanes.
inline const unsigned long long* exchange(unsigned mask, unsigned long long value, int line) {
    Fiber* self = block.current;
    Warp& warp = block.warps[self->index / 32];
    const unsigned phase = warp.phase;
    if (mask != 0xffffffffu || block.size % 32) fail("a warp operation without all 32 lanes", line), suspend();
    if (warp.arrived && warp.line != line) fail("lanes of one warp in different operations", line), suspend();
    warp.line = line;
    warp.value[phase][self->index % 32] = value;
    if (++warp.arrived < 32) {
        self->waits_at = line;
        self->waits_for_warp = true;
        suspend();
        self->waits_at = 0;
    } else {
        warp.arrived = 0;
        warp.phase ^= 1u;
        for (const int i : block.lanes[self->index / 32]) {
            if (i != self->index) block.ready.push_back(i);
        }
    }
    return warp.value[phase];
}

template <class Value>
unsigned long long pack(Value value) {
    static_assert(sizeof(Value) <= 8);
    unsigned long long bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class Value>
Value unpack(unsigned long long bits) {
    Value value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <class Value>
Value read_lane(unsigned mask, Value value, unsigned lane, int line) {
    const unsigned long long* values = exchange(mask, pack(value), line);
    return lane < 32 ? unpack<Value>(values[lane]) : value;
}

inline unsigned lane() { return static_cast<unsigned>(block.current->index) % 32; }

}  // namespace cuda_host

inline void __syncthreads(int line = __builtin_LINE()) {
    auto& block = cuda_host::block;
    cuda_host::Fiber* self = block.current;
    if (block.arrived && block.line != line) cuda_host::fail("threads of one block at different barriers", line);
    block.line = line;
    if (++block.arrived < block.size || block.error[0]) {
        self->waits_at = line;
        self->waits_for_warp = false;
        cuda_host::suspend();
        self->waits_at = 0;
        return;
    }
    block.arrived = 0;
    block.ready.clear();  // all threads are here, so nobody is in the queue
    block.next_ready = 0;
    for (const int i : block.order) {
        if (i != self->index) block.ready.push_back(i);
    }
}

template <class Value>
Value __shfl_sync(unsigned mask, Value value, int source, int line = __builtin_LINE()) {
    return cuda_host::read_lane(mask, value, static_cast<unsigned>(source) % 32, line);
}
template <class Value>
Value __shfl_up_sync(unsigned mask, Value value, unsigned delta, int line = __builtin_LINE()) {
    return cuda_host::read_lane(mask, value, cuda_host::lane() - delta, line);
}
template <class Value>
Value __shfl_down_sync(unsigned mask, Value value, unsigned delta, int line = __builtin_LINE()) {
    return cuda_host::read_lane(mask, value, cuda_host::lane() + delta, line);
}
template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, int flip, int line = __builtin_LINE()) {
    return cuda_host::read_lane(mask, value, cuda_host::lane() ^ static_cast<unsigned>(flip), line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    const unsigned long long* values = cuda_host::exchange(mask, predicate != 0, line);
    unsigned result = 0;
    for (int i = 0; i < 32; ++i) result |= static_cast<unsigned>(values[i]) << i;
    return result;
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) == 0xffffffffu;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) { cuda_host::exchange(mask, 0, line); }

// Blocks and fibers never run at the same time, so plain accesses are atomic.
template <class Value, class Operand>
Value atomicAdd(Value* address, Operand value) {
    return std::exchange(*address, static_cast<Value>(*address + value));
}
template <class Value, class Operand>
Value atomicOr(Value* address, Operand value) {
    return std::exchange(*address, static_cast<Value>(*address | value));
}
template <class Value, class Operand>
Value atomicMax(Value* address, Operand value) {
    return std::exchange(*address, std::max(*address, static_cast<Value>(value)));
}
template <class Value, class Operand>
Value atomicExch(Value* address, Operand value) {
    return std::exchange(*address, static_cast<Value>(value));
}
inline void __threadfence() {}
template <class Value>
Value __ldg(const Value* address) {
    return *address;
}

// Compiled with -ffp-contract=off these are what their names say.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline unsigned __float_as_uint(float value) { return static_cast<unsigned>(cuda_host::pack(value)); }
inline float __uint_as_float(unsigned bits) { return cuda_host::unpack<float>(bits); }
// On a GPU within 2 steps; kernels that use it say why that is enough.
inline float __fdividef(float a, float b) { return a / b; }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    shift %= 32;
    return shift ? high << shift | low >> (32 - shift) : high;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __clz(unsigned bits) { return bits ? __builtin_clz(bits) : 32; }
using std::isfinite;
using std::isinf;
using std::isnan;
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
