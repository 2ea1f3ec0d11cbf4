// preprocess: camera frame -> network input. Stretch, colour conversion, normalisation and planar channels in one pass.
//
// Formula: yolact_plugins.reference.preprocess, for NV12 and YUYV of yuv_to_bgr's result:
//     out[c, y, x] = (bilinear(frame)[y, x, channel(c)] - mean[channel(c)]) * scale[channel(c)],   scale = 1 / std
//   with half-pixel centres and without antialiasing. Colour conversion happens at the source pixels, in float, clipped
//   to 0..255 and not rounded; chroma samples are repeated, not interpolated, as OpenCV does it.
//
// Shapes and strides:
//     frame   u8, `height` rows of `pitch` bytes; BGR, RGB: 3 bytes a pixel; BGRA: 4; YUYV: Y0 U Y1 V for two pixels;
//             NV12: one byte of luma a pixel
//     chroma  NV12 only: ceil(height / 2) rows of `chroma_pitch` bytes, U V for 2 x 2 pixels; else not read
//     out     (3, out_height, out_width), contiguous, float16 or float32; red first when `red_first` is not 0
//     mean, scale: of blue, green, red, on the 0..255 scale
//     status  (1,) u32: zeroed, because nothing of a frame comes before this kernel; see status.cuh
//     yuv     luma_offset, luma_gain, red_v, green_u, green_v, blue_u: what 1 of V or U above 128 adds to a colour
//
// Grid: (ceil(out_width / 32), ceil(out_height / 32)); block: (32, 4), each thread the pixels of a column in 8 rows, so
// that stores are coalesced. Where to read, and with which weights, is worked out once for each row and column of a
// block, all divisions with it. Shared memory: 1664 bytes. Limits: height * out_height, width * out_width < 2^30,
// out_height * out_width < 2^31.
// Bytes moved: the frame once, at most 4 taps of a pixel (less where it shrinks); 3 * out_height * out_width
// values written.
// Order: every value is written once, by one thread; nothing depends on the order of threads.
#include "linear_taps.cuh"
#include "scalar.cuh"

enum FrameFormat { FORMAT_BGR = 0, FORMAT_RGB = 1, FORMAT_BGRA = 2, FORMAT_NV12 = 3, FORMAT_YUYV = 4 };

struct Colour {
    float blue, green, red;
};

struct YuvMatrix {
    float luma_offset, luma_gain, red_v, green_u, green_v, blue_u;
};

struct Frame {
    const unsigned char* pixels;
    const unsigned char* chroma;
    long long pitch, chroma_pitch;
    YuvMatrix yuv;
};

__device__ __forceinline__ float read_byte(const unsigned char* address) { return static_cast<float>(__ldg(address)); }

__device__ __forceinline__ float clip_colour(float value) { return fminf(fmaxf(value, 0.0f), 255.0f); }

__device__ __forceinline__ Colour yuv_to_bgr(const YuvMatrix& matrix, float luma, float u, float v) {
    const float grey = (luma - matrix.luma_offset) * matrix.luma_gain;
    u -= 128.0f;
    v -= 128.0f;
    return {clip_colour(grey + matrix.blue_u * u), clip_colour(grey + matrix.green_u * u + matrix.green_v * v),
            clip_colour(grey + matrix.red_v * v)};
}

// Where a row of the frame begins; the second one is that of its chroma samples.
struct Line {
    const unsigned char* pixels;
    const unsigned char* chroma;
};

__device__ __forceinline__ Line line_of(const Frame& frame, int y) {
    return {frame.pixels + y * frame.pitch, frame.chroma + (y >> 1) * frame.chroma_pitch};
}

template <int Format>
__device__ __forceinline__ Colour read_pixel(const YuvMatrix& yuv, const Line& line, int x) {
    if constexpr (Format == FORMAT_NV12) {
        const unsigned char* chroma = line.chroma + (x & ~1);
        return yuv_to_bgr(yuv, read_byte(line.pixels + x), read_byte(chroma), read_byte(chroma + 1));
    } else if constexpr (Format == FORMAT_YUYV) {
        const unsigned char* pair = line.pixels + 4ll * (x >> 1);
        return yuv_to_bgr(yuv, read_byte(pair + 2 * (x & 1)), read_byte(pair + 1), read_byte(pair + 3));
    } else {
        const unsigned char* pixel = line.pixels + static_cast<long long>(x) * (Format == FORMAT_BGRA ? 4 : 3);
        const Colour colour = {read_byte(pixel), read_byte(pixel + 1), read_byte(pixel + 2)};
        return Format == FORMAT_RGB ? Colour{colour.red, colour.green, colour.blue} : colour;
    }
}

__device__ __forceinline__ Colour interpolate(const Colour& low, const Colour& high, float fraction) {
    return {interpolate(low.blue, high.blue, fraction), interpolate(low.green, high.green, fraction),
            interpolate(low.red, high.red, fraction)};
}

struct RowTap {
    Line low, high;
    float fraction;
};

