"""Disk cache of code that TensorRT-RTX compiles for this GPU; without it every start compiles for seconds.

The file is executable code, so it is used only if it satisfies the rule of :mod:`yolact_plugins.trusted_files`.
TensorRT-RTX itself rejects a cache of another GPU, driver or version.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from yolact_plugins.trusted_files import cache_home, read_trusted, write_private
from yolact_runtime.errors import UntrustedFileError

__all__ = ["RuntimeCache", "cache_folder"]

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/yolact-deploy/rtx``, by default below ``~/.cache``; see :func:`cache_home`."""
    return cache_home() / "yolact-deploy" / "rtx"


class RuntimeCache:
    """The cache of one engine. A failure of the cache is logged and only makes the start slow.

    Attributes:
        config: Runtime configuration for ``create_execution_context``.
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
    def of(cls, engine: Any, sha256: str) -> RuntimeCache | None:
        """Create the cache for an engine and the hash of its plan.

        Return None for TensorRT, which compiles at build time.
        """
        if not hasattr(engine, "create_runtime_config"):
            return None
        if not hasattr(type(engine.create_runtime_config()), "create_runtime_cache"):
            return None
        return cls(engine, cache_folder() / f"{sha256[:32]}.cache")

    def store(self) -> None:
        """Write what has been compiled since the last write."""
        try:
            content = bytes(self._cache.serialize())
            digest = hashlib.sha256(content).digest()
            if digest == self._kept:
                return
            write_private(self._path, content)
            self._kept = digest
        except (UntrustedFileError, OSError, RuntimeError, TypeError) as error:
            _log.warning("the cache of TensorRT-RTX is not written, the next start compiles again: %s", error)


def _read(path: Path) -> bytes | None:
    try:
        return read_trusted(path, path.parent, "what TensorRT-RTX compiled is")
    except FileNotFoundError:
        return None
    except UntrustedFileError as error:
        _log.warning("the cache of TensorRT-RTX is not used: %s", error)
    except OSError as error:
        _log.warning("cannot read %s: %s", path, error)
    return None
