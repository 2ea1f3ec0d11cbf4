from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yolact_export.checkpoint.file import read_pickle
from yolact_export.checkpoint.numpy_scalars import NUMPY_SCALARS
from yolact_export.errors import CheckpointError

NUMBERS = [
    np.float64(0.3), np.float32(-1.5), np.float16(2.0), np.int8(-3), np.uint8(200), np.int64(2**40), np.uint64(2**63),
    np.bool_(True), np.bool_(False), np.complex64(1 + 2j),
]  # fmt: skip


def test_numbers_become_those_of_python(tmp_path: Path) -> None:
    torch.save({"numbers": NUMBERS, "weights": torch.ones(2)}, tmp_path / "x.pth")
    found = read_pickle(tmp_path / "x.pth", [])["numbers"]
    assert found == [number.item() for number in NUMBERS]
    assert [type(number) for number in found] == [type(number.item()) for number in NUMBERS]


def test_numbers_of_another_byte_order(tmp_path: Path) -> None:
    number = np.array([0.3], ">f8")[0]
    torch.save({"number": number, "dtype": number.dtype.str}, tmp_path / "x.pth")
    assert read_pickle(tmp_path / "x.pth", [])["number"] == 0.3


@pytest.mark.parametrize(
    "value",
    [np.array(["a"], object), np.str_("a"), np.datetime64("2024-01-01"), np.zeros(3), np.dtype("U4")],
    ids=["objects", "text", "date", "array", "dtype"],
)
def test_other_objects_of_numpy_are_refused(value: Any, tmp_path: Path) -> None:
    torch.save({"value": value}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"contains Python objects \(numpy"):
        read_pickle(tmp_path / "x.pth", [])


def test_nothing_stays_allowed(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"number": np.float64(0.3)}, tmp_path / "x.pth")
    read_pickle(tmp_path / "x.pth", [])
    assert set(torch.serialization.get_safe_globals()) == before
    assert {name for _, name in NUMPY_SCALARS}.isdisjoint(
        entry[1] for entry in torch.serialization.get_safe_globals() if isinstance(entry, tuple)
    )
