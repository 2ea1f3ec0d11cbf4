"""Lookup of a kernel's machine code: in the bundle, else in this machine's cache, else by compiling it.

The environment variable ``YOLACT_FORBID_JIT=1`` disables the compiler: a missing kernel is then an error that says what
to type, and no robot spends seconds compiling at startup, or fails because it has no compiler.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
from pathlib import Path

from yolact_plugins.compile import compiler
from yolact_plugins.compile.cubin_folder import CubinFolderError, CubinIndex, cubin_folder, find_bundle, write_cubins
from yolact_plugins.compile.cuda_headers import find_headers
from yolact_plugins.compile.sources import KernelSource
from yolact_plugins.driver.cubin import Cubin, check_arch
from yolact_plugins.errors import KernelCompileError, MissingCubinError, MissingDependencyError, UntrustedFileError
from yolact_plugins.trusted_files import cache_home, private_folder

__all__ = ["CubinCache", "default_cache_folder", "jit_is_forbidden"]

_log = logging.getLogger(__name__)
_SWITCH = "YOLACT_FORBID_JIT"


def default_cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/yolact-deploy/cubins``, by default below ``~/.cache``; see :func:`cache_home`."""
    return cache_home() / "yolact-deploy" / "cubins"


def jit_is_forbidden() -> bool:
    """Return whether ``YOLACT_FORBID_JIT`` is set to anything but an empty string and ``0``."""
    return os.environ.get(_SWITCH, "") not in {"", "0"}


class CubinCache:
    """A source of machine code for kernels, with a cache on disk.

    Several processes may share one cache: entries appear complete, and damaged ones are rebuilt. A cache that others
    own or may write is neither used nor written; a warning says so.

    Args:
        folder: The cache folder, created on first use; None means :func:`default_cache_folder`.
        precompiled: The first place to search: the index of a bundle's kernels whose hash was verified; or a bundle, or
            a folder written by ``python -m yolact_plugins.compile -o``, used only if no other user may write it.
        bundle: The bundle without precompiled kernels that an error message recommends to compile into.
    """

    def __init__(
        self, folder: Path | None = None, precompiled: CubinIndex | Path | None = None, bundle: Path | None = None
    ) -> None:
        self.folder = folder or default_cache_folder()
        self.precompiled = precompiled
        self.bundle = bundle

    def get(self, source: KernelSource, arch: str) -> Cubin:
        """Find the machine code, or compile and cache it.

        Args:
            source: A family of kernels from :func:`yolact_plugins.compile.sources.read_source`.
            arch: GPU architecture, such as ``"sm_87"``.

        Raises:
            MissingCubinError: There is no compiled kernel, and ``YOLACT_FORBID_JIT`` is set.
            UntrustedFileError: The bundle of the given index has the kernel, but others may have written the file
                since.
            KernelCompileError: The source does not compile.
            MissingDependencyError: There is neither a compiled kernel nor a compiler.
        """
        check_arch(arch)
        reasons = []
        try:
            if self.precompiled is not None:
                return self._precompiled(self.precompiled).find(source, arch, compiler.OPTIONS)
        except CubinFolderError as error:
            reasons.append(str(error))
        try:
            nvrtc_version = compiler.nvrtc_version()
            entry = self.entry_folder(source, arch, nvrtc_version, find_headers(nvrtc_version).digest(source))
        except (MissingDependencyError, KernelCompileError) as error:
            if jit_is_forbidden():
                reasons.append(
                    f"the cache cannot be searched without NVRTC and CUDA's headers, which its keys include ({error})"
                )
                raise MissingCubinError(self._what_to_do(source, arch, reasons)) from error
            raise
        if entry.exists():
            try:
                return CubinIndex.read(entry, self.folder).find(source, arch, compiler.OPTIONS)
            except (CubinFolderError, UntrustedFileError) as error:
                reasons.append(str(error))
        if jit_is_forbidden():
            raise MissingCubinError(self._what_to_do(source, arch, reasons))
        for reason in reasons:
            _log.warning("compiling %s for %s: %s", source.family, arch, reason)
        cubin = compiler.compile_cubin(source, arch)
        self._keep(entry, cubin)
        return cubin

    def entry_folder(self, source: KernelSource, arch: str, nvrtc_version: str, headers_digest: str) -> Path:
        """Return the cache folder of one cubin, named by a hash of everything that determines it."""
        key = json.dumps([source.digest, arch, compiler.OPTIONS, nvrtc_version, headers_digest])
        return self.folder / f"{source.family}.{arch}.{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    @staticmethod
    def _precompiled(place: CubinIndex | Path) -> CubinIndex:
        if isinstance(place, CubinIndex):
            return place
        return CubinIndex.read(cubin_folder(place), find_bundle(place) or place)

    def _keep(self, entry: Path, cubin: Cubin) -> None:
        try:
            # This user will execute the machine code, so nobody else may write here.
            private_folder(self.folder)
            write_cubins(entry, [cubin], private=True)
        except (OSError, UntrustedFileError) as error:
            _log.warning("%s is not cached and will be compiled again at the next start: %s", cubin.family, error)

    def _what_to_do(self, source: KernelSource, arch: str, reasons: list[str]) -> str:
        given = self.precompiled.root if isinstance(self.precompiled, CubinIndex) else self.precompiled
        target = given or self.bundle or "MODEL.bundle"
        found = "; ".join(reasons) or f"it is not in {self.folder}"
        return (
            f"{source.family} is not compiled for this GPU ({arch}), and {_SWITCH} forbids compiling here: {found}. On "
            f"a machine with NVRTC: python -m yolact_plugins.compile --arch {arch} -o {shlex.quote(str(target))}"
        )
