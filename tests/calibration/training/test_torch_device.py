from __future__ import annotations

import pytest
import torch

from yolact_calibration.errors import UsageError
from yolact_calibration.training.torch_device import choose_device, has_fast_bfloat16, has_safe_bfloat16


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


@pytest.mark.parametrize(("capabilities", "fast"), [({"avx512_bf16": True}, True), ({"avx2": True}, False)])
def test_bfloat16_is_fast_where_there_are_instructions_for_it(
    capabilities: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_fast_bfloat16("cpu") is fast


def test_bfloat16_is_not_trusted_where_the_pyramid_ends_in_a_single_pixel() -> None:
    assert has_safe_bfloat16("cpu", (2, 3))
    assert not has_safe_bfloat16("cpu", (1, 3))
    assert has_safe_bfloat16("cuda", (1, 1))
