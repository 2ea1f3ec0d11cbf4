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
//     yuv     luma_offset, luma_gain, red_v, green_u, green_v, blue_u: what 1 of V or U above 128 adds to a colour
//
// Grid: (ceil(out_width / 32), ceil(out_height / 8)); block: (32, 8), one thread for each output pixel and its three
// channels, so that stores are coalesced. Shared memory: none. Limits: height * out_height, width * out_width < 2^30.
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

template <int Format>
__device__ __forceinline__ Colour read_pixel(const Frame& frame, int y, int x) {
    const unsigned char* row = frame.pixels + y * frame.pitch;
    if constexpr (Format == FORMAT_NV12) {
        const unsigned char* chroma = frame.chroma + (y >> 1) * frame.chroma_pitch + (x & ~1);
        return yuv_to_bgr(frame.yuv, read_byte(row + x), read_byte(chroma), read_byte(chroma + 1));
    } else if constexpr (Format == FORMAT_YUYV) {
        const unsigned char* pair = row + 4ll * (x >> 1);
        return yuv_to_bgr(frame.yuv, read_byte(pair + 2 * (x & 1)), read_byte(pair + 1), read_byte(pair + 3));
    } else {
        const unsigned char* pixel = row + static_cast<long long>(x) * (Format == FORMAT_BGRA ? 4 : 3);
        const Colour colour = {read_byte(pixel), read_byte(pixel + 1), read_byte(pixel + 2)};
        return Format == FORMAT_RGB ? Colour{colour.red, colour.green, colour.blue} : colour;
    }
}

__device__ __forceinline__ Colour interpolate(const Colour& low, const Colour& high, float fraction) {
    return {interpolate(low.blue, high.blue, fraction), interpolate(low.green, high.green, fraction),
            interpolate(low.red, high.red, fraction)};
}

template <int Format>
__device__ Colour sample(const Frame& frame, const LinearTap& y, const LinearTap& x) {
    const Colour left =
        interpolate(read_pixel<Format>(frame, y.low, x.low), read_pixel<Format>(frame, y.high, x.low), y.fraction);
    const Colour right =
        interpolate(read_pixel<Format>(frame, y.low, x.high), read_pixel<Format>(frame, y.high, x.high), y.fraction);
    return interpolate(left, right, x.fraction);
}

// The same branch for all threads of a launch.
__device__ Colour sample(int format, const Frame& frame, const LinearTap& y, const LinearTap& x) {
    switch (format) {
        case FORMAT_BGR: return sample<FORMAT_BGR>(frame, y, x);
        case FORMAT_RGB: return sample<FORMAT_RGB>(frame, y, x);
        case FORMAT_BGRA: return sample<FORMAT_BGRA>(frame, y, x);
        case FORMAT_NV12: return sample<FORMAT_NV12>(frame, y, x);
        default: return sample<FORMAT_YUYV>(frame, y, x);
    }
}

template <class Value>
__device__ void preprocess(const Frame& frame, int format, int height, int width, Value* out, int out_height,
                           int out_width, const Colour& mean, const Colour& scale, int red_first) {
    const int x = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    const int y = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= out_width || y >= out_height) return;
    const LinearTap row = linear_tap(y, height, out_height);
    const LinearTap column = linear_tap(x, width, out_width);
    const Colour colour = sample(format, frame, row, column);
    const float blue = (colour.blue - mean.blue) * scale.blue;
    const float red = (colour.red - mean.red) * scale.red;
    const long long plane = static_cast<long long>(out_height) * out_width;
    Value* pixel = out + static_cast<long long>(y) * out_width + x;
    store(pixel, red_first ? red : blue);
    store(pixel + plane, (colour.green - mean.green) * scale.green);
    store(pixel + 2 * plane, red_first ? blue : red);
}

extern "C" __global__ void __launch_bounds__(256) preprocess_f32(
    const unsigned char* frame, const unsigned char* chroma, long long pitch, long long chroma_pitch, int format,
    int height, int width, float* out, int out_height, int out_width, float mean_blue, float mean_green, float mean_red,
    float scale_blue, float scale_green, float scale_red, int red_first, float luma_offset, float luma_gain,
    float red_v, float green_u, float green_v, float blue_u) {
    preprocess({frame, chroma, pitch, chroma_pitch, {luma_offset, luma_gain, red_v, green_u, green_v, blue_u}}, format,
               height, width, out, out_height, out_width, {mean_blue, mean_green, mean_red},
               {scale_blue, scale_green, scale_red}, red_first);
}

extern "C" __global__ void __launch_bounds__(256) preprocess_f16(
    const unsigned char* frame, const unsigned char* chroma, long long pitch, long long chroma_pitch, int format,
    int height, int width, __half* out, int out_height, int out_width, float mean_blue, float mean_green,
    float mean_red, float scale_blue, float scale_green, float scale_red, int red_first, float luma_offset,
    float luma_gain, float red_v, float green_u, float green_v, float blue_u) {
    preprocess({frame, chroma, pitch, chroma_pitch, {luma_offset, luma_gain, red_v, green_u, green_v, blue_u}}, format,
               height, width, out, out_height, out_width, {mean_blue, mean_green, mean_red},
               {scale_blue, scale_green, scale_red}, red_first);
}
