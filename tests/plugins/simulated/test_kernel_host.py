"""The host shim itself: it computes what CUDA would, and it notices the mistakes that are planted here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import yolact_plugins
from support.kernel_host import COMPILER, SANITIZE, SHIM, HostKernelError, HostKernels, poisoned
from support.tools import needs_tool, tool_is_missing

pytestmark = needs_tool("g++")
TESTS = Path(__file__).parents[2]
# A process that loads an instrumented library needs the sanitizer's own library before any other.
_PLANTED = """
import sys
import numpy as np
from support.kernel_host import SHIM, HostKernels, poisoned
from support.tools import needs_tool, tool_is_missing
out = poisoned(64, np.int32)
arguments = [out, np.int32(64)] if sys.argv[1] == "one_element_too_far" else [out]
HostKernels(SHIM / "planted_bugs.cu")(sys.argv[1], (1,), (int(sys.argv[2]),), arguments)
"""


@pytest.fixture(scope="module")
def planted() -> HostKernels:
    return HostKernels(SHIM / "planted_bugs.cu")


def sanitized(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process where kernels are compiled with the address sanitizer."""
    found = subprocess.run([COMPILER or "", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    library = found.stdout.strip()
    if not Path(library).is_absolute():
        tool_is_missing("needs g++ with its address sanitizer, libasan.so")
    environment = os.environ | {
        "LD_PRELOAD": library,
        # Python itself leaks at exit; fibers change stacks, which the check of returned frames does not follow.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "YOLACT_KERNEL_SANITIZE": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    }
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def test_blocks_threads_shared_memory_and_barriers(planted: HostKernels) -> None:
    values = np.arange(1000, dtype=np.int32)
    for seed in (0, 1):
        sums = poisoned(16, np.int32)
        planted("sums_of_blocks", (16,), (64,), [values, sums, np.int32(1000)], seed)
        padded = np.pad(values, (0, 24)).reshape(16, 64)
        assert (sums == padded.sum(axis=1)).all()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("barrier_in_a_branch", "is not reached by all threads: 16 of 64 wait, 48 have ended"),
        ("barriers_at_two_places", "threads of one block at different barriers"),
    ],
)
def test_divergent_barriers_are_flagged(planted: HostKernels, kernel: str, message: str) -> None:
    with pytest.raises(HostKernelError, match=message):
        planted(kernel, (1,), (64,), [poisoned(64, np.int32)])
    # What is left of the failed block does not disturb the next launch.
    test_blocks_threads_shared_memory_and_barriers(planted)


def test_a_warp_operation_that_lanes_miss_is_flagged(planted: HostKernels) -> None:
    with pytest.raises(HostKernelError, match=r"a warp operation at line \d+ is not reached by all threads"):
        planted("early_return_before_a_shuffle", (1,), (64,), [poisoned(64, np.int32), np.int32(40)])
    with pytest.raises(HostKernelError, match="a warp operation without all 32 lanes"):
        planted("early_return_before_a_shuffle", (1,), (40,), [poisoned(64, np.int32), np.int32(40)])


def test_a_missing_barrier_reads_poison(planted: HostKernels) -> None:
    out = poisoned(64, np.int32)
    planted("missing_barrier", (1,), (64,), [out])
    assert (out == poisoned(1, np.int32)[0]).any()


def test_a_missing_second_barrier_shows_when_a_warp_runs_ahead(planted: HostKernels) -> None:
    sums = []
    for seed in range(9):
        sums.append(poisoned(128, np.int32))
        planted("missing_second_barrier", (1,), (128,), [sums[-1]], seed)
    assert (sums[0] == 3).all()
    assert any((result != 3).any() for result in sums)


def test_results_that_depend_on_the_order_of_threads_differ_between_seeds(planted: HostKernels) -> None:
    orders = []
    for seed in (1, 2):
        orders.append(poisoned(64, np.int32))
        planted("first_come_first_served", (1,), (64,), [orders[-1], np.zeros(1, np.int32)], seed)
    assert (orders[0] != orders[1]).any()
    assert (np.sort(orders[0]) == np.arange(64)).all()


def test_arguments_are_counted(planted: HostKernels) -> None:
    with pytest.raises(HostKernelError, match="wrong number of arguments"):
        planted("missing_barrier", (1,), (64,), [])


@pytest.mark.parametrize(
    ("kernel", "threads", "message"),
    [
        ("one_element_too_far", 128, "heap-buffer-overflow"),
        ("past_the_shared_array", 64, "global-buffer-overflow"),
        ("missing_barrier", 64, ""),
    ],
)
def test_the_sanitizer_stops_accesses_outside_of_buffers(kernel: str, threads: int, message: str) -> None:
    done = sanitized("-c", _PLANTED, kernel, str(threads))
    assert (done.returncode != 0) == bool(message), done.stderr
    assert message in done.stderr


@pytest.mark.long
@pytest.mark.skipif(SANITIZE, reason="this is the sanitized run")
def test_all_kernels_stay_inside_their_buffers() -> None:
    """The kernels' own tests once more, in a process where every access is checked."""
    tests = [str(test) for test in sorted((TESTS / "plugins" / "kernels").glob("test_*.py"))]
    kernels = Path(yolact_plugins.__file__).parent / "kernels"
    assert len(tests) == len(list(kernels.glob("*.cu")))
    # What ONNX Runtime computes is compared with a reference, not with a kernel; where it throws C++ exceptions, as one
    # of its builds does at its import, the sanitizer ends the process.
    options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "-k", "not onnx_runtime")
    options += (f"--rootdir={TESTS.parent}",)
    done = sanitized("-m", "pytest", *options, *tests)
    assert done.returncode == 0, done.stdout + done.stderr
