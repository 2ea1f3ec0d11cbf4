"""Files written whole or not at all, and their sizes as people read them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["human_size", "write_atomically"]


def human_size(size_bytes: int) -> str:
    """``125.0 MB``; decimal units, as file managers and NVIDIA's tools count."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: to a temporary name beside it, flushed to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
