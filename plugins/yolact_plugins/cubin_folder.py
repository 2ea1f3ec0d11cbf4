"""Cubins on disk: a folder with ``cubins.json``, which names, hashes and describes the files beside it.

A bundle has one for the GPUs it was precompiled for; the cache of a machine is many small ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yolact_plugins.cubin import Cubin, KernelFigures
from yolact_plugins.sources import KernelSource

__all__ = ["FOLDER_NAME", "INDEX_NAME", "CubinFolderError", "cubin_folder", "find_cubin", "write_cubins"]

FOLDER_NAME = "cubins"
"""The folder inside a bundle."""
INDEX_NAME = "cubins.json"
_FORMAT_VERSION = 1


class CubinFolderError(Exception):
    """Why a folder does not give a cubin. Never reaches a user alone: the cache decides what follows from it."""


def cubin_folder(path: Path) -> Path:
    """Where the cubins of `path` are or go: ``cubins/`` inside a bundle, any other folder itself."""
    return path / FOLDER_NAME if (path / "manifest.json").is_file() else path


def write_cubins(folder: Path, cubins: Iterable[Cubin], *, prune: bool = False) -> Path:
    """Write cubins, then the index that names them; a reader finds the old state or the new one.

    Args:
        folder: Made if missing.
        cubins: All that the folder shall hold.
        prune: Remove the cubin files that the new index does not name.

    Returns:
        The index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for cubin in cubins:
        # The hash in the name: another build never overwrites a file that an older index still names.
        name = f"{cubin.family}.{cubin.arch}.{cubin.sha256[:12]}.cubin"
        _write_atomically(folder / name, cubin.code)
        entries.append(_entry(cubin, name))
    index = folder / INDEX_NAME
    document = {"format_version": _FORMAT_VERSION, "cubins": entries}
    _write_atomically(index, (json.dumps(document, indent=1) + "\n").encode())
    if prune:
        named = {entry["file"] for entry in entries}
        for path in folder.glob("*.cubin"):
            if path.name not in named:
                path.unlink()
    return index


def find_cubin(folder: Path, source: KernelSource, arch: str, options: tuple[str, ...]) -> Cubin:
    """Read the cubin of a source, and check that it is whole and made of this very source.

    Args:
        folder: With an index.
        source: What shall run.
        arch: Such as ``"sm_87"``.
        options: That it must have been compiled with.

    Raises:
        CubinFolderError: Not there, of another source or other options, or damaged; the message says which.
    """
    try:
        document = json.loads((folder / INDEX_NAME).read_bytes())
        if document["format_version"] != _FORMAT_VERSION:
            raise CubinFolderError(f"{folder / INDEX_NAME} has format version {document['format_version']}, not 1")
        same_name = [e for e in document["cubins"] if (e["family"], e["arch"]) == (source.family, arch)]
        matching = [e for e in same_name if e["source_digest"] == source.digest and tuple(e["options"]) == options]
        if not matching:
            raise CubinFolderError(_why_not(folder, document["cubins"], source.family, arch))
        return _read(folder, matching[0])
    except FileNotFoundError as error:
        raise CubinFolderError(f"{error.filename} is missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CubinFolderError(f"{folder / INDEX_NAME} cannot be read ({type(error).__name__}: {error})") from error


def _why_not(folder: Path, entries: list[Mapping[str, Any]], family: str, arch: str) -> str:
    archs = sorted({entry["arch"] for entry in entries if entry["family"] == family})
    if arch in archs:
        return f"{folder} has {family} for {arch} from other sources than this version's"
    return f"{folder} has {family} for {', '.join(archs) or 'no architecture'}, not for {arch}"


def _read(folder: Path, entry: Mapping[str, Any]) -> Cubin:
    name = entry["file"]
    if Path(name).name != name:
        # An index is data from elsewhere; it may not point out of its folder.
        raise CubinFolderError(f'{folder / INDEX_NAME} names "{name}", which is not in this folder')
    code = (folder / name).read_bytes()
    found = hashlib.sha256(code).hexdigest()
    if found != entry["sha256"]:
        raise CubinFolderError(f"{folder / name} is damaged: its SHA-256 is {found[:12]}…, not {entry['sha256'][:12]}…")
    return Cubin(
        family=entry["family"],
        arch=entry["arch"],
        source_digest=entry["source_digest"],
        options=tuple(entry["options"]),
        nvrtc_version=entry["nvrtc_version"],
        code=code,
        figures={kernel: KernelFigures(**figures) for kernel, figures in entry["kernels"].items()},
    )


def _entry(cubin: Cubin, name: str) -> dict[str, Any]:
    return {
        "family": cubin.family,
        "arch": cubin.arch,
        "file": name,
        "sha256": cubin.sha256,
        "size_bytes": len(cubin.code),
        "source_digest": cubin.source_digest,
        "options": list(cubin.options),
        "nvrtc_version": cubin.nvrtc_version,
        "kernels": {kernel: dataclasses.asdict(figures) for kernel, figures in cubin.figures.items()},
    }


def _write_atomically(path: Path, content: bytes) -> None:
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
