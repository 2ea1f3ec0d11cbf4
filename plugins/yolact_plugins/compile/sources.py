"""The CUDA sources that this package carries: one family of kernels per ``.cu`` file, and the headers they share.

They are read as package data, so that nothing depends on where, or in what kind of archive, the package is installed.
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
    # Its home is another in Python 3.10 than from 3.14 on; only the type checker asks.
    from importlib.abc import Traversable

__all__ = ["KernelSource", "families", "kernel_folder", "read_source"]

_QUOTED_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


@dataclass(frozen=True)
class KernelSource:
    """What the compiler gets for one family of kernels.

    Attributes:
        family: Such as ``"preprocess"``: the name of the ``.cu`` file without its suffix.
        text: The CUDA C++ source.
        headers: Name, as written in ``#include "name"``, to text: the package's own headers that the source reaches.
            CUDA's headers, which are included in angle brackets, belong to the compiler.
    """

    family: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the source and its headers, hexadecimal: equal digests compile to the same kernels."""
        digest = hashlib.sha256()
        for name, text in [("", self.text), *sorted(self.headers.items())]:
            for part in (name, text):
                # The length in front keeps two different splits of the same characters apart.
                encoded = part.encode()
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.hexdigest()


def kernel_folder() -> Traversable:
    """The folder of the sources inside the package."""
    return files("yolact_plugins").joinpath("kernels")


def families(folder: Traversable | None = None) -> tuple[str, ...]:
    """Names of all families, sorted; empty where the folder is missing."""
    folder = folder or kernel_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name.removesuffix(".cu") for entry in folder.iterdir() if entry.name.endswith(".cu")))


def read_source(family: str, folder: Traversable | None = None) -> KernelSource:
    """Read a family and every header of the folder that it includes, directly or through another header.

    Args:
        family: One of :func:`families`.
        folder: Where the sources are; None is the package's own folder.

    Raises:
        KernelCompileError: There is no such family.
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
        # A header that is not here may stand behind an #if that is false; the compiler complains where it does not.
        if name not in headers and "/" not in name and folder.joinpath(name).is_file():
            headers[name] = folder.joinpath(name).read_text(encoding="utf-8")
            pending += _QUOTED_INCLUDE.findall(headers[name])
    return KernelSource(family, text, headers)
