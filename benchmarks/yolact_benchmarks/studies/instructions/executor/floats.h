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

// To the nearest, ties to even. Of a double, in which the sum of a half and a product of two is exact where it matters.
u32 to_half(double value) {
    const u32 sign = std::signbit(value) ? 0x8000 : 0;
    const double size = std::fabs(value);
    if (std::isnan(value)) return 0x7fff;
    if (size >= 65520.0) return sign | 0x7c00;
    int exponent;
    std::frexp(size, &exponent);
    // Of the last bit; zero has no exponent.
    const int scale = size < 0x1p-14 ? -24 : exponent - 11;
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

    // The smaller or larger of two numbers, whichever is one, with -0 below 0; which of two numbers of equal bits counts not.
    static u32 extreme(u32 a, u32 b, bool smaller, bool keep_nan, float x, float y, u32 nan) {
        if (std::isnan(x) || std::isnan(y)) {
            return keep_nan || (std::isnan(x) && std::isnan(y)) ? nan : std::isnan(x) ? b : a;
        }
        const bool less = x < y || (x == y && std::signbit(x));
        return less == smaller ? a : b;
    }

    // Of two, and FMNMX3 of three.
    void smaller_or_larger_float(const Instruction& it, u32 mask) {
        Values result, next;
        const int last = it.num_sources - 1;
        const u32 smaller = predicate(it.sources[last]);
        fetch_float(it.sources[0], result);
        for (int i = 1; i < last; ++i) {
            fetch_float(it.sources[i], next);
            for (int l = 0; l < LANES; ++l) {
                result[l] = extreme(result[l], next[l], smaller >> l & 1u, it.modifiers & M_NAN, as_float(result[l]),
                                    as_float(next[l]), 0x7fffffffu);
            }
        }
        store(it, result, mask);
    }

    // A register's halves as the operand names them.
    void fetch_halves(const Operand& operand, Values (&out)[2]) {
        Values both;
        raw(operand, both);
        for (u32 half = 0; half < 2; ++half) {
            const u32 part = operand.part == 2 ? half : static_cast<u32>(operand.part);
            for (int l = 0; l < LANES; ++l) {
                u32 bits = both[l] >> (16 * part) & 0xffffu;
                if (operand.absolute) bits &= 0x7fffu;
                out[half][l] = operand.negative ? bits ^ 0x8000u : bits;
            }
        }
    }

    void store_halves(const Instruction& it, const Values (&halves)[2], u32 mask) {
        Values both;
        for (int l = 0; l < LANES; ++l) both[l] = halves[1][l] << 16 | halves[0][l];
        store(it, both, mask);
    }

    void smaller_or_larger_half(const Instruction& it, u32 mask) {
        Values result[2], next[2];
        const int last = it.num_sources - 1;
        const u32 smaller = predicate(it.sources[last]);
        fetch_halves(it.sources[0], result);
        for (int i = 1; i < last; ++i) {
            fetch_halves(it.sources[i], next);
            for (int half = 0; half < 2; ++half) {
                for (int l = 0; l < LANES; ++l) {
                    u32& best = result[half][l];
                    const u32 other = next[half][l];
                    best = extreme(best, other, smaller >> l & 1u, false, from_half(best), from_half(other), 0x7fffu);
                }
            }
        }
        store_halves(it, result, mask);
    }

    void multiply_add_halves(const Instruction& it, u32 mask) {
        Values a[2], b[2], c[2];
        fetch_halves(it.sources[0], a);
        fetch_halves(it.sources[1], b);
        fetch_halves(it.sources[2], c);
        for (int half = 0; half < 2; ++half) {
            for (int l = 0; l < LANES; ++l) {
                const double product = static_cast<double>(from_half(a[half][l])) * from_half(b[half][l]);
                a[half][l] = to_half(product + from_half(c[half][l]));
            }
        }
        store_halves(it, a, mask);
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
        if (it.opcode == O_HADD2) {  // HADD2.F32: a sum of two halves as a float; -0 and a half are the half
            Values first[2], second[2];
            fetch_halves(it.sources[0], first);
            fetch_halves(it.sources[1], second);
            for (int l = 0; l < LANES; ++l) a[l] = as_bits(from_half(first[0][l]) + from_half(second[0][l]));
        } else {
            fetch_float(it.sources[0], a);
            for (u32& each : a) each = to_half(as_float(each));
            if (it.opcode == O_F2FP) {
                fetch_float(it.sources[1], b);
                for (int l = 0; l < LANES; ++l) a[l] = a[l] << 16 | to_half(as_float(b[l]));
            }
        }
        store(it, a, mask);
    }
};
