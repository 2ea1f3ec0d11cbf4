"""What a try leaves behind: hidden files, temporary files, and whether what it wrote is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["contents", "find_leftovers", "is_whole_bundle"]

_SHOWN = 4
_OF_LIBRARIES = (".ses", "torchinductor_")
"""How names of ONNX Runtime and PyTorch begin that are made once for all processes of a machine."""


def find_leftovers(folder: Path, temporary: Path) -> list[str]:
    """Names of hidden entries below a folder, and of everything in the folder of temporary files; at most a few."""
    hidden = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
    stray = [f"TMPDIR/{path.name}" for path in temporary.iterdir() if not path.name.startswith(_OF_LIBRARIES)]
    return sorted([*hidden, *stray])[:_SHOWN]


def contents(folder: Path) -> Mapping[str, str]:
    """Relative name -> SHA-256 of every file below a folder; nothing where there is none."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def is_whole_bundle(bundle: Path) -> bool:
    """Whether a bundle has a manifest, and every file that it lists is what it says."""
    from yolact_plugins.errors import YolactError
    from yolact_runtime.model.bundle import read_manifest

    try:
        listed = read_manifest(bundle).artefacts
    except YolactError:
        return False
    found = contents(bundle)
    return all(found.get(name) == artefact.sha256 for name, artefact in listed.items())
