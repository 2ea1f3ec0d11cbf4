"""Bundles with compiled kernels, made without a compiler, for tests of which file's hash covers which."""

from __future__ import annotations

from pathlib import Path

from support.kernels import SAMPLE
from yolact_plugins.compile import compiler
from yolact_plugins.compile.cubin_folder import FOLDER_NAME, INDEX_NAME
from yolact_plugins.compile.manifest_entry import put_kernels
from yolact_plugins.driver.cubin import Cubin, KernelFigures

__all__ = ["made_up_cubin", "with_kernels"]


def made_up_cubin(arch: str, code: bytes = b"machine code") -> Cubin:
    """Make a cubin that a cache accepts as the sample's machine code; a GPU would not."""
    figures = {"nothing": KernelFigures(4, 0, 0, 0, 0, 0)}
    return Cubin("sample", arch, SAMPLE.digest, compiler.OPTIONS, "13.5", code + arch.encode(), figures)


def with_kernels(bundle: Path, *archs: str) -> Path:
    """Put kernels for the architectures into a bundle, as the compiler's command does; return their index."""
    put_kernels(bundle, [made_up_cubin(arch) for arch in archs])
    return bundle / FOLDER_NAME / INDEX_NAME
