// Executes the machine code of one kernel, warp by warp, and counts what it issues.
//
// The instructions come decoded from machine_code.py, whose tables make names.h: O_ are instructions, M_ what follows
// their names, K_ the kinds of operands. Lanes of a warp that take different branches become groups. Groups are united
// again where the code says so, and nowhere else: at BSYNC, WARPSYNC and barriers, as the hardware does it since Volta.
#include "access.h"

namespace {

class Block : public Access {
  public:
    Block(const Launch& launch, u64* counts, Counters& counters)
        : Access(launch, counters), counts_(counts) {}

    void run(u32 x, u32 y, u32 z) {
        index_[0] = x, index_[1] = y, index_[2] = z;
        std::fill(shared_.begin(), shared_.end(), 0xCD);
        start();
        for (bool more = true; more;) {
            more = false;
            for (Warp& warp : warps_) run_warp(warp);
            for (Warp& warp : warps_) more = more || !warp.groups.empty();
            if (more) reduce_at_barrier();
            for (Warp& warp : warps_) release_barrier(warp);
        }
        u64 total = 0;
        for (const Warp& warp : warps_) {
            total += warp.issued;
            counters_.most_of_a_warp = std::max(counters_.most_of_a_warp, warp.issued);
        }
        counters_.warps += warps_.size();
        counters_.warp_instructions += total;
        counters_.most_of_a_block = std::max(counters_.most_of_a_block, total);
    }

  private:
    u64* counts_;
    std::vector<Warp> warps_;
    u32 result_ = 0;  // of a barrier with a predicate

    void start() {
        const u32 threads = launch_.block[0] * launch_.block[1] * launch_.block[2];
        warps_.resize((threads + LANES - 1) / LANES);
        for (u32 i = 0; i < warps_.size(); ++i) {
            Warp& warp = warps_[i];
            std::memset(warp.registers, 0xCD, sizeof warp.registers);
            std::memset(warp.registers[RZ], 0, sizeof warp.registers[RZ]);
            std::memset(warp.uniform, 0, sizeof warp.uniform);
            std::memset(warp.predicates, 0, sizeof warp.predicates);
            std::memset(warp.uniform_predicates, 0, sizeof warp.uniform_predicates);
            warp.predicates[PT] = warp.uniform_predicates[PT] = ALL;
            std::memset(warp.barriers, 0, sizeof warp.barriers);
            warp.first_thread = i * LANES;
            const u32 here = std::min<u32>(threads - warp.first_thread, LANES);
            warp.live = here == LANES ? ALL : (1u << here) - 1;
            warp.issued = 0;
            warp.groups.assign(1, Group{0, warp.live, RUNS, 0, 0});
        }
    }

    void run_warp(Warp& warp) {
        warp_ = &warp;
        for (;;) {
            int next = -1;
            for (int i = 0; i < static_cast<int>(warp.groups.size()); ++i) {
                if (warp.groups[i].state != RUNS) continue;
                if (next < 0 || warp.groups[i].pc < warp.groups[next].pc) next = i;
            }
            if (next >= 0) {
                Group group = warp.groups[next];
                warp.groups.erase(warp.groups.begin() + next);
                run_group(group);
            } else if (!unite()) {
                for (const Group& group : warp.groups) {
                    pc_ = group.pc;
                    if (group.state != AT_BARRIER) fail("lanes wait for others that never come");
                }
                return;
            }
        }
    }

    // Groups that wait for nobody any more go on, those at one place as one.
    bool unite() {
        std::vector<Group>& groups = warp_->groups;
        for (const Group& first : groups) {
            if (first.state != AT_BSYNC && first.state != AT_WARPSYNC) continue;
            const u32 awaited = awaited_by(first) & warp_->live;
            u32 arrived = 0;
            for (const Group& group : groups) {
                if (belongs(group, first)) arrived |= group.mask;
            }
            if (awaited & ~arrived) continue;
            const Group key = first;
            for (Group& group : groups) {
                if (belongs(group, key) && (group.mask & (awaited | key.mask))) group.state = RUNS, ++group.pc;
            }
            merge();
            return true;
        }
        return false;
    }

    u32 awaited_by(const Group& group) const {
        return group.state == AT_BSYNC ? warp_->barriers[__builtin_ctz(group.mask)][group.barrier] : group.awaited;
    }

    bool belongs(const Group& group, const Group& first) const {
        return group.state == first.state && (group.state != AT_BSYNC || group.barrier == first.barrier) &&
               awaited_by(group) == awaited_by(first);
    }

