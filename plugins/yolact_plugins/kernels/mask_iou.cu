// mask_iou: probabilities of masks -> how well each fits the object of its class: the mask-IoU network of YOLACT++.
//
// Formula: yolact_plugins.reference.mask_iou. Five 3x3 convolutions of stride 2 without padding (1, 8, 16, 32, 64, 128
//   channels), one of 1x1 to the classes, a ReLU after each, and the maximum over the map. Of the classes only the one
//   that a mask was found with is computed:
//     predicted_iou[i] = network(soft[i])[detection_class[i]]
//     mask_confidence[i] = detection_confidence[i] * predicted_iou[i]
//   The mask is 0 outside of its crop window. The output of a layer for zeros alone is the same everywhere (there is no
//   padding), so it is a constant of the network, and only outputs that something of the window reaches are computed:
//   the work goes with the size of the object.
//
// Shapes, contiguous, 16 bytes aligned; n = detection_count[0] detections in m rows, C1 classes without background:
//     soft (m, Hp, Wp) f32, Hp, Wp >= 63: read inside the windows only, as mask_soft writes it
//     window (m, 8) i32: of each row left, right, top, bottom, in prototype pixels; the rest is not read
//     detection_class (m,) i32     detection_confidence (m,) f32
//     network f32, one after the other; W[tap][i][o] is the weight of tap 3 * row + column, input i and output o:
//         first W, bias; second W, bias; third, fourth and fifth W, bias, and the output of the layer before for zeros;
//         (C1, 128) weights of the 1x1 convolution, (C1,) bias, (C1,) the output of the network for zeros
//     second (m, H2, W2, 16), third (m, H3, W3, 32), fourth (m, H4, W4, 64) f32, channels last, written where a window
//         reaches; H2 is Hp after two layers, and so on, with (H - 3) / 2 + 1 after each
//     predicted_iou, mask_confidence (m,) f32
//     status MASK_IOU_NOT_FINITE. Nothing is written for rows from n on.
//
// Kernels (any number of blocks along the axis marked *, which share the tiles of a detection):
//     mask_iou_layers_1_2   grid: (*, m), blocks of 128; tiles of 11 x 11 outputs, 4 pixels x 4 channels a thread.
//                           Shared memory: 30 KB: probabilities, the first layer's outputs and both layers' weights.
//     mask_iou_layer_3      grid: (*, m), blocks of 256; tiles of 8 x 8. Shared memory: 23 KB.
//     mask_iou_layer_4      grid: (*, m), blocks of 256; tiles of 7 x 4. Shared memory: 28 KB.
//     mask_iou_layers_5_6   grid: m, blocks of 256; tiles of 3 x 3. Shared memory: 36 KB.
//   From layer 3 on the input of a tile is in shared memory, weights come as 16 bytes a lane, and the warps of a block
//   divide the input channels among them; their sums are added in the order of the warps.
// Bytes moved: at most the probabilities of a window once, 0.25 MB of activations written and read, and 0.4 MB of
//   weights from the second-level cache, for each detection at 138 x 138.
// Order: every sum has one order, whatever the grid and the order of threads and blocks.
#include "status.cuh"

constexpr int WINDOW_INTS = 8;
constexpr int TAPS = 9;
constexpr int BLOCK_WARPS = 8;
constexpr unsigned FULL_WARP = 0xffffffffu;
// Places in `network`, in values.
constexpr int FIRST_BIAS = TAPS * 8;
constexpr int SECOND = FIRST_BIAS + 8;
constexpr int SECOND_BIAS = SECOND + TAPS * 8 * 16;
constexpr int THIRD = SECOND_BIAS + 16;
constexpr int FOURTH = THIRD + TAPS * 16 * 32 + 32 + 16;
constexpr int FIFTH = FOURTH + TAPS * 32 * 64 + 64 + 32;
constexpr int CLASSES = FIFTH + TAPS * 64 * 128 + 128 + 64;

struct Span {
    int first, last;
};

struct Region {
    Span x, y;
    int width, height;  // of the whole map
};

