"""The device that torch computes on, and what it is good at."""

from __future__ import annotations

import torch

from yolact_calibration.errors import UsageError

__all__ = ["choose_device", "has_fast_bfloat16", "has_safe_bfloat16"]


def choose_device(wanted: str) -> str:
    """``"cuda"`` or ``"cpu"``; ``"auto"`` takes CUDA where this PyTorch finds it.

    Raises:
        UsageError: CUDA was asked for by name and is not there.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this PyTorch finds no CUDA device; --device cpu works without")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def has_fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is computed by instructions of its own; emulated, it would be slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def has_safe_bfloat16(device: str, coarsest_size: tuple[int, int]) -> bool:
    """Whether gradients in bfloat16 can be trusted.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        coarsest_size: Height and width of P7, pixels. Where it is a single pixel, weights of the convolutions before it
            see nothing but padding, and the CPU's bfloat16 kernels (torch 2.13) leave garbage in their gradients, up to
            1e19, now and then.
    """
    return device == "cuda" or min(coarsest_size) > 1