    void merge() {
        std::vector<Group> merged;
        for (const Group& group : warp_->groups) {
            bool found = false;
            for (Group& other : merged) {
                if (group.state == RUNS && other.state == RUNS && other.pc == group.pc) {
                    other.mask |= group.mask;
                    found = true;
                    break;
                }
            }
            if (!found) merged.push_back(group);
        }
        warp_->groups = merged;
    }

    // What the threads that arrived at a barrier with a predicate said together, for B2R.
    void reduce_at_barrier() {
        u32 arrived = 0, said = 0;
        u64 modifiers = 0;
        for (const Warp& warp : warps_) {
            for (const Group& group : warp.groups) {
                if (!(launch_.code[group.pc].modifiers & M_RED)) continue;
                modifiers = launch_.code[group.pc].modifiers;
                arrived += static_cast<u32>(__builtin_popcount(group.mask));
                said += static_cast<u32>(__builtin_popcount(group.awaited));
            }
        }
        if (arrived) result_ = modifiers & M_POPC ? said : modifiers & M_OR ? said != 0 : said == arrived;
    }

    void read_result(const Instruction& it, u32 mask) {
        Values result;
        for (u32& each : result) each = result_;
        store(it, result, mask);
        set_predicate(it, 0, result_ ? ALL : 0, mask);
    }

    // All live threads of the block are there, or the block fails when nothing else can run.
    void release_barrier(Warp& warp) {
        if (warp.groups.empty()) return;
        warp_ = &warp;
        for (Group& group : warp.groups) {
            if (group.state != AT_BARRIER) continue;
            group.state = RUNS;
            ++group.pc;
        }
        merge();
    }

    void branch(Group& group, u32 taken, i32 target) {
        if (taken == group.mask) {
            group.pc = target;
        } else if (taken == 0) {
            ++group.pc;
        } else {
            warp_->groups.push_back(Group{target, taken, RUNS, 0, 0});
            group.mask &= ~taken;
            ++group.pc;
        }
    }

    void run_group(Group group) {
        for (;;) {
            if (group.pc < 0 || group.pc >= launch_.num_instructions) fail("a jump out of the kernel");
            pc_ = group.pc;
            const Instruction& it = launch_.code[group.pc];
            ++counts_[group.pc];
            ++warp_->issued;
            const u32 mask = group.mask & predicate(it.guard);
            switch (it.opcode) {
                case O_BRA:
                case O_CALL: {
                    u32 taken = mask;
                    if (it.modifiers & M_DIV) {
                        Values lanes;
                        fetch(it.sources[0], lanes);
                        taken = group.mask != (lanes[0] & warp_->live) ? mask : 0;
                    } else if (it.num_sources) {
                        taken &= predicate(it.sources[0]);
                    }
                    const u32 before = group.mask;
                    branch(group, taken, it.target);
                    if (group.mask != before) {
                        warp_->groups.push_back(group);
                        return;
                    }
                    continue;
                }
                case O_BRX:
                case O_RET: {
                    if (mask != group.mask) fail("a jump by some lanes only");
                    Values offset;
                    fetch(it.sources[0], offset);
                    const i32 base = it.opcode == O_BRX ? (pc_ + 1) * 16 + static_cast<i32>(it.sources[1].value) : 0;
                    while (group.mask) {
                        const u32 where = offset[__builtin_ctz(group.mask)];
                        u32 together = 0;
                        for (int l = 0; l < LANES; ++l) {
                            if (group.mask >> l & 1u && offset[l] == where) together |= 1u << l;
                        }
                        warp_->groups.push_back(
                            Group{(base + static_cast<i32>(where)) / 16, together, RUNS, 0, 0});
                        group.mask &= ~together;
                    }
                    return;
                }
                case O_EXIT: {
                    const u32 leaving = it.num_sources ? mask & predicate(it.sources[0]) : mask;
                    warp_->live &= ~leaving;
                    group.mask &= ~leaving;
                    ++group.pc;
                    if (group.mask) warp_->groups.push_back(group);
                    return;
                }
                case O_BSSY:
                    for (int l = 0; l < LANES; ++l) {
                        if (mask >> l & 1u) warp_->barriers[l][it.dest.reg] = mask;
                    }
                    break;
                case O_BREAK: {
                    const u32 leaving = it.num_sources > 1 ? mask & predicate(it.sources[0]) : mask;
                    if (leaving) leave_barrier(leaving, it.sources[it.num_sources - 1].reg);
                    break;
                }
                case O_BSYNC:
                case O_WARPSYNC: {
                    if (mask == 0) break;
                    if (mask != group.mask) fail("some lanes only wait");
                    group.state = it.opcode == O_BSYNC ? AT_BSYNC : AT_WARPSYNC;
                    group.barrier = it.opcode == O_BSYNC ? it.sources[0].reg : 0;
                    group.awaited = ALL;
                    if (it.opcode == O_WARPSYNC && !(it.modifiers & M_ALL)) {
                        Values awaited;
                        fetch(it.sources[0], awaited);
                        group.awaited = awaited[__builtin_ctz(mask)];
                    }
                    warp_->groups.push_back(group);
                    return;
                }
                case O_BAR:
                    group.state = AT_BARRIER;
                    group.awaited = it.modifiers & M_RED ? predicate(it.sources[1]) & group.mask : 0;
                    warp_->groups.push_back(group);
                    return;
                default:
                    if (mask || it.guard.reg == PT) execute(it, mask);
            }
            ++group.pc;
        }
    }

