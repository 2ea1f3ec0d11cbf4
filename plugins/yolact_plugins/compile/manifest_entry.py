"""Precompiled kernels of a bundle, and their entry in its manifest, so that hashes and signature cover them.

The manifest contains the SHA-256 of ``cubins/cubins.json``, which contains that of every cubin. The document is defined
by the runtime, which this package does not import: here it is JSON in the runtime's layout, of which one entry is
replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from yolact_plugins.compile.cubin_folder import (
    FOLDER_NAME,
    INDEX_NAME,
    MANIFEST_NAME,
    CubinFolderError,
    prune_cubins,
    write_cubins,
)
from yolact_plugins.driver.cubin import Cubin
from yolact_plugins.errors import TextError, YolactError
from yolact_plugins.files import write_atomically
from yolact_plugins.leftovers import remove_leftovers_in
from yolact_plugins.locks import locked_folder
from yolact_plugins.text import read_json

__all__ = [
    "KERNELS_ARTEFACT",
    "KERNELS_ROLE",
    "MAX_MANIFEST_BYTES",
    "OLDEST_VERSION",
    "SCHEMA_VERSION",
    "SIGNATURE_NAME",
    "SIGNATURE_NAMES",
    "SIGNATURE_RECORD_NAME",
    "ManifestEntryError",
    "SignedBundleError",
    "check_manifest",
    "is_signed",
    "migrated",
    "put_kernels",
    "without_signature",
]

KERNELS_ARTEFACT = f"{FOLDER_NAME}/{INDEX_NAME}"
"""Name of the kernels' entry in the manifest."""
KERNELS_ROLE = "kernels"
SCHEMA_VERSION, OLDEST_VERSION = 3, 1
"""Schema version of manifests that are written, and the oldest version that is read."""
MAX_MANIFEST_BYTES = 4 << 20
"""Maximum size of a manifest in bytes; one with eighty classes and every network has 8 kB."""
SIGNATURE_NAME, SIGNATURE_RECORD_NAME = "manifest.json.sig", "signature.json"
SIGNATURE_NAMES = (SIGNATURE_RECORD_NAME, SIGNATURE_NAME)
"""Files that signing writes, in the order in which they are removed: the signature itself comes last."""


class ManifestEntryError(YolactError):
    """The manifest of a bundle cannot list kernels: it cannot be read, or has another schema version."""


class SignedBundleError(YolactError):
    """A bundle is signed, and would lose its signature although the caller did not ask for that."""


def migrated(document: dict[str, Any]) -> dict[str, Any]:
    """Convert a manifest document to the current schema version; return a current one unchanged.

    Version 1 has no ``build`` of artefacts, which is empty for everything that its release could put into a bundle.
    Versions 1 and 2 have no ``dtypes``: every network of their releases has float32 inputs and outputs.

    Args:
        document: Document of a version from :data:`OLDEST_VERSION` to :data:`SCHEMA_VERSION`; not modified. Its fields
            are not validated, and fields of the wrong type stay as they are.
    """
    if document.get("schema_version") == SCHEMA_VERSION:
        return document
    changed = {**document, "schema_version": SCHEMA_VERSION}
    changed.setdefault("dtypes", {"input": "float32", "outputs": "float32"})
    if isinstance(artefacts := document.get("artefacts"), dict):
        changed["artefacts"] = {
            name: {"build": {}, **artefact} if isinstance(artefact, dict) else artefact
            for name, artefact in artefacts.items()
        }
    return changed


def check_manifest(bundle: Path, drop_signature: bool = False) -> None:
    """Check that the manifest can list kernels; call this before any slow work.

    Args:
        bundle: The bundle's folder.
        drop_signature: If True, the bundle may lose its signature.

    Raises:
        ManifestEntryError: The manifest cannot list kernels.
        SignedBundleError: The bundle is signed, and must not lose its signature.
    """
    _read_manifest(bundle)
    if drop_signature or not is_signed(bundle):
        return
    words = shlex.quote(str(bundle))
    raise SignedBundleError(
        f"{bundle} is signed, and compiling kernels into it would invalidate the signature; nothing is changed. "
        f"If you have a key, add --drop-signature and sign afterwards: yolact-export {words} --sign KEY. Without a "
        f"key, --drop-signature leaves an unsigned bundle; or compile into another folder with -o, or into "
        f"this machine's cache without -o"
    )


def is_signed(bundle: Path) -> bool:
    """Return whether a bundle has a signature, without verifying it."""
    return (bundle / SIGNATURE_NAME).exists()


@contextlib.contextmanager
def without_signature(bundle: Path) -> Iterator[bool]:
    """Remove the signature of a bundle while its files and manifest are changed.

    The signature is removed first: a process that is killed at any point leaves an unsigned bundle, never one with a
    wrong signature. If the block fails and the manifest is unchanged, the signature is restored.

    Yields:
        Whether there was a signature.

    Raises:
        OSError: The signature cannot be removed; nothing was changed.
    """
    earlier = {name: found for name in SIGNATURE_NAMES if (found := _content(bundle / name)) is not None}
    manifest = _content(bundle / MANIFEST_NAME)
    try:
        for name in earlier:
            (bundle / name).unlink(missing_ok=True)
        yield SIGNATURE_NAME in earlier
    except BaseException:
        with contextlib.suppress(OSError):
            if earlier and _content(bundle / MANIFEST_NAME) == manifest:
                for name, content in earlier.items():
                    write_atomically(bundle / name, content)
        raise