// Outputs of a layer that see something of `inputs`.
__device__ __forceinline__ Span reached(const Span& inputs, int outputs) {
    if (inputs.first >= inputs.last) return {0, 0};
    return {max(inputs.first - 1, 0) / 2, min((inputs.last - 1) / 2 + 1, outputs)};
}

__device__ __forceinline__ Region after_layers(const int* window, int width, int height, int layers) {
    Region region = {{window[0], window[1]}, {window[2], window[3]}, width, height};
    for (int i = 0; i < layers; ++i) {
        region.width = (region.width - 3) / 2 + 1;
        region.height = (region.height - 3) / 2 + 1;
        region.x = reached(region.x, region.width);
        region.y = reached(region.y, region.height);
    }
    return region;
}

struct Tile {
    int x, y, width, height;  // outputs
    __device__ int pixels() const { return width * height; }
};

// The outputs to compute, in tiles of a layer's size.
struct Tiles {
    Region region;
    int width, height, columns, count;
    __device__ Tiles(const Region& reached_region, int tile_width, int tile_height)
        : region(reached_region), width(tile_width), height(tile_height) {
        columns = (max(region.x.last - region.x.first, 0) + width - 1) / width;
        count = columns * ((max(region.y.last - region.y.first, 0) + height - 1) / height);
    }
    __device__ Tile operator[](int index) const {
        const int x = region.x.first + index % columns * width;
        const int y = region.y.first + index / columns * height;
        return {x, y, min(width, region.x.last - x), min(height, region.y.last - y)};
    }
};

__device__ __forceinline__ bool contains(const Region& region, int x, int y) {
    return x >= region.x.first && x < region.x.last && y >= region.y.first && y < region.y.last;
}

// What is not a number stays so, which fmaxf would hide.
__device__ __forceinline__ float relu(float value) { return value < 0.0f ? 0.0f : value; }
__device__ __forceinline__ float4 relu(const float4& value) {
    return make_float4(relu(value.x), relu(value.y), relu(value.z), relu(value.w));
}

__device__ __forceinline__ void add(float4& sum, const float4& value) {
    sum.x += value.x;
    sum.y += value.y;
    sum.z += value.z;
    sum.w += value.w;
}

__device__ __forceinline__ void add_product(float4& sum, float value, const float4& weight) {
    sum.x = fmaf(value, weight.x, sum.x);
    sum.y = fmaf(value, weight.y, sum.y);
    sum.z = fmaf(value, weight.z, sum.z);
    sum.w = fmaf(value, weight.w, sum.w);
}

// Four outputs from four inputs; row i of `weight` is that of input i.
__device__ __forceinline__ void add_products(float4& sum, const float4& value, const float4 (&weight)[4]) {
    add_product(sum, value.x, weight[0]);
    add_product(sum, value.y, weight[1]);
    add_product(sum, value.z, weight[2]);
    add_product(sum, value.w, weight[3]);
}

// --- layers 1 and 2 --------------------------------------------------------------------------------------------------

constexpr int FRONT_THREADS = 128;
constexpr int FRONT_TILE = 11;
constexpr int FIRST_SIDE = 2 * FRONT_TILE + 1;
constexpr int FIRST_EVEN = FRONT_TILE + 1;  // columns of the first layer with an even number, stored before the others
constexpr int SOFT_SIDE = 2 * FIRST_SIDE + 1;
constexpr int FRONT_SLOTS = FRONT_THREADS / 4;

// Neighbours of one output are two columns apart: with even and odd columns apart they are neighbours in memory, too.
__device__ __forceinline__ int first_place(int x, int y) {
    return (y * FIRST_SIDE + (x % 2 != 0 ? FIRST_EVEN : 0) + x / 2) * 2;
}

