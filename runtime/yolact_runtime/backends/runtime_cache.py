"""What TensorRT-RTX compiled for this GPU, kept on disk: without it every start compiles for seconds.

The file is code that will run: it lies in a folder that only its owner can enter, and anything else is not read.
TensorRT-RTX itself refuses a cache of another GPU, driver or version.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from pathlib import Path
from typing import Any

from yolact_plugins.compile.cache import default_cache_folder
from yolact_plugins.files import write_atomically
from yolact_runtime.model.bundle import file_sha256

__all__ = ["RuntimeCache", "cache_folder"]

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/yolact-deploy/rtx``, by default below ``~/.cache``."""
    return default_cache_folder().with_name("rtx")


class RuntimeCache:
    """The cache of one engine. Nothing that goes wrong with it is worse than a slow start, and that is said.

    Attributes:
        config: To be given to ``create_execution_context``.
    """

    def __init__(self, engine: Any, path: Path) -> None:
        self._path = path
        self.config = engine.create_runtime_config()
        self._cache = self.config.create_runtime_cache()
        self._kept = b""
        content = _read(path)
        if content is not None:
            if self._cache.deserialize(content):
                self._kept = hashlib.sha256(content).digest()
            else:
                _log.info("%s is for another GPU, driver or release; the engine is compiled again", path)
        self.config.set_runtime_cache(self._cache)

    @classmethod
    def of(cls, engine: Any, plan: Path) -> RuntimeCache | None:
        """For an engine; None for TensorRT proper, whose engines are compiled when they are built."""
        if not hasattr(engine, "create_runtime_config"):
            return None
        if not hasattr(type(engine.create_runtime_config()), "create_runtime_cache"):
            return None
        return cls(engine, cache_folder() / f"{file_sha256(plan)[:32]}.cache")

    def store(self) -> None:
        """Write what has been compiled since it was last written."""
        try:
            content = bytes(self._cache.serialize())
            digest = hashlib.sha256(content).digest()
            if digest == self._kept:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._path, content)
            self._kept = digest
        except (OSError, RuntimeError, TypeError) as error:
            _log.warning("what TensorRT-RTX compiled is not kept, the next start compiles again: %s", error)


def _read(path: Path) -> bytes | None:
    try:
        for place in (path, path.parent):
            found = place.stat()
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid != os.getuid():
                _log.warning("%s can be written by others; it is not used: chmod go-w %s", place, place)
                return None
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("cannot read %s: %s", path, error)
        return None
