"""Machine code is executed and counted: small kernels, whose results NumPy knows and whose counts can be told.

The committed listing is what NVIDIA's disassembler writes for ``known_counts.cu``. Where the disassembler is installed
(``make integrations`` does it) the same is done with what the compiler makes of the file now, for more architectures.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.disassembler import DISASSEMBLER, needs_disassembler
from support.tools import needs_tool
from yolact_benchmarks.studies.instructions import cli
from yolact_benchmarks.studies.instructions.decoding import decode
from yolact_benchmarks.studies.instructions.execution import Counts, ExecutionError, execute
from yolact_benchmarks.studies.instructions.frame import require_same
from yolact_benchmarks.studies.instructions.machine_code import MachineCode, parse_listing, read_kernels
from yolact_benchmarks.studies.instructions.table import (
    AFTER_THE_NETWORK,
    BITS_AND_RUNS,
    RUNS,
    issued_by,
    kernel_rows,
    other_rows,
    scene_rows,
    time_rows,
)
from yolact_plugins.compile.compiler import compile_cubin
from yolact_plugins.compile.sources import read_source

pytestmark = needs_tool("g++")

HERE = Path(__file__).parent
# Static shared memory of the listing's kernels, with the kilobyte that the architecture keeps for itself.
SHARED_BYTES = {"mix": 1284, "through": 1280}
PARAMETERS = 0x210
ARCHS = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_110")
Kernels = dict[str, MachineCode]


def committed() -> Kernels:
    kernels = parse_listing((HERE / "known_counts.sm_90.sass").read_text(encoding="utf-8"))
    for name, kernel in kernels.items():
        kernel.parameter_offset, kernel.shared_bytes = PARAMETERS, SHARED_BYTES.get(name, 0)
    return kernels


@pytest.fixture(scope="module", params=["committed", *(ARCHS if DISASSEMBLER else ())])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    if request.param == "committed":
        return committed()
    assert DISASSEMBLER is not None
    return read_kernels(compile_cubin(read_source("known_counts", HERE), request.param).code, DISASSEMBLER)


def run(kernel: MachineCode, threads: int, *arguments: Any) -> Counts:
    """One block. Arrays go by address, numbers as they are; each lies where a C struct would have it."""
    packed: list[tuple[int, bytes]] = []
    memory = [(each.ctypes.data, each.nbytes) for each in arguments if isinstance(each, np.ndarray)]
    offset = 0
    for argument in arguments:
        value = np.uint64(argument.ctypes.data) if isinstance(argument, np.ndarray) else argument
        offset = -(-offset // value.itemsize) * value.itemsize
        packed.append((offset, value.tobytes()))
        offset += value.itemsize
    return execute(kernel, (1, 1, 1), (threads, 1, 1), packed, memory)


def loops(kernel: MachineCode) -> list[int]:
    """Lengths of the loops: from where a jump leads back to, to the jump."""
    backward = [
        (i, target) for i, target in kernel.targets.items() if target < i and kernel.instructions[i].opcode == "BRA"
    ]
    return [i - target + 1 for i, target in backward]


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [32, 96])
def test_a_loop_counts_its_body_for_every_turn_of_every_warp(kernels: Kernels, threads: int) -> None:
    kernel, out = kernels["walk"], np.zeros(threads, np.int32)
    (body,) = loops(kernel)
    counted = {turns: run(kernel, threads, np.int32(turns), out) for turns in (1, 2, 50)}
    assert counted[2].warp_instructions - counted[1].warp_instructions == body * threads // 32
    assert counted[50].warp_instructions - counted[1].warp_instructions == 49 * body * threads // 32
    assert counted[50].most_of_a_block == counted[50].warp_instructions == counted[50].most_of_a_warp * threads // 32
    expected = np.arange(threads)
    for turn in range(50):
        expected = expected * 3 + turn
    np.testing.assert_array_equal(out, expected.astype(np.int32))


def test_lanes_that_go_two_ways_count_for_both(kernels: Kernels) -> None:
    kernel, out = kernels["part"], np.zeros(32, np.int32)

    def counted(border: int, left: int, right: int) -> int:
        return run(kernel, 32, np.int32(border), np.int32(left), np.int32(right), out).warp_instructions

    # Not from the first turn on: compilers take it out of a loop.
    left_body, right_body = (
        counted(border, 3, 3) - counted(border, *other) for border, other in ((32, (2, 3)), (0, (3, 2)))
    )
    assert sorted(loops(kernel)) == sorted([left_body, right_body])
    # Nobody goes the other way: its turns cost nothing.
    assert counted(32, 5, 90) == counted(32, 5, 2)
    # One lane is enough for the whole warp to go along.
    for border in (1, 16, 31):
        assert counted(border, 12, 23) - counted(border, 2, 3) == 10 * left_body + 20 * right_body
    counted(31, 12, 23)
    x = np.arange(32, dtype=np.int64)
    left, right = x.copy(), x.copy()
    for turn in range(12):
        left = left * 5 + turn
    for turn in range(23):
        right = (right ^ turn) - 7
    expected = np.where(x < 31, left, right)[x ^ 1]
    np.testing.assert_array_equal(out, expected.astype(np.int32))


def test_a_division_calls_its_subroutine_only_for_operands_that_need_it(kernels: Kernels) -> None:
    kernel, out = kernels["divide"], np.zeros(32, np.float32)
    random = np.random.default_rng(0)
    a, b = (
        random.uniform(0.5, 99, 32).astype(np.float32) * random.choice([-1, 1], 32).astype(np.float32) for _ in "ab"
    )
    (start,) = {kernel.targets[i] for i, it in enumerate(kernel.instructions) if it.opcode == "CALL"}
    plain = run(kernel, 32, a, b, out)
    np.testing.assert_array_equal(out, a / b)
    assert plain.of_instructions[start:].sum() == 0
    a[3], b[7], b[20], a[25] = 1e-41, 1e38, np.inf, np.nan
    special = run(kernel, 32, a, b, out)
    np.testing.assert_array_equal(out, a / b)
    # Lanes that need the subroutine call it together; it goes its own ways inside.
    assert special.of_instructions[start] == 1
    assert special.warp_instructions > plain.warp_instructions + 10


def test_memory_is_counted_in_pieces_of_32_bytes(kernels: Kernels) -> None:
    a, b, out = (np.ones(64, np.float32)[8:40] for _ in range(3))
    counts = run(kernels["divide"], 32, a, b, out)
    assert counts.global_requests == 3
    assert counts.global_bytes == 3 * 32 * 4
    touched = sum(len({(array.ctypes.data + 4 * i) // 32 for i in range(32)}) for array in (a, b, out))
    assert counts.global_sectors == touched


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_integers_votes_and_shared_memory_are_those_of_numpy(kernels: Kernels, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(0, 1 << 32, 64, dtype=np.uint32)
    divisor, factor = np.uint32(random.integers(1, 1 << 12)), np.uint64(random.integers(1, 1 << 40))
    out = np.zeros(64, np.uint64)
    run(kernels["mix"], 64, x, divisor, factor, out)
    expected = np.zeros(64, np.uint64)
    total = int((x // divisor + x % divisor).astype(np.uint64).sum()) & 0xFFFFFFFF
    for i, value in enumerate(map(int, x)):
        first = i // 32 * 32
        before = int(x[i - 3]) if i - 3 >= first else value
        wide = (int(factor) * value + (before << (i % 32))) & (1 << 64) - 1
        wide -= int(factor) >> 3 if wide > int(factor) << 7 else 0
        odd = int((x[first : first + 32] & 1).sum())
        lowest = (value & -value).bit_length()
        expected[i] = (wide ^ total ^ odd ^ (lowest + 32 - value.bit_length())) & (1 << 64) - 1
    np.testing.assert_array_equal(out, expected)


def test_decimals_are_those_of_numpy_but_for_the_last_bits_of_an_exponential(kernels: Kernels) -> None:
    x = np.concatenate([np.linspace(-40, 40, 60), [0, -0.0, 1e-30, 200]]).astype(np.float32)
    out = np.zeros(64, np.float32)
    run(kernels["decimals"], 64, x, out)
    y = (x.astype(np.float64) * 1.5 - np.abs(x)).astype(np.float32)
    expected = np.minimum(np.exp(-np.abs(x)), np.float32(0.75)) + np.floor(y) * np.float32(0.5)
    expected = expected + np.rint(x) - np.ceil(y)
    np.testing.assert_allclose(out, expected, rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize(("low", "high"), [(0, 4), (4, 9), (0, 10), (50, 101), (9, 200), (200, 300)])
def test_a_barrier_tells_what_all_threads_say(kernels: Kernels, low: int, high: int) -> None:
    x, out = np.random.default_rng(high).integers(low, high, 96).astype(np.int32), np.zeros(96, np.int32)
    x[5] = low
    run(kernels["agree"], 96, x, out)
    np.testing.assert_array_equal(out, (x > 3).sum() * 4 + (x == 9).any() * 2 + (x < 100).all())


HALVES = np.array(
    [0, -0.0, 1, -1.5, 65504, -65504, np.inf, -np.inf, np.nan, 6e-8, -6e-5, 6.1e-5, 0.1, 1024.5, 3, 2049], np.float16
)


@pytest.mark.parametrize("seed", range(4))
def test_halves_are_those_of_numpy(kernels: Kernels, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b, c = halves = random.normal(0, 8, (3, 64)).astype(np.float16)
    mixed = random.random(halves.shape) < 0.4
    halves[mixed] = random.choice(HALVES, mixed.sum())
    numbers = np.concatenate([random.normal(0, 1e4, 64), [0, -0.0, 65519.9, 65520, -1e9, 2**-25, 3e-8, 1e-45]])
    numbers = np.resize(numbers.astype(np.float32), 96)
    out = np.zeros(224, np.uint32)
    run(kernels["halves"], 32, halves, numbers, out)
    pairs = out[:160].view(np.float16).reshape(5, 64)
    wide = [each.astype(np.float64) for each in (a, b, c)]
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(pairs[0], (wide[0] * wide[1] + wide[2]).astype(np.float16))
        lower = np.repeat(wide[1][::2], 2)
        np.testing.assert_array_equal(pairs[1], (wide[0] * lower - wide[2]).astype(np.float16))
        # Of zeros the negative one is smaller.
        ordered = [np.where(each == 0, np.copysign(1e-30, each), each) for each in wide]
        smaller, larger = np.fmin(*ordered[:2]), np.fmax(np.fmax(*ordered[:2]), ordered[2])
        assert_same_bits(pairs[2], smaller.astype(np.float16))
        assert_same_bits(pairs[3], larger.astype(np.float16))
        np.testing.assert_array_equal(out[128:160].view(np.float32), a[1::2].astype(np.float32))
        rounded = numbers.astype(np.float16)
    assert_same_bits(out[160:192].view(np.float16), np.stack([rounded[:32], rounded[32:64]], 1).ravel())
    assert_same_bits(out[192:208].view(np.float16), rounded[64:])


def assert_same_bits(found: Any, expected: Any) -> None:
    """Zeros of both signs differ, numbers that are none do not."""
    np.testing.assert_array_equal(found, expected)
    given = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[given]), np.signbit(expected[given]))


def test_an_address_from_memory_leads_to_an_array(kernels: Kernels) -> None:
    x, out = np.arange(32, dtype=np.int32) * 7, np.zeros(32, np.int32)
    run(kernels["through"], 32, x, out)
    np.testing.assert_array_equal(out, x[::-1])


def test_threads_and_blocks_are_as_many_as_there_are(kernels: Kernels) -> None:
    out = np.zeros(64, np.uint32)
    address = np.uint64(out.ctypes.data).tobytes()
    execute(kernels["sizes"], (3, 2, 4), (64, 1, 1), [(0, address)], [(out.ctypes.data, out.nbytes)])
    np.testing.assert_array_equal(out, (64 * 100 + 11) * 1000 + 324)


def test_the_largest_of_three_floats_is_a_number_where_there_is_one(kernels: Kernels) -> None:
    x = np.random.default_rng(3).choice([0.5, -2, np.nan, np.inf, -np.inf, 1e-40, 7], (3, 32)).astype(np.float32)
    out = np.zeros(32, np.float32)
    run(kernels["largest"], 32, x, out)
    np.testing.assert_array_equal(out, np.fmax(np.fmax(x[0], x[1]), x[2]))


@needs_disassembler
def test_a_frame_is_counted_and_leaves_what_the_host_build_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--arch",
        "sm_87",
        "--dtype",
        "float16",
        "--scenes",
        "1",
        "--disassembler",
        str(DISASSEMBLER),
        "--results",
        str(tmp_path),
    ]
    assert cli.main([*words, "--label", "before"]) == 0
    assert "sm_87, float16, 10 of 2.5%: 10 found" in capsys.readouterr().out
    (path,) = tmp_path.glob("*/instructions-before.json")
    record = json.loads(path.read_text())
    (row,) = record["results"]["rows"]
    assert issued_by(row, AFTER_THE_NETWORK) > issued_by(row, BITS_AND_RUNS) > issued_by(row, RUNS) > 0
    assert set(row["kernels"]) >= {"preprocess_f16", "candidates_score_f16", "fast_nms_class", "mask_bits"}


RESULTS = {
    "count": np.array(2),
    "detection_class": np.array([3, 4]),
    "detection_confidence": np.array([0.5, 0.25], np.float32),
    "run_start": np.arange(0, 9000, 3, dtype=np.int32),
}


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("detection_class", [3, 4], True),
        ("detection_class", [3, 5], False),
        ("detection_class", [3], False),
        ("count", 3, False),
        ("detection_confidence", [0.5 + 2**-23, 0.25], True),
        ("detection_confidence", [0.5001, 0.25], False),
        ("run_start", [*range(0, 8997, 3), 8997 + 1], True),
        ("run_start", [*range(0, 8900, 3)], False),
        ("run_start", [], False),
    ],
)
def test_results_of_machine_code_are_those_of_the_host_build(name: str, value: Any, same: bool) -> None:
    found = {**RESULTS, name: np.array(value, RESULTS[name].dtype)}
    with contextlib.nullcontext() if same else pytest.raises(ExecutionError, match=f"{name} of the machine code"):
        require_same(found, RESULTS)


# --- what is not known ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "WGMMA.64x8x16.F32 R24, gdesc[UR4], !UPT",
        "IADD3.SAT R1, R2, R3, RZ",
        "HADD2 R1, R2.H0_H0, R3.H1_H1",
        "HFMA2.MMA R1, R2, R3, 1, 2",
        "HFMA2.BF16_V2 R1, -RZ.H0_H0, RZ.H0_H0, 1.875, 1.875",
        "HFMA2 R1, R2, c[0x0][0x210], R3",
        "F2F.F32.F16 R1, R2",
        "LDC.U8 R1, c[0x0][0x210]",
        "BREAK P0",
        "BAR.SYNC.DEFER_BLOCKING 0x1",
        "LDG.E R1, [R2.64+UR4.X3]",
        "MOV R1, R2.Q3",
        "?",
    ],
)
def test_an_instruction_that_is_not_known_is_an_error_when_it_is_reached(text: str) -> None:
    unknown = decode(text)
    assert unknown.opcode == "UNKNOWN"
    assert text in unknown.problem
    texts = ["EXIT", text]
    kernel = MachineCode([decode(each) for each in texts], texts, {})
    assert run(kernel, 32).warp_instructions == 1
    kernel = MachineCode([unknown], [text], {})
    with pytest.raises(ExecutionError, match=r"not known at /\*0000\*/ of block \(0, 0, 0\)"):
        run(kernel, 32)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["LDS R1, [0x400]", "EXIT"], "outside of shared memory"),
        (["LDG.E R1, desc[UR4][RZ.64+0x40]", "EXIT"], "an address outside of global memory"),
        (["LDG.E.64 R2, [RZ.64+0x44]", "EXIT"], "an address that is not aligned"),
        (["BSSY B0, `(.L)", "@P0 EXIT", "MOV R1, c[0x3][0x0]", "EXIT"], "a constant outside of its bank"),
        (["MOV R1, 0x1"], "a jump out of the kernel"),
    ],
)
def test_what_a_kernel_may_not_do_is_an_error(texts: Sequence[str], message: str) -> None:
    kernel = MachineCode([decode(each) for each in texts], list(texts), {})
    with pytest.raises(ExecutionError, match=message):
        run(kernel, 32)


def test_a_listing_with_a_gap_is_refused() -> None:
    with pytest.raises(ValueError, match="is missing"):
        parse_listing('.section .text.f,"ax"\n/*0000*/ NOP ;\n/*0020*/ NOP ;\n')


# --- tables -----------------------------------------------------------------------------------------------------------


def record(label: str, kernels: dict[str, list[int]]) -> dict[str, Any]:
    row = {"arch": "sm_90", "objects": 20, "area": 0.3, "min_confidence": 0.3, "dtype": "float32", "kernels": kernels}
    halves = {name: [figure // 2 for figure in figures] for name, figures in kernels.items()}
    return {"results": {"label": label, "rows": [row, {**row, "dtype": "float16", "kernels": halves}]}}


BEFORE = record(
    "before",
    {"preprocess_f32": [1, 900, 9, 5, 7], "mask_bits": [1, 4_000_000, 9, 30, 7], "mask_runs_a": [1, 6000, 9, 7, 7]},
)
AFTER = record(
    "after",
    {"preprocess_f32": [1, 900, 9, 5, 7], "mask_bits": [1, 2_000_000, 9, 10, 7], "mask_runs_b": [1, 2000, 9, 5, 7]},
)


def test_before_alone_is_shown_without_a_comparison() -> None:
    (line,) = scene_rows([BEFORE])
    assert line == "| sm_90 | 20 of 30.0% | 4.01 M | - | - | 6.0 k | - | - | - | 37 | - | 2.00 M | - | - |"
    assert kernel_rows([BEFORE])[1] == "| `mask_bits` | 4.00 M |"


def test_two_records_are_compared_whatever_their_kernels_are_called() -> None:
    (line,) = scene_rows([AFTER, BEFORE])
    assert line == (
        "| sm_90 | 20 of 30.0% | 4.01 M | 2.00 M | **2.0 x** | 6.0 k | 2.0 k | **3.0 x** | 2.0 x | 37 | 15 "
        "| 2.00 M | 1.00 M | **2.0 x** |"
    )
    rows = kernel_rows([AFTER, BEFORE])
    assert rows[1:] == [
        "| `mask_bits` | 4.00 M -> 2.00 M |",
        "| `mask_runs_a` | 6.0 k -> - |",
        "| `mask_runs_b` | - -> 2.0 k |",
    ]


def test_kernels_that_a_usual_frame_does_not_launch_have_a_table_of_their_own() -> None:
    others = record("others", {"mask_id_map": [1, 2000, 0, 9, 9]})
    assert other_rows([BEFORE, others]) == ["| `mask_id_map` | - | - | - | - | 2.0 k |"]
    assert other_rows([BEFORE]) == []


def test_a_scene_whose_list_is_filled_says_so() -> None:
    filled = record("before", {"mask_bits": [1, 2000, 0, 9, 9]})
    for row in filled["results"]["rows"]:
        row["min_confidence"] = 0.0
    assert len(scene_rows([BEFORE, filled])) == 2
    assert "| 20 of 30.0%, list filled |" in scene_rows([filled])[0]


def test_times_are_those_of_the_latest_record_with_the_total_of_the_earlier_one() -> None:
    rows = [
        {
            "arch": arch,
            "objects": 100,
            "area": 0.025,
            "min_confidence": 0.3,
            "dtype": "float32",
            "kernels": {"mask_bits": [1, issued, 0, longest, 0]},
        }
        for arch, issued, longest in (("sm_90", 1_045_440, 990), ("sm_87", 832_000, 100))
    ]
    before = {"results": {"label": "before", "commit": "51b3172", "rows": rows}}
    lines = time_rows([before])
    # 1,045,440 / (132 * 4) / 1.98 GHz = 1 µs, and 4 * 990 / 1.98 GHz = 2 µs; 832,000 / (16 * 4) / 1.3 GHz = 10 µs.
    assert lines[4] == "| bits | 1.05 M | 2.0 µs | 10 µs | - | - | - |"
    assert lines[-1] == "| **all kernels** | 1.05 M | 2.0 µs | 10 µs | - | - | - |"
    later = {
        "results": {"label": "after", "rows": [{**row, "kernels": {"mask_bits": [1, 2000, 0, 495, 0]}} for row in rows]}
    }
    lines = time_rows([before, later])
    assert lines[-2] == "| **all kernels** | 2.0 k | 1.0 µs | 1.5 µs | - | - | - |"
    assert lines[-1] == "| all kernels, before (commit 51b3172) | 1.05 M | 2.0 µs | 10 µs | - | - | - |"
