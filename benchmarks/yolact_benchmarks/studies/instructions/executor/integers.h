// Integers, bits and predicates.
#pragma once

#include "lanes.h"

class Integers : public Lanes {
  protected:
    using Lanes::Lanes;

    bool compare(u64 modifiers, bool less, bool equal, bool unordered) {
        if (modifiers & M_NAN) return unordered;
        if (modifiers & M_NUM) return !unordered;
        if (unordered) return modifiers & (M_LTU | M_LEU | M_GTU | M_GEU | M_NEU | M_EQU);
        if (modifiers & (M_LT | M_LTU)) return less;
        if (modifiers & (M_LE | M_LEU)) return less || equal;
        if (modifiers & (M_GT | M_GTU)) return !less && !equal;
        if (modifiers & (M_GE | M_GEU)) return !less;
        if (modifiers & (M_EQ | M_EQU)) return equal;
        if (modifiers & (M_NE | M_NEU)) return !equal;
        fail("a comparison that is not known");
    }

    u32 combine(u64 modifiers, u32 found, u32 with) {
        if (modifiers & M_AND) return found & with;
        if (modifiers & M_OR) return found | with;
        if (modifiers & M_XOR) return found ^ with;
        fail("a combination of predicates that is not known");
    }

    void compare_integers(const Instruction& it, u32 mask) {
        Values a, b;
        fetch(it.sources[0], a);
        fetch(it.sources[1], b);
        const bool is_unsigned = it.modifiers & M_U32, extends = it.modifiers & M_EX;
        const u32 low = extends ? predicate(it.sources[3]) : 0;
        u32 found = 0;
        for (int l = 0; l < LANES; ++l) {
            const bool less = is_unsigned ? a[l] < b[l] : static_cast<i32>(a[l]) < static_cast<i32>(b[l]);
            bool result = compare(it.modifiers, less, a[l] == b[l], false);
            // Of 64 bits: where the upper halves are equal the lower ones decide.
            if (extends && a[l] == b[l]) result = low >> l & 1u;
            found |= static_cast<u32>(result) << l;
        }
        const u32 with = predicate(it.sources[2]);
        set_predicate(it, 0, combine(it.modifiers, found, with), mask);
        set_predicate(it, 1, combine(it.modifiers, ~found, with), mask);
    }

    void add_three(const Instruction& it, u32 mask) {
        u64 sum[LANES] = {};
        for (int i = 0; i < 3; ++i) {
            Values value;
            raw(it.sources[i], value);
            const bool negative = it.sources[i].negative, inverted = it.sources[i].inverted;
            // -x is ~x + 1 with its carry, which subtractions of 64 bits need.
            for (int l = 0; l < LANES; ++l) {
                sum[l] += negative ? static_cast<u64>(static_cast<u32>(~value[l])) + 1 : inverted ? ~value[l] : value[l];
            }
        }
        if (it.modifiers & M_X) {
            for (int i = 3; i < it.num_sources; ++i) {
                const u32 carry = predicate(it.sources[i]);
                for (int l = 0; l < LANES; ++l) sum[l] += carry >> l & 1u;
            }
        }
        store_sum(it, sum, mask);
    }

    void store_sum(const Instruction& it, const u64 (&sum)[LANES], u32 mask) {
        Values result;
        u32 carries[2] = {0, 0};
        for (int l = 0; l < LANES; ++l) {
            result[l] = static_cast<u32>(sum[l]);
            carries[0] |= static_cast<u32>(sum[l] >> 32 >= 1) << l;
            carries[1] |= static_cast<u32>(sum[l] >> 32 >= 2) << l;
        }
        store(it, result, mask);
        set_predicate(it, 0, carries[0], mask);
        set_predicate(it, 1, carries[1], mask);
    }

