from __future__ import annotations

import ctypes
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kernels import SAMPLE
from yolact_plugins.compile.compiler import compile_cubin
from yolact_plugins.driver.cubin import Parameter
from yolact_plugins.driver.launch import DeviceLimits, LaunchConfig, PackedArguments, ceil_div
from yolact_plugins.errors import LaunchError

NUMBERS = np.dtype([("a", np.float32), ("b", np.int64), ("c", np.int8), ("pad", np.void, 15)], align=True)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=3), st.lists(st.integers(1, 64), min_size=1, max_size=3))
def test_a_grid_covers_the_extent_and_wastes_less_than_a_block_on_each_axis(
    extent: list[int], block: list[int]
) -> None:
    config = LaunchConfig.covering(extent, block)
    sides = (*extent, 1, 1)[:3]
    for side, threads, blocks in zip(sides, config.block, config.grid, strict=True):
        assert blocks * threads >= side > (blocks - 1) * threads
        assert blocks == ceil_div(side, threads) == math.ceil(side / threads)


@pytest.mark.parametrize("extent", [(), (0,), (5, -1), (1, 2, 3, 4)])
def test_nothing_to_cover(extent: tuple[int, ...]) -> None:
    with pytest.raises(LaunchError, match="one to three sides of at least 1"):
        LaunchConfig.covering(extent, (32,))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            LaunchConfig((1, 65536, 1), (32, 1, 1)),
            r"a grid of \(1, 65536, 1\) exceeds .* \(2147483647, 65535, 65535\)",
        ),
        (LaunchConfig((1, 1, 1), (1, 1, 65)), r"a block of \(1, 1, 65\) exceeds"),
        (LaunchConfig((1, 1, 1), (32, 64, 1)), "has 2048 threads; this device takes up to 1024"),
        (LaunchConfig((0, 1, 1), (32, 1, 1)), "sides of at least 1"),
        (
            LaunchConfig((1, 1, 1), (32, 1, 1), 48 * 1024),
            r"49280 bytes of shared memory per block \(128 of them static",
        ),
        (LaunchConfig((1, 1, 1), (32, 1, 1), -1), "shared memory"),
    ],
)
def test_what_no_device_takes(config: LaunchConfig, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        config.check(DeviceLimits(), static_shared_bytes=128)


def test_the_largest_launch_is_taken() -> None:
    LaunchConfig((2**31 - 1, 65535, 65535), (1024, 1, 1), 48 * 1024 - 128).check(DeviceLimits(), 128)


def _bytes(packed: PackedArguments, sizes: list[int]) -> list[bytes]:
    """What the driver would read: through the addresses, as many bytes as the kernel declares."""
    addresses = (ctypes.c_void_p * len(sizes)).from_address(packed.address)
    return [ctypes.string_at(address or 0, size) for address, size in zip(addresses, sizes, strict=True)]


def test_arguments_are_the_bytes_that_the_compiled_kernel_declares() -> None:
    """`mixed` was compiled by NVRTC; NumPy's scalars and aligned structs have the sizes in its machine code."""
    parameters = compile_cubin(SAMPLE, "sm_87").parameters["mixed"]
    numbers = np.zeros((), NUMBERS)
    numbers["a"], numbers["b"], numbers["c"] = 0.5, -(2**40), 7
    arguments: list[Any] = [SimpleNamespace(pointer=0x7F00_1234_5678), np.uint8(200), np.int16(-3), np.float64(2.5)]
    arguments += [numbers[()], np.float32(0.1)]
    packed = PackedArguments("mixed", arguments, parameters)
    content = _bytes(packed, [parameter.size for parameter in parameters])
    assert content[0] == (0x7F00_1234_5678).to_bytes(8, "little")
    assert content[1:4] == [b"\xc8", b"\xfd\xff", np.float64(2.5).tobytes()]
    assert content[4][:17] == np.float32(0.5).tobytes() + bytes(4) + np.int64(-(2**40)).tobytes() + b"\x07"
    assert content[5] == np.float32(0.1).tobytes()


@pytest.mark.parametrize("wrong", [7, 0.5, True, "text", None, [1], np.zeros(3), np.datetime64, object()])
def test_what_says_nothing_of_its_width_is_refused(wrong: object) -> None:
    with pytest.raises(LaunchError, match=r"argument 0 of scale is .*give a NumPy scalar of the kernel's exact type"):
        PackedArguments("scale", [wrong], [Parameter(0, 4)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([np.int64(1), np.float32(1)], "argument 0 of scale is int64 of 8 bytes; the kernel reads 4 bytes there"),
        ([np.int32(1), np.float64(1)], "argument 1 of scale is float64 of 8 bytes"),
        ([np.int32(1)], "scale takes 2 arguments, not 1"),
        ([np.int32(1), np.float32(1), np.float32(1)], "scale takes 2 arguments, not 3"),
    ],
)
def test_sizes_are_compared(arguments: list[Any], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        PackedArguments("scale", arguments, [Parameter(0, 4), Parameter(4, 4)])


def test_a_struct_without_padding_is_refused() -> None:
    packed = np.zeros((), np.dtype([("a", np.float32), ("b", np.int64)]))[()]
    with pytest.raises(LaunchError, match="make its dtype with align=True"):
        PackedArguments("mixed", [packed], [Parameter(0, 12)])


def test_an_argument_may_be_replaced_in_place() -> None:
    packed = PackedArguments("scale", [SimpleNamespace(pointer=1), np.int32(5)], [Parameter(0, 8), Parameter(8, 4)])
    before = packed.address
    packed.replace(0, SimpleNamespace(pointer=2))
    packed.replace(1, np.int32(-1))
    assert packed.address == before
    assert _bytes(packed, [8, 4]) == [(2).to_bytes(8, "little"), b"\xff" * 4]
    with pytest.raises(LaunchError, match="argument 1 is int32; it cannot become float32"):
        packed.replace(1, np.float32(1))


def test_arguments_keep_their_owners_alive() -> None:
    import weakref

    class Owner:
        pointer = 16

    owner = Owner()
    packed = PackedArguments("f", [owner], [Parameter(0, 8)])
    watched = weakref.ref(owner)
    del owner
    assert watched() is not None
    packed.replace(0, SimpleNamespace(pointer=1))
    assert watched() is None


def test_a_kernel_without_parameters() -> None:
    assert len(PackedArguments("nothing", [], [])) == 0