def put_kernels(bundle: Path, cubins: Sequence[Cubin]) -> bool:
    """Write ``cubins/`` and list it in the manifest, replacing existing kernels and removing the outdated signature.

    After a failure or an interrupt, the earlier kernels (or none) and the signature are there again. Files and manifest
    are inconsistent only while this function runs or after the process was killed; readers reject them then. The bundle
    is locked, so that no concurrent write of an engine builder or export is lost.

    Args:
        bundle: The bundle's folder.
        cubins: The complete new content of ``cubins/``.

    Returns:
        Whether there was a signature.

    Raises:
        ManifestEntryError: The manifest cannot list kernels; nothing was written.
        OSError: The disk is full, or the folder is not writable.
    """
    _read_manifest(bundle)
    with locked_folder(bundle):
        for folder in (bundle, bundle / FOLDER_NAME):
            remove_leftovers_in(folder)
        with without_signature(bundle) as was_signed:
            _put_kernels(bundle, cubins)
        prune_cubins(bundle / FOLDER_NAME)
    return was_signed


def _put_kernels(bundle: Path, cubins: Sequence[Cubin]) -> None:
    folder = bundle / FOLDER_NAME
    earlier = _content(folder / INDEX_NAME)
    try:
        index = write_cubins(folder, cubins)
        _list(bundle, index.read_bytes(), cubins)
    except BaseException:
        # Kernels that the manifest does not list would be rejected.
        with contextlib.suppress(OSError, CubinFolderError):
            _put_back(folder, earlier)
        raise


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _put_back(folder: Path, index: bytes | None) -> None:
    """Restore the folder. No cubin of an index was removed or changed, because the names contain their hashes."""
    if index is not None:
        write_atomically(folder / INDEX_NAME, index)
        prune_cubins(folder)
        return
    (folder / INDEX_NAME).unlink(missing_ok=True)
    prune_cubins(folder)
    # The folder stays if it contains files of others.
    folder.rmdir()


def _list(bundle: Path, index: bytes, cubins: Sequence[Cubin]) -> None:
    # Read again: compiling took a while, and an engine may have been built into the bundle since.
    document = _read_manifest(bundle)
    document["artefacts"][KERNELS_ARTEFACT] = {
        "role": KERNELS_ROLE,
        "precision": "",
        "sha256": hashlib.sha256(index).hexdigest(),
        "size_bytes": len(index),
        "build": {
            "archs": ", ".join(dict.fromkeys(cubin.arch for cubin in cubins)),
            "nvrtc_version": ", ".join(dict.fromkeys(cubin.nvrtc_version for cubin in cubins)),
        },
    }
    write_atomically(bundle / MANIFEST_NAME, _encoded(document))


def _encoded(document: dict[str, Any]) -> bytes:
    """Encode a manifest in the layout of ``yolact_runtime.model.manifest.Manifest.to_json``."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _read_manifest(bundle: Path) -> dict[str, Any]:
    path = bundle / MANIFEST_NAME
    try:
        document = read_json(path, allow_nan=True, max_bytes=MAX_MANIFEST_BYTES)  # other fields stay as they are
        # A document that cannot be encoded again is reported now, not after compiling.
        _encoded(document)
    except TextError as error:
        if isinstance(error.__cause__, OSError):
            raise _refusal(str(error), "Make it readable") from error
        raise _no_manifest(path, str(error).removeprefix(f"{path}").lstrip(": ")) from error
    except (RecursionError, ValueError) as error:
        raise _no_manifest(path, f"it cannot be written again ({error})") from error
    if not isinstance(document, dict):
        raise _no_manifest(path, f"it holds a {type(document).__name__}, not an object")
    version = document.get("schema_version")
    if type(version) is not int or not OLDEST_VERSION <= version <= SCHEMA_VERSION:
        raise _refusal(
            f"{path} has schema version {version!r}; this release knows versions {OLDEST_VERSION} to {SCHEMA_VERSION}",
            "Export the checkpoint again, install the release that wrote it",
        )
    document = migrated(document)
    if not isinstance(document.get("artefacts"), dict):
        raise _no_manifest(path, "its artefacts are not an object")
    return document


def _no_manifest(path: Path, reason: str) -> ManifestEntryError:
    return _refusal(f"{path} is not a valid bundle manifest: {reason}", "Export the checkpoint again")


def _refusal(found: str, what_to_do: str) -> ManifestEntryError:
    return ManifestEntryError(
        f"{found}. Kernels that the manifest cannot list are not written. {what_to_do}, or choose another folder "
        f"with -o"
    )
