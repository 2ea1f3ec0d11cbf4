"""Deprecated names, which work until the next minor version and state their replacement."""

from __future__ import annotations

import warnings

__all__ = ["warn_deprecated"]


def warn_deprecated(former: str, instead: str, removed_in: str, stacklevel: int = 1) -> None:
    """Warn that a name has been replaced.

    Args:
        former: The deprecated name, as the caller wrote it.
        instead: Instruction for the reader, as an imperative: ``"use yolact_runtime.Segmenter"``.
        removed_in: Version without the former name: ``"0.3"`` for a name that is deprecated in 0.2. A test fails once
            that version is reached and the name is still there.
        stacklevel: Number of calls between this function and the caller who has to change, as for ``warnings.warn``: 1
            is the caller of the function that calls this one.
    """
    text = f"{former} is deprecated and will be removed in version {removed_in}: {instead}"
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel + 2)
