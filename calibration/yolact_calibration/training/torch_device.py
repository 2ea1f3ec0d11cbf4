"""Choice of PyTorch's device, and its support of bfloat16."""

from __future__ import annotations

import torch

from yolact_calibration.errors import UsageError

__all__ = ["choose_device", "has_fast_bfloat16", "has_safe_bfloat16"]


def choose_device(wanted: str) -> str:
    """Return ``"cuda"`` or ``"cpu"``; ``"auto"`` chooses CUDA if this PyTorch finds a device.

    Raises:
        UsageError: CUDA was requested by name but is not available.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this PyTorch finds no CUDA device; use --device cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def has_fast_bfloat16(device: str) -> bool:
    """Return whether the device has bfloat16 instructions; emulated, it would be slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def has_safe_bfloat16(device: str, coarsest_size: tuple[int, int]) -> bool:
    """Return whether gradients in bfloat16 are reliable.

    Args:
        device: Either ``"cpu"`` or ``"cuda"``.
        coarsest_size: Height and width of P7 in pixels. If it is a single pixel, some weights of the preceding
            convolutions only see padding, and the CPU's bfloat16 kernels (torch 2.13) occasionally leave garbage in
            their gradients, up to 1e19.
    """
    return device == "cuda" or min(coarsest_size) > 1
