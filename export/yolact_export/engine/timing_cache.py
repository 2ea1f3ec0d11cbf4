"""Timings of kernels that TensorRT measured in earlier builds, on disk: the next build takes a fraction of the time.

A cache fits one GPU, one TensorRT and one driver, which its name says; TensorRT checks the rest. TensorRT-RTX measures
nothing while it builds, so it has none.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from yolact_plugins.files import write_atomically

__all__ = ["default_folder", "read_timing_cache", "timing_cache_path", "write_timing_cache"]

_KEYS = ("library", "library_version", "gpu", "compute_capabilities", "cuda_version", "arch")


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/yolact-deploy/timing``, by default below ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification, a relative path is to be ignored.
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "yolact-deploy" / "timing"


def timing_cache_path(folder: Path, facts: Mapping[str, str]) -> Path:
    """The file for a build's facts: readable, and made unique by a hash."""
    values = [facts.get(key, "") for key in _KEYS]
    readable = "-".join(re.sub(r"[^\w.]+", "_", value) for value in values[:3])
    digest = hashlib.sha256("\0".join(values).encode()).hexdigest()[:12]
    return folder / f"{readable}-{digest}.timing"


def read_timing_cache(folder: Path, facts: Mapping[str, str]) -> bytes:
    """The cache; empty when there is none, or when others than its owner may write it."""
    path = timing_cache_path(folder, facts)
    try:
        if path.stat().st_mode & (stat.S_IWOTH | stat.S_IWGRP) or path.stat().st_uid != os.geteuid():
            return b""
        return path.read_bytes()
    except OSError:
        return b""


def write_timing_cache(folder: Path, facts: Mapping[str, str], content: bytes) -> Path:
    """Replace the cache, whole or not at all.

    Raises:
        OSError: The folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = timing_cache_path(folder, facts)
    write_atomically(path, content)
    path.chmod(0o600)
    return path
