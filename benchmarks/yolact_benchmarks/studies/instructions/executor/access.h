// Loads, stores and atomic operations.
#pragma once

#include "exchange.h"

class Access : public Exchange {
  protected:
    Access(const Launch& launch, Counters& counters)
        : Exchange(launch), counters_(counters), shared_(static_cast<std::size_t>(launch.shared_bytes)) {}

    Counters& counters_;
    std::vector<unsigned char> shared_;
    u64 first_ = 0, end_ = 0;  // the range of the latest access

    // Bytes from address to address of each lane.
    void addresses(const Operand& operand, u64 (&out)[LANES]) {
        const u64 uniform = operand.ureg == URZ ? 0
                            : operand.uwide ? static_cast<u64>(warp_->uniform[operand.ureg + 1]) << 32 | warp_->uniform[operand.ureg]
                                            : warp_->uniform[operand.ureg];
        const i64 offset = static_cast<i32>(operand.value);
        for (int l = 0; l < LANES; ++l) {
            u64 base = warp_->registers[operand.reg][l];
            if (operand.wide && operand.reg != RZ) base |= static_cast<u64>(warp_->registers[operand.reg + 1][l]) << 32;
            out[l] = base * static_cast<u64>(operand.scale) + uniform + static_cast<u64>(offset);
        }
    }

    void require_global(u64 address, u64 size) {
        if (address >= first_ && address + size <= end_) return;
        for (i32 i = 0; i < launch_.num_ranges; ++i) {
            first_ = launch_.ranges[2 * i], end_ = launch_.ranges[2 * i + 1];
            if (address >= first_ && address + size <= end_) return;
        }
        fail("an address outside of global memory");
    }

    unsigned char* place(bool shared, u64 address, int size) {
        if (!shared) {
            if (address % static_cast<u64>(size)) fail("an address that is not aligned");
            require_global(address, static_cast<u64>(size));
            return reinterpret_cast<unsigned char*>(address);
        }
        const u32 at = static_cast<u32>(address);
        if (at % static_cast<u32>(size) || static_cast<u64>(at) + size > shared_.size()) fail("outside of shared memory");
        return shared_.data() + at;
    }

    static int size_of(u64 modifiers) {
        if (modifiers & (M_U8 | M_S8)) return 1;
        if (modifiers & (M_U16 | M_S16)) return 2;
        if (modifiers & (M_64 | M_U64 | M_S64)) return 8;
        return modifiers & M_128 ? 16 : 4;
    }

    void count_memory(bool shared, const u64 (&address)[LANES], u32 mask, int size) {
        if (mask == 0) return;
        if (shared) {
            ++counters_.shared_requests;
            return;
        }
        ++counters_.global_requests;
        u64 seen[LANES];
        int sectors = 0;
        for (int l = 0; l < LANES; ++l) {
            if (!(mask >> l & 1u)) continue;
            counters_.global_bytes += static_cast<u64>(size);
            const u64 sector = address[l] / 32;
            bool is_new = true;
            for (int i = sectors - 1; i >= 0 && is_new; --i) is_new = seen[i] != sector;
            if (is_new) seen[sectors++] = sector;
        }
        counters_.global_sectors += static_cast<u64>(sectors);
    }

    void load(const Instruction& it, u32 mask, bool shared) {
        u64 address[LANES];
        addresses(it.sources[0], address);
        const int size = size_of(it.modifiers);
        count_memory(shared, address, mask, size);
        Values words[4] = {};
        for (int l = 0; l < LANES; ++l) {
            if (!(mask >> l & 1u)) continue;
            const unsigned char* from = place(shared, address[l], size);
            u32 read[4] = {};
            std::memcpy(read, from, static_cast<std::size_t>(size));
            if (it.modifiers & M_S8) read[0] = static_cast<u32>(static_cast<i32>(static_cast<std::int8_t>(read[0])));
            if (it.modifiers & M_S16) read[0] = static_cast<u32>(static_cast<i32>(static_cast<std::int16_t>(read[0])));
            for (int w = 0; w < 4; ++w) words[w][l] = read[w];
        }
        for (int w = 0; w < std::max(size / 4, 1); ++w) store(it, words[w], mask, w);
    }

    void write(const Instruction& it, u32 mask, bool shared) {
        u64 address[LANES];
        addresses(it.sources[0], address);
        const int size = size_of(it.modifiers);
        count_memory(shared, address, mask, size);
        Values words[4];
        for (int w = 0; w < std::max(size / 4, 1); ++w) raw(it.sources[1], words[w], w);
        for (int l = 0; l < LANES; ++l) {
            if (!(mask >> l & 1u)) continue;
            u32 written[4];
            for (int w = 0; w < std::max(size / 4, 1); ++w) written[w] = words[w][l];
            std::memcpy(place(shared, address[l], size), written, static_cast<std::size_t>(size));
        }
    }

    void atomic(const Instruction& it, u32 mask, bool shared) {
        u64 address[LANES];
        addresses(it.sources[0], address);
        Values value = {}, swapped = {}, before = {};
        if (it.num_sources > 1) fetch(it.sources[1], value);
        if (it.modifiers & M_CAS) fetch(it.sources[2], swapped);
        if (size_of(it.modifiers) == 8) fail("an atomic operation of 64 bits");
        if (mask) ++counters_.atomics;
        for (int l = 0; l < LANES; ++l) {
            if (!(mask >> l & 1u)) continue;
            unsigned char* at = place(shared, address[l], 4);
            u32 old, now;
            std::memcpy(&old, at, 4);
            if (it.modifiers & M_POPC) now = old + 1;
            else if (it.modifiers & M_CAS) now = old == value[l] ? swapped[l] : old;
            else now = combined(it.modifiers, old, value[l]);
            before[l] = old;
            std::memcpy(at, &now, 4);
        }
        if (it.dest.kind) store(it, before, mask);
    }
};