    void execute(const Instruction& it, u32 mask) {
        Values value;
        switch (it.opcode) {
            case O_NOP: case O_YIELD: case O_ENDCOLLECTIVE: case O_MEMBAR: case O_ERRBAR: case O_CCTL: case O_CGAERRBAR: case O_DEPBAR: return;
            case O_MOV: case O_R2UR:
                fetch(it.sources[0], value);
                return store(it, value, mask);
            case O_LDC:
                for (int w = 0; w < (it.modifiers & M_128 ? 4 : it.modifiers & M_64 ? 2 : 1); ++w) {
                    raw(it.sources[0], value, w);
                    store(it, value, mask, w);
                }
                return;
            case O_S2R: case O_CS2R: return special_register(it, mask);
            case O_IADD3: case O_VIADD: return add_three(it, mask);
            case O_IMAD: return multiply_add(it, mask);
            case O_LEA: return shift_add(it, mask);
            case O_SHF: return shift(it, mask);
            case O_LOP3: return logic(it, mask);
            case O_PLOP3: return predicate_logic(it, mask);
            case O_PRMT: return permute(it, mask);
            case O_IMNMX: case O_VIMNMX: case O_VIADDMNMX: return smaller_or_larger(it, mask);
            case O_SEL: case O_FSEL: return select(it, mask);
            case O_ISETP: return compare_integers(it, mask);
            case O_FSETP: return compare_floats(it, mask);
            case O_FMNMX: case O_FMNMX3: return smaller_or_larger_float(it, mask);
            case O_FADD: return floats(it, mask, [](float a, float b, float) { return a + b; });
            case O_FMUL: return floats(it, mask, [](float a, float b, float) { return a * b; });
            case O_FFMA: return floats(it, mask, [](float a, float b, float c) { return std::fma(a, b, c); });
            case O_MUFU: return special_function(it, mask);
            case O_FRND: return round_float(it, mask);
            case O_B2R: return read_result(it, mask);
            case O_FCHK: return check_division(it, mask);
            case O_F2I: return to_integer(it, mask);
            case O_I2F: case O_I2FP: return to_float(it, mask);
            case O_POPC: case O_IABS: case O_BREV: case O_FLO: return bits(it, mask);
            case O_VOTE: return vote(it, mask);
            case O_REDUX: return reduce(it, mask);
            case O_SHFL: return shuffle(it, mask);
            case O_LDG: return load(it, mask, false);
            case O_LDS: return load(it, mask, true);
            case O_STG: return write(it, mask, false);
            case O_STS: return write(it, mask, true);
            case O_RED: case O_ATOMG: return atomic(it, mask, false);
            case O_ATOMS: return atomic(it, mask, true);
            case O_P2R: return predicates_to_register(it, mask);
            case O_R2P: return register_to_predicates(it, mask);
            case O_BMOV: return barrier_registers(it, mask);
            case O_HADD2: case O_F2FP: case O_F2F: return halves(it, mask);
            case O_HFMA2: return multiply_add_halves(it, mask);
            case O_HMNMX2: case O_VHMNMX: return smaller_or_larger_half(it, mask);
            default: fail("an instruction that is not known");
        }
    }
};

}  // namespace

extern "C" const char* run_kernel(const Launch* launch, u64* counts, Counters* counters) {
    static thread_local std::string error;
    try {
        Block block(*launch, counts, *counters);
        for (u32 z = 0; z < launch->grid[2]; ++z) {
            for (u32 y = 0; y < launch->grid[1]; ++y) {
                for (u32 x = 0; x < launch->grid[0]; ++x) block.run(x, y, z);
            }
        }
    } catch (const std::exception& problem) {
        error = problem.what();
        return error.c_str();
    }
    return nullptr;
}
