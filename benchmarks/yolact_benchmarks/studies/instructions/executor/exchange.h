// What the lanes of a warp tell each other, and registers that are none of theirs.
#pragma once

#include "floats.h"

class Exchange : public Floats {
  protected:
    using Floats::Floats;

    void special_register(const Instruction& it, u32 mask) {
        Values result;
        for (int l = 0; l < LANES; ++l) {
            const u32 thread = warp_->first_thread + static_cast<u32>(l), lower = (1u << l) - 1;
            const u32 *block = launch_.block;
            switch (it.sources[0].reg) {
                case SR_TID_X: result[l] = thread % block[0]; break;
                case SR_TID_Y: result[l] = thread / block[0] % block[1]; break;
                case SR_TID_Z: result[l] = thread / (block[0] * block[1]); break;
                case SR_CTAID_X: case SR_CTAID_Y: case SR_CTAID_Z:
                    result[l] = index_[it.sources[0].reg - SR_CTAID_X]; break;
                case SR_LANEID: result[l] = static_cast<u32>(l); break;
                case SR_EQMASK: result[l] = 1u << l; break;
                case SR_LTMASK: result[l] = lower; break;
                case SR_LEMASK: result[l] = lower << 1 | 1u; break;
                case SR_GTMASK: result[l] = ~(lower << 1 | 1u); break;
                case SR_GEMASK: result[l] = ~lower; break;
                case SR_CgaCtaId: case SRZ: result[l] = 0; break;
                default: fail("a special register that is not known");
            }
        }
        store(it, result, mask);
        if (it.opcode == O_CS2R && !(it.modifiers & M_32)) store(it, result, mask, 1);
    }

    void vote(const Instruction& it, u32 mask) {
        const u32 voters = predicate(it.sources[0]) & mask;
        Values ballot;
        for (u32& each : ballot) each = voters;
        const bool all = it.modifiers & M_ALL;
        if (it.dest.kind) store(it, ballot, mask);
        set_predicate(it, 0, (all ? voters == mask : voters != 0) ? ALL : 0, mask);
    }

    void reduce(const Instruction& it, u32 mask) {
        Values value;
        fetch(it.sources[0], value);
        bool first = true;
        u32 result = 0;
        for (int l = 0; l < LANES; ++l) {
            if (!(mask >> l & 1u)) continue;
            result = first ? value[l] : combined(it.modifiers, result, value[l]);
            first = false;
        }
        for (u32& each : value) each = result;
        store(it, value, mask);
    }

    u32 combined(u64 modifiers, u32 a, u32 b) {
        const bool is_signed = modifiers & M_S32;
        const bool less = is_signed ? static_cast<i32>(a) < static_cast<i32>(b) : a < b;
        if (modifiers & (M_ADD | M_SUM)) return a + b;
        if (modifiers & M_OR) return a | b;
        if (modifiers & M_AND) return a & b;
        if (modifiers & M_XOR) return a ^ b;
        if (modifiers & M_MIN) return less ? a : b;
        if (modifiers & M_MAX) return less ? b : a;
        if (modifiers & M_EXCH) return b;
        fail("an atomic operation that is not known");
    }

    void shuffle(const Instruction& it, u32 mask) {
        Values a, b, c, result;
        fetch(it.sources[0], a);
        fetch(it.sources[1], b);
        fetch(it.sources[2], c);
        u32 valid = 0;
        for (u32 l = 0; l < LANES; ++l) {
            const u32 by = b[l] & 31u, clamp = c[l] & 31u, segment = c[l] >> 8 & 31u;
            const u32 last = (l & segment) | (clamp & ~segment), first = l & segment;
            u32 from = 0;
            bool inside = false;
            if (it.modifiers & M_UP) from = l - by, inside = static_cast<i32>(l) - static_cast<i32>(by) >= static_cast<i32>(last);
            if (it.modifiers & M_DOWN) from = l + by, inside = from <= last;
            if (it.modifiers & M_BFLY) from = l ^ by, inside = from <= last;
            if (it.modifiers & M_IDX) from = first | (by & ~segment), inside = from <= last;
            result[l] = a[inside ? from : l];
            valid |= static_cast<u32>(inside) << l;
        }
        store(it, result, mask);
        set_predicate(it, 0, valid, mask);
    }

    void predicates_to_register(const Instruction& it, u32 mask) {
        Values old, which, result;
        fetch(it.sources[1], old);
        fetch(it.sources[2], which);
        for (int l = 0; l < LANES; ++l) {
            u32 all = 0;
            for (int p = 0; p < 7; ++p) all |= (warp_->predicates[p] >> l & 1u) << p;
            result[l] = (all & which[l]) | (old[l] & ~which[l]);
        }
        store(it, result, mask);
    }

    void register_to_predicates(const Instruction& it, u32 mask) {
        Values value, which;
        fetch(it.sources[1], value);
        fetch(it.sources[2], which);
        for (int l = 0; l < LANES; ++l) {
            if (!(mask >> l & 1u)) continue;
            for (int p = 0; p < 7; ++p) {
                if (!(which[l] >> p & 1u)) continue;
                const u32 bit = value[l] >> (8 * it.sources[1].part + p) & 1u;
                warp_->predicates[p] = (warp_->predicates[p] & ~(1u << l)) | bit << l;
            }
        }
    }

    void barrier_registers(const Instruction& it, u32 mask) {
        Values value;
        if (it.dest.kind == K_BARRIER) {
            if (it.sources[0].kind != K_BARRIER) fetch(it.sources[0], value);
            for (int l = 0; l < LANES; ++l) {
                if (!(mask >> l & 1u)) continue;
                u32& from = warp_->barriers[l][it.sources[0].reg & (BARRIERS - 1)];
                const u32 moved = it.sources[0].kind == K_BARRIER ? from : value[l];
                if (it.modifiers & M_CLEAR) from = 0;
                warp_->barriers[l][it.dest.reg] = moved;
            }
            return;
        }
        for (int l = 0; l < LANES; ++l) {
            value[l] = warp_->barriers[l][it.sources[0].reg];
            if (it.modifiers & M_CLEAR && mask >> l & 1u) warp_->barriers[l][it.sources[0].reg] = 0;
        }
        store(it, value, mask);
    }

    void leave_barrier(u32 mask, i32 barrier) {
        const u32 participants = warp_->barriers[__builtin_ctz(mask)][barrier];
        for (int l = 0; l < LANES; ++l) {
            if (participants >> l & 1u) warp_->barriers[l][barrier] &= ~mask;
        }
    }
};
