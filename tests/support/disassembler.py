"""NVIDIA's disassembler, where it is installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

__all__ = ["DISASSEMBLER", "needs_disassembler"]

_INSTALLED = next(iter(Path(sys.prefix).glob("lib/python*/site-packages/nvidia/*/bin/nvdisasm")), None)
DISASSEMBLER = _INSTALLED or (Path(found) if (found := shutil.which("nvdisasm")) else None)
needs_disassembler = pytest.mark.skipif(
    DISASSEMBLER is None, reason="needs NVIDIA's disassembler: pip install nvidia-cuda-nvdisasm"
)
