"""Precompiled CUDA kernels in a bundle: machine code, used only if the manifest lists it.

``python -m yolact_plugins.compile --arch sm_87 -o BUNDLE`` writes them. The manifest, which a signature may cover, has
the SHA-256 of the index ``cubins/cubins.json``; the index has that of every cubin. Files that it does not name are
never read.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

from yolact_plugins.compile.cubin_folder import FOLDER_NAME, SUBJECT, CubinFolderError, CubinIndex
from yolact_plugins.compile.manifest_entry import KERNELS_ARTEFACT, KERNELS_ROLE
from yolact_plugins.trusted_files import read_regular, read_trusted
from yolact_runtime.errors import BundleError, UntrustedFileError
from yolact_runtime.model.bundle import file_sha256
from yolact_runtime.model.manifest import Artefact, Manifest

__all__ = ["bundle_kernels", "check_kernels"]

_SIGNED_INSTEAD = "Or sign the bundle and verify it with --verify-key KEY: then its hashes suffice"
_ARCH = re.compile(r"\bsm_\d{2,3}[af]?\b")


def bundle_kernels(folder: Path, manifest: Manifest, signed: bool = False) -> CubinIndex | None:
    """Return the index of a bundle's precompiled kernels.

    The index is read once, so that the bytes compared with the manifest are those used. Cubins are read, verified and
    used by :class:`yolact_plugins.compile.cache.CubinCache`; those for other GPUs may be missing.

    Args:
        folder: The bundle's folder.
        manifest: The manifest of the bundle, as read or verified.
        signed: Whether the manifest's signature was verified, so that its hashes suffice and file owners are not
            checked.

    Returns:
        The index for ``CubinCache(precompiled=…)``; None if the manifest lists no kernels and there are none.

    Raises:
        BundleError: The index does not match the manifest, there are unlisted kernels, or others own or may write them.
    """
    artefact = _entry(folder, manifest)
    if artefact is None:
        return None
    try:
        index = _listed_index(folder, artefact, trusted=not signed, signed=signed)
        index.check_cubins()
    except (UntrustedFileError, OSError) as error:
        raise BundleError(f"{error}. {_SIGNED_INSTEAD}") from error
    return index


def check_kernels(folder: Path, manifest: Manifest) -> None:
    """Compare every cubin of a bundle with the index, and the index with the manifest.

    Args:
        folder: The bundle's folder.
        manifest: The manifest of the bundle, which is trusted.

    Raises:
        BundleError: A file is missing or does not match, or there are unlisted kernels.
    """
    artefact = _entry(folder, manifest)
    if artefact is None:
        return
    for path, sha256 in _listed_index(folder, artefact, trusted=False).named():
        if not path.is_file():
            raise BundleError(f"{path} is missing; copy the whole folder, or {_compile_again(folder, artefact)}")
        if file_sha256(path) != sha256:
            raise BundleError(
                f"{path} is not the file that {folder / KERNELS_ARTEFACT} describes; get the bundle again, or "
                f"{_compile_again(folder, artefact)}"
            )


def _entry(folder: Path, manifest: Manifest) -> Artefact | None:
    """Return the manifest's entry of the kernels; None if it and the folder have none."""
    artefact = manifest.artefacts.get(KERNELS_ARTEFACT)
    if artefact is None:
        if (folder / FOLDER_NAME).exists():
            raise BundleError(
                f"{folder / FOLDER_NAME} is not listed in the manifest, so no hash covers these kernels and they "
                f"are not used; {_compile_again(folder)}, or remove the folder"
            )
        return None
    if artefact.role != KERNELS_ROLE:
        raise BundleError(
            f'{folder}: the manifest lists {KERNELS_ARTEFACT} as "{artefact.role}", not as "{KERNELS_ROLE}"; '
            f"{_compile_again(folder, artefact)}"
        )
    return artefact


def _listed_index(folder: Path, artefact: Artefact, *, trusted: bool, signed: bool = False) -> CubinIndex:
    """Read and check the index. The parsed bytes are those whose hash was compared.

    Args:
        folder: The bundle's folder.
        artefact: The manifest's entry of the index.
        trusted: Whether to reject files that others own or may write.
        signed: Value of the result's `signed`.
    """
    path = folder / KERNELS_ARTEFACT
    try:
        content = read_trusted(path, folder, SUBJECT) if trusted else read_regular(path)
    except OSError as error:
        raise BundleError(
            f"cannot read {path}: {error.strerror or error}; copy the whole folder, or "
            f"{_compile_again(folder, artefact)}"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != artefact.sha256:
        raise BundleError(
            f"{path} is not the one that the manifest lists: sha256 {found[:12]}…, expected {artefact.sha256[:12]}…. "
            f"It is not loaded, because kernels are executable code. Copy the folder again, or "
            f"{_compile_again(folder, artefact)}"
        )
    index = CubinIndex(path.parent, content, folder, signed)
    try:
        index.named()
    except CubinFolderError as error:
        raise BundleError(f"{error}; {_compile_again(folder, artefact)}") from error
    return index


def _compile_again(folder: Path, artefact: Artefact | None = None) -> str:
    # A manifest is external data: only architectures go from it into a command that users type.
    archs = _ARCH.findall(artefact.build.get("archs", "")) if artefact is not None else []
    command = f"python -m yolact_plugins.compile --arch {' '.join(archs) or 'sm_XY'} -o {shlex.quote(str(folder))}"
    return f"compile the kernels again on a machine with NVRTC: {command}"