__device__ void load_soft(const float* soft, const Region& region, const Tile& tile, float* probability) {
    const int width = 4 * tile.width + 3;
    const int height = 4 * tile.height + 3;
    // A warp for a row: no division.
    for (int y = static_cast<int>(threadIdx.x) / 32; y < height; y += FRONT_THREADS / 32) {
        const int py = 4 * tile.y + y;
        for (int x = static_cast<int>(threadIdx.x) % 32; x < width; x += 32) {
            const int px = 4 * tile.x + x;
            probability[y * SOFT_SIDE + x] = contains(region, px, py) ? soft[py * region.width + px] : 0.0f;
        }
    }
}

__device__ void first_layer(const float* probability, const float4* weight, const Tile& tile, float4* first) {
    const int width = 2 * tile.width + 1;
    const int pixels = width * (2 * tile.height + 1);
    for (int i = static_cast<int>(threadIdx.x); i < pixels; i += FRONT_THREADS) {
        const int y = i / width;
        const int x = i - y * width;
        float4 low = weight[FIRST_BIAS / 4];
        float4 high = weight[FIRST_BIAS / 4 + 1];
        for (int tap = 0; tap < TAPS; ++tap) {
            const float value = probability[(2 * y + tap / 3) * SOFT_SIDE + 2 * x + tap % 3];
            add_product(low, value, weight[2 * tap]);
            add_product(high, value, weight[2 * tap + 1]);
        }
        first[first_place(x, y)] = relu(low);
        first[first_place(x, y) + 1] = relu(high);
    }
}

template <int PIXELS>
__device__ void second_layer(const float4* first, const float4* weight, const Tile& tile, int map_width,
                             float4* second) {
    const int quad = static_cast<int>(threadIdx.x) % 4;
    const int slot = static_cast<int>(threadIdx.x) / 4;
    int place[PIXELS];
    float4 sum[PIXELS];
#pragma unroll
    for (int j = 0; j < PIXELS; ++j) {
        const int pixel = min(slot + j * FRONT_SLOTS, tile.pixels() - 1);
        const int y = pixel / tile.width;
        place[j] = first_place(2 * (pixel - y * tile.width), 2 * y);
        sum[j] = weight[SECOND_BIAS / 4 + quad];
    }
#pragma unroll 1
    for (int row = 0; row < 3; ++row) {
#pragma unroll
        for (int column = 0; column < 3; ++column) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float4* source = weight + SECOND / 4 + ((row * 3 + column) * 8 + half * 4) * 4 + quad;
                const float4 weights[4] = {source[0], source[4], source[8], source[12]};
                const int offset = first_place(column, row) + half;
#pragma unroll
                for (int j = 0; j < PIXELS; ++j) add_products(sum[j], first[place[j] + offset], weights);
            }
        }
    }
#pragma unroll
    for (int j = 0; j < PIXELS; ++j) {
        const int pixel = slot + j * FRONT_SLOTS;
        const int y = pixel / tile.width;
        if (pixel >= tile.pixels()) continue;
        second[((tile.y + y) * map_width + tile.x + pixel - y * tile.width) * 4 + quad] = relu(sum[j]);
    }
}

extern "C" __global__ void __launch_bounds__(128) mask_iou_layers_1_2(
    const float* soft, const int* window, const int* detection_count, int prototype_height, int prototype_width,
    const float4* network, float4* second) {
    __shared__ float4 weight[THIRD / 4];
    __shared__ float4 first[FIRST_SIDE * FIRST_SIDE * 2];
    __shared__ float probability[SOFT_SIDE * SOFT_SIDE];
    const long long detection = blockIdx.y;
    if (detection >= *detection_count) return;
    const int* mine = window + detection * WINDOW_INTS;
    const Region region = after_layers(mine, prototype_width, prototype_height, 0);
    const Tiles tiles(after_layers(mine, prototype_width, prototype_height, 2), FRONT_TILE, FRONT_TILE);
    if (static_cast<int>(blockIdx.x) >= tiles.count) return;
    for (int i = static_cast<int>(threadIdx.x); i < THIRD / 4; i += FRONT_THREADS) weight[i] = network[i];
    soft += detection * prototype_height * prototype_width;
    second += detection * tiles.region.height * tiles.region.width * 4;
    for (int index = static_cast<int>(blockIdx.x); index < tiles.count; index += static_cast<int>(gridDim.x)) {
        const Tile tile = tiles[index];
        load_soft(soft, region, tile, probability);
        __syncthreads();
        first_layer(probability, weight, tile, first);
        __syncthreads();
        if (tile.pixels() <= 2 * FRONT_SLOTS) {
            second_layer<2>(first, weight, tile, tiles.region.width, second);
        } else {
            second_layer<4>(first, weight, tile, tiles.region.width, second);
        }
        // The next tile's `probability` may be written meanwhile, its `first` not before the next barrier.
    }
}