    void multiply_add(const Instruction& it, u32 mask) {
        Values a, b;
        fetch(it.sources[0], a);
        fetch(it.sources[1], b);
        if (!(it.modifiers & (M_WIDE | M_HI))) {
            Values c;
            fetch(it.sources[2], c);
            const u32 carry = it.modifiers & M_X ? predicate(it.sources[3]) : 0;
            u64 sum[LANES];
            for (int l = 0; l < LANES; ++l) sum[l] = static_cast<u64>(a[l] * b[l]) + c[l] + (carry >> l & 1u);
            store_sum(it, sum, mask);
            return;
        }
        u64 c[LANES], sum[LANES];
        fetch_wide(it.sources[2], c);
        u32 carries = 0;
        for (int l = 0; l < LANES; ++l) {
            const u64 product = it.modifiers & M_U32
                                    ? static_cast<u64>(a[l]) * b[l]
                                    : static_cast<u64>(static_cast<i64>(static_cast<i32>(a[l])) * static_cast<i32>(b[l]));
            sum[l] = product + c[l];
            carries |= static_cast<u32>(sum[l] < product) << l;
        }
        set_predicate(it, 0, carries, mask);
        if (it.modifiers & M_WIDE) {
            store_wide(it, sum, mask);
            return;
        }
        Values high;
        for (int l = 0; l < LANES; ++l) high[l] = static_cast<u32>(sum[l] >> 32);
        store(it, high, mask);
    }

    // (a << shift) + b, or of its upper half.
    void shift_add(const Instruction& it, u32 mask) {
        Values a, b, c = {}, shift;
        fetch(it.sources[0], a);
        const bool high = it.modifiers & M_HI, extends = it.modifiers & M_SX32;
        const int at = high && !extends ? 3 : 2;
        fetch(it.sources[at], shift);
        if (high && !extends) fetch(it.sources[2], c);
        if (extends) {
            for (int l = 0; l < LANES; ++l) c[l] = static_cast<i32>(a[l]) < 0 ? ALL : 0;
        }
        raw(it.sources[1], b);
        const u32 carry = it.modifiers & M_X ? predicate(it.sources[at + 1]) : 0;
        u64 sum[LANES];
        for (int l = 0; l < LANES; ++l) {
            const u64 wide = (static_cast<u64>(c[l]) << 32 | a[l]) << (shift[l] & 31u);
            const u32 part = static_cast<u32>(high ? wide >> 32 : wide);
            const bool negative = it.sources[1].negative, inverted = it.sources[1].inverted;
            const u64 other = negative ? static_cast<u64>(static_cast<u32>(~b[l])) + 1 : inverted ? static_cast<u32>(~b[l]) : b[l];
            sum[l] = part + other + (carry >> l & 1u);
        }
        store_sum(it, sum, mask);
    }

    void shift(const Instruction& it, u32 mask) {
        Values a, b, c, result;
        fetch(it.sources[0], a);
        fetch(it.sources[1], b);
        fetch(it.sources[2], c);
        const bool is_signed = it.modifiers & (M_S32 | M_S64), wide = it.modifiers & (M_U64 | M_S64);
        for (int l = 0; l < LANES; ++l) {
            const u64 both = static_cast<u64>(c[l]) << 32 | a[l];
            u32 by = it.modifiers & M_W ? b[l] & (wide ? 63u : 31u) : b[l];
            by = std::min(by, wide ? 64u : 32u);
            u64 value;
            if (it.modifiers & M_L) {
                value = by == 64 ? 0 : both << by;
            } else if (is_signed) {
                value = static_cast<u64>(static_cast<i64>(both) >> std::min(by, 63u));
            } else {
                value = by == 64 ? 0 : both >> by;
            }
            result[l] = static_cast<u32>(it.modifiers & M_HI ? value >> 32 : value);
        }
        store(it, result, mask);
    }

