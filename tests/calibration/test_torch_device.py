from __future__ import annotations

import pytest
import torch

from yolact_calibration.errors import UsageError
from yolact_calibration.torch_device import choose_device, suits_bfloat16


@pytest.mark.parametrize(
    ("wanted", "available", "found"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_auto_takes_cuda_where_it_is(wanted: str, available: bool, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device(wanted) == found


def test_cuda_by_name_is_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "size", "suits"),
    [
        ({"avx512_bf16": True}, (5, 5), True),
        ({"amx_bf16": True}, (2, 3), True),
        ({"avx2": True}, (5, 5), False),
        ({"avx512_bf16": True}, (1, 3), False),
    ],
)
def test_bfloat16_needs_instructions_for_it_and_a_pyramid_that_is_no_single_pixel(
    capabilities: dict[str, bool], size: tuple[int, int], suits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert suits_bfloat16("cpu", size) is suits
