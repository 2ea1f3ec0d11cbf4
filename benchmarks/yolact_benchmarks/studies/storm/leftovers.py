"""Leftovers of a try: hidden files, temporary files, and files that are not whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["contents", "find_leftovers", "is_whole_bundle"]

_SHOWN = 4
_OF_LIBRARIES = (".ses", "torchinductor_")
"""Prefixes of files that ONNX Runtime and PyTorch create once for all processes of a machine."""


def find_leftovers(folder: Path, temporary: Path) -> list[str]:
    """Return the names of hidden entries below a folder and of all entries of the temporary folder, at most a few."""
    hidden = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
    stray = [f"TMPDIR/{path.name}" for path in temporary.iterdir() if not path.name.startswith(_OF_LIBRARIES)]
    return sorted([*hidden, *stray])[:_SHOWN]


def contents(folder: Path) -> Mapping[str, str]:
    """Return the SHA-256 of every file below a folder, by relative name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def is_whole_bundle(bundle: Path) -> bool:
    """Return whether a bundle has a manifest and every file that it lists, with the right hash."""
    from yolact_plugins.errors import YolactError
    from yolact_runtime.model.bundle import read_manifest

    try:
        listed = read_manifest(bundle).artefacts
    except YolactError:
        return False
    found = contents(bundle)
    return all(found.get(name) == artefact.sha256 for name, artefact in listed.items())