template <int Format>
__device__ __forceinline__ Colour sample(const YuvMatrix& yuv, const RowTap& y, const LinearTap& x) {
    const Colour left = interpolate(read_pixel<Format>(yuv, y.low, x.low), read_pixel<Format>(yuv, y.high, x.low),
                                    y.fraction);
    const Colour right = interpolate(read_pixel<Format>(yuv, y.low, x.high), read_pixel<Format>(yuv, y.high, x.high),
                                     y.fraction);
    return interpolate(left, right, x.fraction);
}

constexpr int TILE = 32;  // pixels of a block along both axes
constexpr int ROWS_AT_ONCE = 4;

struct TileTaps {
    RowTap row[TILE];
    LinearTap column[TILE];
};

template <class Value>
struct Output {
    Value *blue, *green, *red;  // planes
    int height, width;
    Colour mean, scale;
};

// A column's pixels in every ROWS_AT_ONCE-th row of the tile.
template <int Format, class Value>
__device__ __forceinline__ void fill(const YuvMatrix& yuv, const TileTaps& taps, const Output<Value>& out, int x) {
    const LinearTap column = taps.column[threadIdx.x];
    const int top = static_cast<int>(blockIdx.y) * TILE;
    const int rows = min(TILE, out.height - top);
    for (int row = static_cast<int>(threadIdx.y); row < rows; row += ROWS_AT_ONCE) {
        const Colour colour = sample<Format>(yuv, taps.row[row], column);
        const int place = (top + row) * out.width + x;
        store(out.blue + place, (colour.blue - out.mean.blue) * out.scale.blue);
        store(out.green + place, (colour.green - out.mean.green) * out.scale.green);
        store(out.red + place, (colour.red - out.mean.red) * out.scale.red);
    }
}

template <class Value>
__device__ __forceinline__ void preprocess(const Frame& frame, int format, int height, int width,
                                           const Output<Value>& out, unsigned* status, TileTaps& taps) {
    const int lane = static_cast<int>(threadIdx.x);
    const int x = static_cast<int>(blockIdx.x) * TILE + lane;
    if (threadIdx.y == 0) {
        const LinearTap tap = linear_tap(static_cast<int>(blockIdx.y) * TILE + lane, height, out.height);
        taps.row[lane] = {line_of(frame, tap.low), line_of(frame, tap.high), tap.fraction};
    } else if (threadIdx.y == 1) {
        taps.column[lane] = linear_tap(x, width, out.width);
    } else if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.y == 2 && lane == 0) {
        *status = 0;
    }
    __syncthreads();
    if (x >= out.width) return;
    switch (format) {  // the same for all threads of a launch
        case FORMAT_BGR: return fill<FORMAT_BGR>(frame.yuv, taps, out, x);
        case FORMAT_RGB: return fill<FORMAT_RGB>(frame.yuv, taps, out, x);
        case FORMAT_BGRA: return fill<FORMAT_BGRA>(frame.yuv, taps, out, x);
        case FORMAT_NV12: return fill<FORMAT_NV12>(frame.yuv, taps, out, x);
        default: return fill<FORMAT_YUYV>(frame.yuv, taps, out, x);
    }
}

template <class Value>
__device__ __forceinline__ Output<Value> output_of(Value* out, int height, int width, const Colour& mean,
                                                   const Colour& scale, int red_first) {
    const long long plane = static_cast<long long>(height) * width;
    Value* const last = out + 2 * plane;
    return {red_first ? last : out, out + plane, red_first ? out : last, height, width, mean, scale};
}

extern "C" __global__ void __launch_bounds__(TILE * ROWS_AT_ONCE) preprocess_f32(
    const unsigned char* frame, const unsigned char* chroma, long long pitch, long long chroma_pitch, int format,
    int height, int width, float* out, int out_height, int out_width, float mean_blue, float mean_green, float mean_red,
    float scale_blue, float scale_green, float scale_red, int red_first, float luma_offset, float luma_gain,
    float red_v, float green_u, float green_v, float blue_u, unsigned* status) {
    __shared__ TileTaps taps;
    preprocess({frame, chroma, pitch, chroma_pitch, {luma_offset, luma_gain, red_v, green_u, green_v, blue_u}}, format,
               height, width,
               output_of(out, out_height, out_width, {mean_blue, mean_green, mean_red},
                         {scale_blue, scale_green, scale_red}, red_first),
               status, taps);
}

extern "C" __global__ void __launch_bounds__(TILE * ROWS_AT_ONCE) preprocess_f16(
    const unsigned char* frame, const unsigned char* chroma, long long pitch, long long chroma_pitch, int format,
    int height, int width, __half* out, int out_height, int out_width, float mean_blue, float mean_green,
    float mean_red, float scale_blue, float scale_green, float scale_red, int red_first, float luma_offset,
    float luma_gain, float red_v, float green_u, float green_v, float blue_u, unsigned* status) {
    __shared__ TileTaps taps;
    preprocess({frame, chroma, pitch, chroma_pitch, {luma_offset, luma_gain, red_v, green_u, green_v, blue_u}}, format,
               height, width,
               output_of(out, out_height, out_width, {mean_blue, mean_green, mean_red},
                         {scale_blue, scale_green, scale_red}, red_first),
               status, taps);
}
