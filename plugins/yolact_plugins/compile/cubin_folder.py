"""Cubins on disk: a folder whose ``cubins.json`` names, hashes and describes the files beside it.

A bundle has one such folder for all GPUs that it was precompiled for; the cache has many small ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from yolact_plugins.compile.sources import KernelSource
from yolact_plugins.driver.cubin import Cubin, KernelFigures
from yolact_plugins.errors import TextError, UntrustedFileError
from yolact_plugins.files import write_atomically
from yolact_plugins.text import decode_json
from yolact_plugins.trusted_files import check_trusted, private_folder, read_regular, read_trusted, write_private

__all__ = [
    "FOLDER_NAME",
    "INDEX_NAME",
    "MANIFEST_NAME",
    "SUBJECT",
    "CubinFolderError",
    "CubinIndex",
    "cubin_folder",
    "find_bundle",
    "named_cubins",
    "prune_cubins",
    "write_cubins",
]

FOLDER_NAME = "cubins"
"""Name of the folder inside a bundle."""
INDEX_NAME = "cubins.json"
MANIFEST_NAME = "manifest.json"
"""Name of the file that makes a folder a bundle."""
SUBJECT = "kernels are"
"""Subject of messages of :mod:`yolact_plugins.trusted_files`."""
_FORMAT_VERSION = 1


class CubinFolderError(Exception):
    """The reason why a folder does not provide a cubin.

    Users do not see it by itself: the cache decides how to continue.
    """


def cubin_folder(path: Path) -> Path:
    """Return the cubin folder for `path`: ``cubins/`` inside a bundle, any other folder itself."""
    bundle = find_bundle(path)
    return path if bundle is None else bundle / FOLDER_NAME


def find_bundle(path: Path) -> Path | None:
    """Return the bundle that `path` is, or whose ``cubins/`` it is; None for any other folder."""
    whole = path.absolute()
    # Checked first, so that no file put into cubins/ can make that folder a bundle with cubins of its own.
    if whole.name == FOLDER_NAME and (whole.parent / MANIFEST_NAME).is_file():
        return path.parent if path.name else whole.parent
    return path if (path / MANIFEST_NAME).is_file() else None


def write_cubins(folder: Path, cubins: Iterable[Cubin], *, prune: bool = False, private: bool = False) -> Path:
    """Write cubins, then their index; a concurrent reader finds the old state or the new one.

    Args:
        folder: Folder to write to; created if missing.
        cubins: The complete new content of the folder.
        prune: If True, remove the cubin files that the new index does not name.
        private: If True, only this user can enter the folder and read its files, whatever the umask; for caches.

    Returns:
        Path of the index.

    Raises:
        UntrustedFileError: The folder should be private, but others own it or may write it.
        OSError: The files cannot be written.
    """
    write = write_private if private else write_atomically
    if private:
        private_folder(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for cubin in cubins:
        # Because the name contains the hash, another build never overwrites a file that an older index still names.
        name = f"{cubin.family}.{cubin.arch}.{cubin.sha256[:12]}.cubin"
        write(folder / name, cubin.code)
        entries.append(_entry(cubin, name))
    index = folder / INDEX_NAME
    document = {"format_version": _FORMAT_VERSION, "cubins": entries}
    write(index, (json.dumps(document, indent=1) + "\n").encode())
    if prune:
        prune_cubins(folder)
    return index


def prune_cubins(folder: Path) -> None:
    """Remove the cubin files that the index does not name, or all of them if there is no index.

    Raises:
        CubinFolderError: The index is invalid; nothing was removed.
    """
    index = folder / INDEX_NAME
    named = {path for path, _ in named_cubins(folder, index.read_bytes())} if index.exists() else set()
    for path in folder.glob("*.cubin"):
        if path not in named:
            path.unlink()


def named_cubins(folder: Path, index: bytes) -> list[tuple[Path, str]]:
    """Return path and SHA-256 of every cubin that an index names, without reading the cubins.

    Args:
        folder: The folder that contains the index.
        index: Content of the index.

    Raises:
        CubinFolderError: The index is invalid, or names a file outside of the folder.
    """
    with _explained(folder):
        return [(_path(folder, entry), str(entry["sha256"])) for entry in _entries(folder, index)]


@dataclasses.dataclass(frozen=True)
class CubinIndex:
    """An index that is read once, so that the checked content is the content used.

    Cubins are read, hashed and used at once.

    Attributes:
        folder: The folder that contains the cubins.
        content: Content of the index.
        root: The bundle or cache that `folder` is or lies in. A cubin is used only if it and the folders from it up to
            this one belong to this user or root and are not writable by others.
        signed: Whether a verified signature covers the index, so that its hashes suffice; file owners are not checked.
    """

    folder: Path
    content: bytes
    root: Path
    signed: bool = False

    @classmethod
    def read(cls, folder: Path, root: Path) -> CubinIndex:
        """Read the index of a folder.

        Raises:
            CubinFolderError: There is no index, or others may have written it.
        """
        with _explained(folder):
            try:
                return cls(folder, read_trusted(folder / INDEX_NAME, root, SUBJECT), root)
            except UntrustedFileError as error:
                raise CubinFolderError(f"it is not used: {error}") from error

    def named(self) -> list[tuple[Path, str]]:
        """Return path and SHA-256 of every cubin; see :func:`named_cubins`.

        Raises:
            CubinFolderError: The index is invalid.
        """
        return named_cubins(self.folder, self.content)

    def check_cubins(self) -> None:
        """Check that only this user or root may have written the existing cubins, without reading them.

        Raises:
            CubinFolderError: The index is invalid.
            UntrustedFileError: Others may have written a cubin.
        """
        for path, _ in self.named():
            with contextlib.suppress(FileNotFoundError):
                if not self.signed:
                    check_trusted(path, self.root, SUBJECT)

    def find(self, source: KernelSource, arch: str, options: tuple[str, ...]) -> Cubin:
        """Read the cubin of a source, and check that it is complete and was compiled from this source.

        Args:
            source: The family of kernels to run.
            arch: GPU architecture, such as ``"sm_87"``.
            options: Compiler options that the cubin must have been compiled with.

        Raises:
            CubinFolderError: The cubin is missing, has another source or other options, or is damaged; the message says
                which.
            UntrustedFileError: Others may have written the cubin.
        """
        with _explained(self.folder):
            entries = _entries(self.folder, self.content)
            same_name = [entry for entry in entries if (entry["family"], entry["arch"]) == (source.family, arch)]
            matching = [e for e in same_name if e["source_digest"] == source.digest and tuple(e["options"]) == options]
            if not matching:
                raise CubinFolderError(_why_not(self.folder, entries, source.family, arch))
            return self._load(matching[0])

    def _load(self, entry: Mapping[str, Any]) -> Cubin:
        path = _path(self.folder, entry)
        code = read_regular(path) if self.signed else read_trusted(path, self.root, SUBJECT)
        found = hashlib.sha256(code).hexdigest()
        if found != entry["sha256"]:
            raise CubinFolderError(f"{path} is damaged: its SHA-256 is {found[:12]}…, not {entry['sha256'][:12]}…")
        return Cubin(
            family=entry["family"],
            arch=entry["arch"],
            source_digest=entry["source_digest"],
            options=tuple(entry["options"]),
            nvrtc_version=entry["nvrtc_version"],
            code=code,
            figures={kernel: KernelFigures(**figures) for kernel, figures in entry["kernels"].items()},
        )


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CubinFolderError(f"{error.filename} is missing") from error
    except TextError as error:
        raise CubinFolderError(f"{folder / INDEX_NAME} cannot be read ({error})") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CubinFolderError(f"{folder / INDEX_NAME} cannot be read ({type(error).__name__}: {error})") from error


def _entries(folder: Path, index: bytes) -> list[Mapping[str, Any]]:
    document = decode_json(index, str(folder / INDEX_NAME))
    if document["format_version"] != _FORMAT_VERSION:
        raise CubinFolderError(
            f"{folder / INDEX_NAME} has format version {document['format_version']}, not {_FORMAT_VERSION}"
        )
    entries: list[Mapping[str, Any]] = document["cubins"]
    return entries


def _why_not(folder: Path, entries: list[Mapping[str, Any]], family: str, arch: str) -> str:
    archs = sorted({entry["arch"] for entry in entries if entry["family"] == family})
    if arch in archs:
        return f"{folder} has {family} for {arch} from other sources than this version's"
    return f"{folder} has {family} for {', '.join(archs) or 'no architecture'}, not for {arch}"


def _path(folder: Path, entry: Mapping[str, Any]) -> Path:
    name: str = entry["file"]
    if Path(name).name != name or name in {"", ".."} or "\\" in name:
        # An index is external data and must not point out of its folder.
        raise CubinFolderError(f'{folder / INDEX_NAME} names "{name}", which is not in this folder')
    return folder / name


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