    void logic(const Instruction& it, u32 mask) {
        Values a, b, c, result;
        fetch(it.sources[0], a);
        fetch(it.sources[1], b);
        fetch(it.sources[2], c);
        const u32 table = it.sources[3].value;
        u32 set = 0;
        for (int l = 0; l < LANES; ++l) {
            u32 value = 0;
            for (u32 i = 0; i < 8; ++i) {
                if (!(table >> i & 1u)) continue;
                value |= (i & 4 ? a[l] : ~a[l]) & (i & 2 ? b[l] : ~b[l]) & (i & 1 ? c[l] : ~c[l]);
            }
            result[l] = value;
            set |= static_cast<u32>(value != 0) << l;
        }
        store(it, result, mask);
        set_predicate(it, 0, set | (it.num_sources > 4 ? predicate(it.sources[4]) : 0), mask);
    }

    void predicate_logic(const Instruction& it, u32 mask) {
        const u32 a = predicate(it.sources[0]), b = predicate(it.sources[1]), c = predicate(it.sources[2]);
        for (int which = 0; which < 2; ++which) {
            u32 value = 0;
            for (u32 i = 0; i < 8; ++i) {
                if (it.sources[3 + which].value >> i & 1u) {
                    value |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
                }
            }
            set_predicate(it, which, value, mask);
        }
    }

    void permute(const Instruction& it, u32 mask) {
        Values a, selector, c, result;
        fetch(it.sources[0], a);
        fetch(it.sources[1], selector);
        fetch(it.sources[2], c);
        for (int l = 0; l < LANES; ++l) {
            const u64 both = static_cast<u64>(c[l]) << 32 | a[l];
            result[l] = 0;
            for (int i = 0; i < 4; ++i) {
                const u32 which = selector[l] >> (4 * i) & 15u;
                u32 byte = static_cast<u32>(both >> (8 * (which & 7u))) & 255u;
                if (which & 8u) byte = byte & 128u ? 255u : 0;
                result[l] |= byte << (8 * i);
            }
        }
        store(it, result, mask);
    }

    void smaller_or_larger(const Instruction& it, u32 mask) {
        Values a, b, result;
        fetch(it.sources[0], a);
        fetch(it.sources[1], b);
        int at = 2;
        if (it.opcode == O_VIADDMNMX) {
            for (int l = 0; l < LANES; ++l) a[l] += b[l];
            fetch(it.sources[2], b);
            at = 3;
        }
        const u32 smaller = predicate(it.sources[at]);
        for (int l = 0; l < LANES; ++l) {
            const bool less = it.modifiers & M_U32 ? a[l] < b[l] : static_cast<i32>(a[l]) < static_cast<i32>(b[l]);
            result[l] = less == static_cast<bool>(smaller >> l & 1u) ? a[l] : b[l];
        }
        store(it, result, mask);
    }

    void select(const Instruction& it, u32 mask) {
        Values a, b;
        if (it.opcode == O_FSEL) {
            fetch_float(it.sources[0], a);
            fetch_float(it.sources[1], b);
        } else {
            fetch(it.sources[0], a);
            fetch(it.sources[1], b);
        }
        const u32 first = predicate(it.sources[2]);
        for (int l = 0; l < LANES; ++l) a[l] = first >> l & 1u ? a[l] : b[l];
        store(it, a, mask);
    }

    void bits(const Instruction& it, u32 mask) {
        Values a;
        fetch(it.sources[0], a);
        for (u32& each : a) {
            if (it.opcode == O_POPC) each = static_cast<u32>(__builtin_popcount(each));
            if (it.opcode == O_IABS) each = static_cast<i32>(each) < 0 ? 0u - each : each;
            if (it.opcode == O_BREV) {
                u32 turned = 0;
                for (int i = 0; i < 32; ++i) turned |= (each >> i & 1u) << (31 - i);
                each = turned;
            }
            if (it.opcode == O_FLO) {
                if (!(it.modifiers & M_U32) && static_cast<i32>(each) < 0) each = ~each;
                if (each == 0) each = ALL;
                else each = static_cast<u32>(it.modifiers & M_SH ? __builtin_clz(each) : 31 - __builtin_clz(each));
            }
        }
        store(it, a, mask);
    }
};
