// Floating-point numbers, and conversions from and to them.
#pragma once

#include "integers.h"

float flush(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value; }

float from_half(u32 half) {
    const u32 exponent = half >> 10 & 31, fraction = half & 1023, sign = (half & 0x8000) << 16;
    if (exponent == 0) return std::copysign(std::ldexp(static_cast<float>(fraction), -24), as_float(sign | 0x3f800000));
    if (exponent == 31) return as_float(sign | 0x7f800000 | fraction << 13);
    return as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

u32 to_half(float value) {
    const u32 bits = as_bits(value), sign = bits >> 16 & 0x8000;
    const float size = std::fabs(value);
    if (std::isnan(value)) return 0x7fff;
    if (size >= 65520.0f) return sign | 0x7c00;
    int exponent;
    std::frexp(size, &exponent);
    const int scale = std::max(exponent - 11, -24);  // of the last bit
    const u32 steps = static_cast<u32>(std::nearbyint(std::ldexp(size, -scale)));
    // A carry out of the fraction goes into the exponent by itself.
    return sign | (scale == -24 ? steps : static_cast<u32>(scale + 24) * 1024 + steps);
}

struct Rounding {
    int before;
    explicit Rounding(u64 modifiers) : before(std::fegetround()) {
        if (modifiers & M_RM) std::fesetround(FE_DOWNWARD);
        if (modifiers & M_RP) std::fesetround(FE_UPWARD);
        if (modifiers & M_RZ) std::fesetround(FE_TOWARDZERO);
    }
    ~Rounding() { std::fesetround(before); }
};

class Floats : public Integers {
  protected:
    using Integers::Integers;

    template <class Function>
    void floats(const Instruction& it, u32 mask, Function function) {
        Values a, b, c, result;
        fetch_float(it.sources[0], a);
        fetch_float(it.sources[1], b);
        if (it.num_sources > 2) fetch_float(it.sources[2], c);
        const bool ftz = it.modifiers & M_FTZ, saturates = it.modifiers & M_SAT;
        const Rounding rounding(it.modifiers);
        for (int l = 0; l < LANES; ++l) {
            float x = as_float(a[l]), y = as_float(b[l]), z = it.num_sources > 2 ? as_float(c[l]) : 0.0f;
            if (ftz) x = flush(x), y = flush(y), z = flush(z);
            volatile float value = function(x, y, z);
            float kept = value;
            if (ftz) kept = flush(kept);
            if (saturates) kept = kept > 0.0f ? std::min(kept, 1.0f) : 0.0f;
            result[l] = as_bits(kept);
        }
        store(it, result, mask);
    }

    void compare_floats(const Instruction& it, u32 mask) {
        Values a, b;
        fetch_float(it.sources[0], a);
        fetch_float(it.sources[1], b);
        u32 found = 0;
        for (int l = 0; l < LANES; ++l) {
            float x = as_float(a[l]), y = as_float(b[l]);
            if (it.modifiers & M_FTZ) x = flush(x), y = flush(y);
            const bool unordered = std::isnan(x) || std::isnan(y);
            found |= static_cast<u32>(compare(it.modifiers, x < y, x == y, unordered)) << l;
        }
        const u32 with = predicate(it.sources[2]);
        set_predicate(it, 0, combine(it.modifiers, found, with), mask);
        set_predicate(it, 1, combine(it.modifiers, ~found, with), mask);
    }

    void smaller_or_larger_float(const Instruction& it, u32 mask) {
        Values a, b, result;
        fetch_float(it.sources[0], a);
        fetch_float(it.sources[1], b);
        const u32 smaller = predicate(it.sources[2]);
        for (int l = 0; l < LANES; ++l) {
            const float x = as_float(a[l]), y = as_float(b[l]);
            if (std::isnan(x) || std::isnan(y)) {
                const bool keep_nan = it.modifiers & M_NAN;
                result[l] = keep_nan || (std::isnan(x) && std::isnan(y)) ? 0x7fffffffu : std::isnan(x) ? b[l] : a[l];
                continue;
            }
            const bool less = x < y || (x == y && std::signbit(x));
            result[l] = less == static_cast<bool>(smaller >> l & 1u) ? a[l] : b[l];
        }
        store(it, result, mask);
    }

    void special_function(const Instruction& it, u32 mask) {
        Values a;
        fetch_float(it.sources[0], a);
        for (u32& each : a) {
            const float x = as_float(each);
            float value = 0;
            if (it.modifiers & M_RCP) value = 1.0f / x;
            else if (it.modifiers & M_RSQ) value = 1.0f / std::sqrt(x);
            else if (it.modifiers & M_SQRT) value = std::sqrt(x);
            else if (it.modifiers & M_EX2) value = std::exp2(x);
            else if (it.modifiers & M_LG2) value = std::log2(x);
            else fail("a special function that is not known");
            each = as_bits(value);
        }
        store(it, a, mask);
    }

    // Whether a division a / b needs the subroutine: operands that are zero, subnormal, infinite or NaN, and quotients
    // near the ends of the range.
    void check_division(const Instruction& it, u32 mask) {
        Values a, b;
        fetch_float(it.sources[0], a);
        fetch_float(it.sources[1], b);
        u32 found = 0;
        for (int l = 0; l < LANES; ++l) {
            const int of_a = static_cast<int>(a[l] >> 23 & 255u), of_b = static_cast<int>(b[l] >> 23 & 255u);
            const bool plain = of_a >= 25 && of_a < 255 && of_b > 0 && of_b < 253 && of_a - of_b > -125 && of_a - of_b < 126;
            found |= static_cast<u32>(!plain) << l;
        }
        set_predicate(it, 0, found, mask);
    }

    static double rounded(u64 modifiers, double x) {
        if (modifiers & M_TRUNC) return std::trunc(x);
        if (modifiers & M_CEIL) return std::ceil(x);
        return modifiers & M_FLOOR ? std::floor(x) : std::nearbyint(x);
    }

    void round_float(const Instruction& it, u32 mask) {
        Values a;
        fetch_float(it.sources[0], a);
        for (u32& each : a) each = as_bits(static_cast<float>(rounded(it.modifiers, as_float(each))));
        store(it, a, mask);
    }

    void to_integer(const Instruction& it, u32 mask) {
        Values a;
        fetch_float(it.sources[0], a);
        const bool wide = it.modifiers & (M_U64 | M_S64), is_unsigned = it.modifiers & (M_U32 | M_U64);
        u64 result[LANES];
        for (int l = 0; l < LANES; ++l) {
            const double x = rounded(it.modifiers, as_float(a[l]));
            const double bits = wide ? 64 : 32;
            const double low = is_unsigned ? 0 : -std::ldexp(1.0, static_cast<int>(bits) - 1);
            const double end = std::ldexp(1.0, static_cast<int>(bits) - (is_unsigned ? 0 : 1));
            if (std::isnan(x)) result[l] = wide ? 1ull << 63 : 0;
            else if (x < low) result[l] = is_unsigned ? 0 : static_cast<u64>(static_cast<i64>(low));
            else if (x >= end) result[l] = is_unsigned ? ~0ull : wide ? ~0ull >> 1 : 0x7fffffffu;
            else result[l] = is_unsigned ? static_cast<u64>(x) : static_cast<u64>(static_cast<i64>(x));
        }
        if (wide) {
            store_wide(it, result, mask);
            return;
        }
        for (int l = 0; l < LANES; ++l) a[l] = static_cast<u32>(result[l]);
        store(it, a, mask);
    }

    void to_float(const Instruction& it, u32 mask) {
        Values result;
        u64 wide[LANES];
        Values narrow;
        const bool is_wide = it.modifiers & (M_U64 | M_S64);
        if (is_wide) fetch_wide(it.sources[0], wide);
        else fetch(it.sources[0], narrow);
        const Rounding rounding(it.modifiers);
        for (int l = 0; l < LANES; ++l) {
            volatile float value;
            if (is_wide) {
                if (it.modifiers & M_U64) value = static_cast<float>(wide[l]);
                else value = static_cast<float>(static_cast<i64>(wide[l]));
            } else {
                u32 bits = narrow[l];
                if (it.modifiers & (M_U8 | M_S8)) bits = bits >> (8 * it.sources[0].part) & 255u;
                if (it.modifiers & (M_U16 | M_S16)) bits = bits >> (16 * it.sources[0].part) & 65535u;
                i64 number = it.modifiers & M_U32 ? static_cast<i64>(bits) : static_cast<i64>(static_cast<i32>(bits));
                if (it.modifiers & M_S8) number = static_cast<std::int8_t>(bits);
                if (it.modifiers & M_S16) number = static_cast<std::int16_t>(bits);
                volatile i64 kept = number;
                value = static_cast<float>(kept);
            }
            result[l] = as_bits(value);
        }
        store(it, result, mask);
    }

    void halves(const Instruction& it, u32 mask) {
        Values a, b;
        if (it.opcode == O_F2FP) {
            fetch_float(it.sources[0], a);
            fetch_float(it.sources[1], b);
            for (int l = 0; l < LANES; ++l) a[l] = to_half(as_float(a[l])) << 16 | to_half(as_float(b[l]));
        } else {  // HADD2.F32: half to float
            raw(it.sources[1], a);
            for (u32& each : a) {
                const float value = from_half(it.sources[1].part ? each >> 16 : each & 0xffffu);
                each = as_bits(it.sources[1].negative ? -value : value);
            }
        }
        store(it, a, mask);
    }
};
