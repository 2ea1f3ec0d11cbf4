"""NumPy numbers beside the weights, such as the best accuracy so far, read without NumPy's own unpickling."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["NUMPY_SCALARS"]

_NUMBERS = re.compile(r"[biufc](1|2|4|8|16)")


class _NumberType:
    """Substitute for ``numpy.dtype`` that accepts plain numbers only."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise ValueError(f"Unsupported global: GLOBAL numpy.dtype ({code!r})")
        self.code = code
        self.byte_order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"a byte order {state[1]!r}")
        self.byte_order = state[1]


def _scalar(kind: _NumberType, content: bytes) -> Any:
    return np.frombuffer(content, kind.byte_order + kind.code, count=1)[0].item()


NUMPY_SCALARS: tuple[tuple[Callable[..., Any], str], ...] = (
    (_NumberType, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
)
"""Substitutes for the names that pickles of NumPy's numbers refer to, for ``torch.serialization.safe_globals``."""
