"""Kernel timings that TensorRT measured in earlier builds, on disk: the next build takes a fraction of the time.

A cache belongs to one GPU, one TensorRT and one driver, which are in its name; TensorRT checks the rest. TensorRT-RTX
measures nothing while it builds, so it has none. A cache decides which kernels an engine consists of, so it is only
used by the rules of :mod:`yolact_plugins.trusted_files`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from yolact_plugins.trusted_files import cache_home, read_trusted, write_private
from yolact_runtime.errors import UntrustedFileError
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["default_folder", "read_timing_cache", "timing_cache_path", "write_timing_cache"]

_KEYS = ("library", "library_version", "gpu", "compute_capabilities", "cuda_version", "arch")


def default_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/yolact-deploy/timing``, by default below ``~/.cache``; see :func:`cache_home`."""
    return cache_home() / "yolact-deploy" / "timing"


def timing_cache_path(folder: Path, facts: Mapping[str, str]) -> Path:
    """Return the file for a build's facts: readable, and made unique by a hash."""
    values = [facts.get(key, "") for key in _KEYS]
    readable = "-".join(re.sub(r"[^\w.]+", "_", value) for value in values[:3])
    digest = hashlib.sha256("\0".join(values).encode()).hexdigest()[:12]
    return folder / f"{readable}-{digest}.timing"


def read_timing_cache(folder: Path, facts: Mapping[str, str], reporter: Reporter = SILENT) -> bytes:
    """Read the timing cache; return empty bytes if there is none.

    Args:
        folder: Folder of the caches.
        facts: Facts about the build.
        reporter: Reporter that receives a warning if an existing cache is not used: others own or may write it, or it
            cannot be read.
    """
    path = timing_cache_path(folder, facts)
    try:
        return read_trusted(path, folder, "what builds an engine is")
    except FileNotFoundError:
        return b""
    except UntrustedFileError as error:
        reporter.warn(f"the timing cache is not used: {error}")
    except OSError as error:
        reporter.warn(f"cannot read the timing cache {path}: {error.strerror or error}")
    return b""


def write_timing_cache(folder: Path, facts: Mapping[str, str], content: bytes) -> Path:
    """Replace the cache atomically.

    Raises:
        UntrustedFileError: Others own the folder or may write it.
        OSError: The folder cannot be created or written.
    """
    path = timing_cache_path(folder, facts)
    write_private(path, content)
    return path
