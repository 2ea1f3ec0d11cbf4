"""The CUDA sources in this package: one family of kernels per ``.cu`` file, and the headers that they share.

They are read as package data, so the package may be installed anywhere, even in an archive.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

from yolact_plugins.errors import KernelCompileError

if TYPE_CHECKING:
    # Its module changed between Python 3.10 and 3.14; only the type checker needs it.
    from importlib.abc import Traversable

__all__ = ["KernelSource", "families", "kernel_folder", "read_source"]

_QUOTED_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


@dataclass(frozen=True)
class KernelSource:
    """Compiler input for one family of kernels.

    Attributes:
        family: Name of the ``.cu`` file without its suffix, such as ``"preprocess"``.
        text: The CUDA C++ source.
        headers: The package's own headers that the source includes, directly or indirectly: the name as in ``#include
            "name"``, mapped to the text. CUDA's headers, included in angle brackets, belong to the compiler.
    """

    family: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the source and its headers, in hexadecimal: equal digests compile to the same kernels."""
        digest = hashlib.sha256()
        for name, text in [("", self.text), *sorted(self.headers.items())]:
            for part in (name, text):
                # The length prefix distinguishes different splits of the same characters.
                encoded = part.encode()
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.hexdigest()


def kernel_folder() -> Traversable:
    """Return the package's folder of CUDA sources."""
    return files("yolact_plugins").joinpath("kernels")


def families(folder: Traversable | None = None) -> tuple[str, ...]:
    """Return the sorted names of all families; an empty tuple if the folder is missing."""
    folder = folder or kernel_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name.removesuffix(".cu") for entry in folder.iterdir() if entry.name.endswith(".cu")))


def read_source(family: str, folder: Traversable | None = None) -> KernelSource:
    """Read a family and every header of the folder that it includes, directly or through another header.

    Args:
        family: A name from :func:`families`.
        folder: Folder of the sources; None means the package's own folder.

    Raises:
        KernelCompileError: There is no family of that name.
    """
    folder = folder or kernel_folder()
    known = families(folder)
    if family not in known:
        raise KernelCompileError(f'there is no family of kernels "{family}"; there are: {", ".join(known) or "none"}')
    text = folder.joinpath(f"{family}.cu").read_text(encoding="utf-8")
    headers: dict[str, str] = {}
    pending = _QUOTED_INCLUDE.findall(text)
    while pending:
        name = pending.pop()
        # A missing header may be inside a false #if; if it is not, the compiler reports it.
        if name not in headers and "/" not in name and folder.joinpath(name).is_file():
            headers[name] = folder.joinpath(name).read_text(encoding="utf-8")
            pending += _QUOTED_INCLUDE.findall(headers[name])
    return KernelSource(family, text, headers)