// --- layers 3 to 5 ---------------------------------------------------------------------------------------------------

// SPLITS warps divide the input channels of a tile among them; a warp has lanes for four outputs each, and where there
// are fewer than 128 outputs, for several pixels.
template <int INPUTS_, int OUTPUTS_, int WIDTH_, int HEIGHT_, int SPLITS_, int FEW_, int TAPS_AT_ONCE_>
struct Layer {
    static constexpr int INPUTS = INPUTS_, OUTPUTS = OUTPUTS_, WIDTH = WIDTH_, HEIGHT = HEIGHT_, SPLITS = SPLITS_;
    static constexpr int FEW = FEW_;  // pixels of a thread in tiles that are not full
    static constexpr int TAPS_AT_ONCE = TAPS_AT_ONCE_;  // whose weights are asked for before they are used
    static constexpr int PIXELS = WIDTH * HEIGHT;
    static constexpr int QUADS = OUTPUTS / 4;
    static constexpr int GROUPS = 32 / QUADS;
    static constexpr int SLOTS = BLOCK_WARPS / SPLITS * GROUPS;
    static constexpr int MANY = (PIXELS + SLOTS - 1) / SLOTS;
    static constexpr int INPUT_QUADS = INPUTS / 4;
    static constexpr int PITCH = INPUT_QUADS + 1;  // so that the lanes' pixels lie in different banks
    static constexpr int PATCH_WIDTH = 2 * WIDTH + 1;
    static constexpr int PATCH = PATCH_WIDTH * (2 * HEIGHT + 1) * PITCH;
    static constexpr int PARTIAL = SPLITS * PIXELS * QUADS;
    static constexpr int SHARED = PATCH > PARTIAL ? PATCH : PARTIAL;
    static constexpr int BIAS = TAPS * INPUTS * QUADS;
    static constexpr int BLANK = BIAS + QUADS;
};

using Third = Layer<16, 32, 8, 8, 2, 2, 1>;
using Fourth = Layer<32, 64, 7, 4, 4, 3, 1>;
using Fifth = Layer<64, 128, 3, 3, 8, 4, 3>;

// What the outputs of a tile see, channels last.
template <class L>
__device__ void load_patch(const float4* input, const float4* blank, const Region& region, const Tile& tile,
                           float4* patch) {
    const int values = (2 * tile.width + 1) * L::INPUT_QUADS;
    const int height = 2 * tile.height + 1;
    // A warp for a row: no division.
    for (int y = static_cast<int>(threadIdx.x) / 32; y < height; y += BLOCK_WARPS) {
        const int from_y = 2 * tile.y + y;
        const float4* row = input + from_y * region.width * L::INPUT_QUADS;
        for (int i = static_cast<int>(threadIdx.x) % 32; i < values; i += 32) {
            const int quad = i % L::INPUT_QUADS;
            const int x = i / L::INPUT_QUADS;
            const int from_x = 2 * tile.x + x;
            const bool computed = contains(region, from_x, from_y);
            patch[(y * L::PATCH_WIDTH + x) * L::PITCH + quad] =
                computed ? row[from_x * L::INPUT_QUADS + quad] : blank[quad];
        }
    }
}

// A tile's sums without bias, `SPLITS` of each, into the memory in which the patch was. The whole block calls it.
template <class L, int PIXELS>
__device__ void convolve(const float4* weight, const Tile& tile, float4* shared) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int quad = lane % L::QUADS;
    const int split = warp % L::SPLITS;
    const int slot = warp / L::SPLITS * L::GROUPS + lane / L::QUADS;
    int place[PIXELS];
    float4 sum[PIXELS];
