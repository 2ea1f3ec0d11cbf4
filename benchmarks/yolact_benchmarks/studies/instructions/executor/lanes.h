// One warp's registers, and how an instruction's operands are read from and written to them.
#pragma once

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "names.h"


using u32 = std::uint32_t;
using i32 = std::int32_t;
using u64 = std::uint64_t;
using i64 = std::int64_t;
constexpr int LANES = 32, RZ = 255, URZ = 63, PT = 7, BANKS = 8, BARRIERS = 16;
constexpr u32 ALL = 0xffffffffu;

struct Operand {
    i32 kind, reg, negative, absolute, inverted, part;
    u32 value, bank;
    i32 scale, wide, ureg, uwide;  // of addresses
};

struct Instruction {
    u64 modifiers;
    i32 opcode, target, num_predicates, num_sources;
    Operand guard, dest, predicates[2], sources[7];
};

struct Counters {
    u64 warp_instructions, most_of_a_warp, most_of_a_block, warps;
    u64 global_requests, global_sectors, global_bytes, shared_requests, atomics;
};

struct Launch {
    const Instruction* code;
    i32 num_instructions, shared_bytes;
    u32 grid[3], block[3];
    const unsigned char* banks[BANKS];
    i32 bank_bytes[BANKS];
    i32 num_ranges;
    const u64* ranges;  // first address, and the one after the last, of each piece of global memory
};

enum State { RUNS, AT_BSYNC, AT_WARPSYNC, AT_BARRIER };

struct Group {
    i32 pc;
    u32 mask;
    State state;
    i32 barrier;
    u32 awaited;
};

struct Warp {
    u32 registers[256][LANES];
    u32 uniform[64];
    u32 predicates[8], uniform_predicates[8];
    u32 barriers[LANES][BARRIERS];
    u32 live;
    u64 issued;
    std::vector<Group> groups;
    u32 first_thread;
};

using Values = u32[LANES];

float as_float(u32 bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

u32 as_bits(float value) {
    u32 bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

class Lanes {
  protected:
    explicit Lanes(const Launch& launch) : launch_(launch) {}

    const Launch& launch_;
    u32 index_[3] = {};  // of the block
    Warp* warp_ = nullptr;
    i32 pc_ = 0;

    [[noreturn]] void fail(const std::string& what) {
        char where[80];
        std::snprintf(where, sizeof where, " at /*%04x*/ of block (%u, %u, %u)", pc_ * 16, index_[0], index_[1], index_[2]);
        throw std::runtime_error(what + where);
    }

    u32 predicate(const Operand& operand) const {
        const u32* of = operand.kind == K_UNIFORM_PREDICATE ? warp_->uniform_predicates : warp_->predicates;
        const u32 value = of[operand.reg];
        return operand.inverted ? ~value : value;
    }

    void set_predicate(const Instruction& it, int i, u32 value, u32 mask) {
        if (i >= it.num_predicates || it.predicates[i].reg == PT) return;
        if (it.predicates[i].kind == K_UNIFORM_PREDICATE) {
            const bool first = mask && value >> __builtin_ctz(mask) & 1u;
            warp_->uniform_predicates[it.predicates[i].reg] = first ? ALL : 0;
        } else {
            u32& target = warp_->predicates[it.predicates[i].reg];
            target = (target & ~mask) | (value & mask);
        }
    }

    // Bits as they are stored, without the operand's sign.
    void raw(const Operand& operand, Values& out, int word = 0) {
        switch (operand.kind) {
            case K_REGISTER: {
                const int reg = operand.reg == RZ ? RZ : operand.reg + word;
                std::memcpy(out, warp_->registers[reg], sizeof out);
                return;
            }
            case K_UNIFORM: {
                const u32 value = warp_->uniform[operand.reg == URZ ? URZ : operand.reg + word];
                for (u32& each : out) each = value;
                return;
            }
            case K_IMMEDIATE: {
                const u32 value = word == 0 ? operand.value : 0;
                for (u32& each : out) each = value;
                return;
            }
            case K_CONSTANT:
                constant(operand, out, word);
                return;
            default:
                fail("an operand that is no value");
        }
    }

    void constant(const Operand& operand, Values& out, int word) {
        if (operand.reg == RZ && operand.ureg == URZ) {
            const u32 value = constant_word(operand.bank, operand.value + 4 * word);
            for (u32& each : out) each = value;
            return;
        }
        const u32 uniform = operand.ureg == URZ ? 0 : warp_->uniform[operand.ureg];
        for (int l = 0; l < LANES; ++l) {
            const u32 at = warp_->registers[operand.reg][l] + uniform + operand.value + 4 * word;
            out[l] = at + 4 <= static_cast<u32>(launch_.bank_bytes[operand.bank]) ? constant_word(operand.bank, at) : 0;
        }
    }

    u32 constant_word(u32 bank, u32 offset) {
        if (bank >= BANKS || offset + 4 > static_cast<u32>(launch_.bank_bytes[bank])) fail("a constant outside of its bank");
        u32 value;
        std::memcpy(&value, launch_.banks[bank] + offset, 4);
        return value;
    }

    void fetch(const Operand& operand, Values& out) {
        raw(operand, out);
        if (operand.absolute) fail("the size of an integer");
        if (operand.negative) {
            for (u32& each : out) each = 0u - each;
        }
        if (operand.inverted) {
            for (u32& each : out) each = ~each;
        }
    }

    void fetch_float(const Operand& operand, Values& out) {
        raw(operand, out);
        if (operand.absolute) {
            for (u32& each : out) each &= 0x7fffffffu;
        }
        if (operand.negative) {
            for (u32& each : out) each ^= 0x80000000u;
        }
    }

    void fetch_wide(const Operand& operand, u64 (&out)[LANES]) {
        Values low, high;
        raw(operand, low);
        if (operand.kind == K_IMMEDIATE) {
            for (int l = 0; l < LANES; ++l) high[l] = static_cast<i32>(low[l]) < 0 ? ALL : 0;
        } else {
            raw(operand, high, 1);
        }
        for (int l = 0; l < LANES; ++l) {
            out[l] = static_cast<u64>(high[l]) << 32 | low[l];
            if (operand.negative) out[l] = 0 - out[l];
            if (operand.inverted) out[l] = ~out[l];
        }
    }

    void store(const Instruction& it, const Values& value, u32 mask, int word = 0) {
        if (it.dest.kind == K_UNIFORM) {
            if (it.dest.reg != URZ && mask) warp_->uniform[it.dest.reg + word] = value[__builtin_ctz(mask)];
            return;
        }
        if (it.dest.reg == RZ) return;
        u32* target = warp_->registers[it.dest.reg + word];
        if (mask == ALL) {
            std::memcpy(target, value, sizeof value);
            return;
        }
        for (int l = 0; l < LANES; ++l) {
            if (mask >> l & 1u) target[l] = value[l];
        }
    }

    void store_wide(const Instruction& it, const u64 (&value)[LANES], u32 mask) {
        Values low, high;
        for (int l = 0; l < LANES; ++l) low[l] = static_cast<u32>(value[l]), high[l] = static_cast<u32>(value[l] >> 32);
        store(it, low, mask);
        store(it, high, mask, 1);
    }
};