#pragma unroll
    for (int j = 0; j < PIXELS; ++j) {
        const int pixel = min(slot + j * L::SLOTS, tile.pixels() - 1);
        const int y = pixel / tile.width;
        place[j] = (2 * y * L::PATCH_WIDTH + 2 * (pixel - y * tile.width)) * L::PITCH;
        sum[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    constexpr int SHARE = L::INPUT_QUADS / L::SPLITS;
#pragma unroll 1
    for (int input = split * SHARE; input < (split + 1) * SHARE; ++input) {
#pragma unroll 1
        for (int row = 0; row < 3; ++row) {
#pragma unroll L::TAPS_AT_ONCE
            for (int column = 0; column < 3; ++column) {
                const float4* source = weight + ((row * 3 + column) * L::INPUTS + input * 4) * L::QUADS + quad;
                const float4 weights[4] = {source[0], source[L::QUADS], source[2 * L::QUADS], source[3 * L::QUADS]};
                const int offset = (row * L::PATCH_WIDTH + column) * L::PITCH + input;
#pragma unroll
                for (int j = 0; j < PIXELS; ++j) add_products(sum[j], shared[place[j] + offset], weights);
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < PIXELS; ++j) {
        const int pixel = slot + j * L::SLOTS;
        if (pixel < tile.pixels()) shared[(split * L::PIXELS + pixel) * L::QUADS + quad] = sum[j];
    }
    __syncthreads();
}

// All of a tile but the last additions; see `output_of`.
template <class L>
__device__ void compute_tile(const float4* input, const Region& region, const float4* layer, const Tile& tile,
                             float4* shared) {
    load_patch<L>(input, layer + L::BLANK, region, tile, shared);
    __syncthreads();
    if (tile.pixels() <= L::FEW * L::SLOTS) {
        convolve<L, L::FEW>(layer, tile, shared);
    } else {
        convolve<L, L::MANY>(layer, tile, shared);
    }
}

// Four outputs of a pixel: `index` is QUADS * pixel + quad.
template <class L>
__device__ __forceinline__ float4 output_of(const float4* shared, const float4* layer, int index) {
    float4 sum = layer[L::BIAS + index % L::QUADS];
#pragma unroll
    for (int split = 0; split < L::SPLITS; ++split) add(sum, shared[split * L::PIXELS * L::QUADS + index]);
    return relu(sum);
}

// One detection's tiles of a layer from activations to activations.
template <class L>
__device__ void run_layer(const float4* input, const Region& region, const Tiles& tiles, const float4* layer,
                          float4* output, float4* shared) {
    for (int index = static_cast<int>(blockIdx.x); index < tiles.count; index += static_cast<int>(gridDim.x)) {
        const Tile tile = tiles[index];
        compute_tile<L>(input, region, layer, tile, shared);
        for (int i = static_cast<int>(threadIdx.x); i < tile.pixels() * L::QUADS; i += BLOCK_WARPS * 32) {
            const int pixel = i / L::QUADS;
            const int y = pixel / tile.width;
            const int to = (tile.y + y) * tiles.region.width + tile.x + pixel - y * tile.width;
            output[to * L::QUADS + i % L::QUADS] = output_of<L>(shared, layer, i);
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) mask_iou_layer_3(
    const float4* second, const int* window, const int* detection_count, int prototype_height, int prototype_width,
    const float4* network, float4* third) {
    __shared__ float4 shared[Third::SHARED];
    const long long detection = blockIdx.y;
    if (detection >= *detection_count) return;
    const int* mine = window + detection * WINDOW_INTS;
    const Region region = after_layers(mine, prototype_width, prototype_height, 2);
    const Tiles tiles(after_layers(mine, prototype_width, prototype_height, 3), Third::WIDTH, Third::HEIGHT);
    second += detection * region.width * region.height * Third::INPUT_QUADS;
    third += detection * tiles.region.width * tiles.region.height * Third::QUADS;
    run_layer<Third>(second, region, tiles, network + THIRD / 4, third, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) mask_iou_layer_4(
    const float4* third, const int* window, const int* detection_count, int prototype_height, int prototype_width,
    const float4* network, float4* fourth) {
    __shared__ float4 shared[Fourth::SHARED];
    const long long detection = blockIdx.y;
    if (detection >= *detection_count) return;
    const int* mine = window + detection * WINDOW_INTS;
    const Region region = after_layers(mine, prototype_width, prototype_height, 3);
    const Tiles tiles(after_layers(mine, prototype_width, prototype_height, 4), Fourth::WIDTH, Fourth::HEIGHT);
    third += detection * region.width * region.height * Fourth::INPUT_QUADS;
    fourth += detection * tiles.region.width * tiles.region.height * Fourth::QUADS;
    run_layer<Fourth>(third, region, tiles, network + FOURTH / 4, fourth, shared);
}

// --- layers 5 and 6, and the maximum ---------------------------------------------------------------------------------

// A warp with four channels a lane: the IoU that one pixel of the fifth layer predicts for a class, in every lane.
__device__ __forceinline__ float class_output(const float4& value, const float4& factor, float bias) {
    float sum = fmaf(value.w, factor.w, fmaf(value.z, factor.z, fmaf(value.y, factor.y, value.x * factor.x)));
    for (int flip = 16; flip > 0; flip /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, flip);
    return relu(sum + bias);
}

extern "C" __global__ void __launch_bounds__(256, 1) mask_iou_layers_5_6(
    const float4* fourth, const int* window, const int* detection_count, const int* detection_class,
    const float* detection_confidence, int prototype_height, int prototype_width, int num_classes,
    const float4* network, float* predicted_iou, float* mask_confidence, unsigned* status) {
    __shared__ float4 shared[Fifth::SHARED];
    __shared__ float warp_best[BLOCK_WARPS];
    const int tid = static_cast<int>(threadIdx.x);
    const long long detection = blockIdx.x;
    if (detection >= *detection_count) return;
    const int* mine = window + detection * WINDOW_INTS;
    const Region region = after_layers(mine, prototype_width, prototype_height, 4);
    const Tiles tiles(after_layers(mine, prototype_width, prototype_height, 5), Fifth::WIDTH, Fifth::HEIGHT);
    fourth += detection * region.width * region.height * Fifth::INPUT_QUADS;
    const float4* fifth = network + FIFTH / 4;
    const int class_id = detection_class[detection];
    const float4* weight = network + CLASSES / 4 + class_id * (Fifth::OUTPUTS / 4);
    const float* bias = reinterpret_cast<const float*>(network) + CLASSES + num_classes * Fifth::OUTPUTS;
    float best = 0.0f;  // outputs are not below it
    for (int index = 0; index < tiles.count; ++index) {
        const Tile tile = tiles[index];
        compute_tile<Fifth>(fourth, region, fifth, tile, shared);
        for (int pixel = tid / 32; pixel < tile.pixels(); pixel += BLOCK_WARPS) {
            const float4 value = output_of<Fifth>(shared, fifth, pixel * Fifth::QUADS + tid % 32);
            const float output = class_output(value, weight[tid % 32], bias[class_id]);
            if (!isfinite(output)) atomicOr(status, STATUS_MASK_IOU_NOT_FINITE);
            best = fmaxf(best, output);
        }
        __syncthreads();
    }
    if (tid % 32 == 0) warp_best[tid / 32] = best;
    __syncthreads();
    if (tid != 0) return;
    for (int warp = 0; warp < BLOCK_WARPS; ++warp) best = fmaxf(best, warp_best[warp]);
    const Region& last = tiles.region;
    const bool everywhere = last.x.last - last.x.first == last.width && last.y.last - last.y.first == last.height;
    if (!everywhere) best = fmaxf(best, bias[num_classes + class_id]);
    predicted_iou[detection] = best;
    mask_confidence[detection] = detection_confidence[detection] * best;
}
