"""Atomic writing of bundles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from yolact_export.errors import ExportError, ManifestError
from yolact_plugins.compile.cubin_folder import FOLDER_NAME as CUBIN_FOLDER_NAME
from yolact_plugins.compile.manifest_entry import SIGNATURE_NAMES
from yolact_plugins.file_errors import naming
from yolact_plugins.files import write_atomically
from yolact_plugins.leftovers import written_name
from yolact_plugins.staging import staged_folder
from yolact_runtime.errors import BundleError
from yolact_runtime.model.bundle import MANIFEST_NAME, file_sha256, read_manifest
from yolact_runtime.model.manifest import Artefact, Manifest, NetworkDtypes

__all__ = [
    "REJECTED_ENGINE_SUFFIX",
    "REJECTED_SUFFIX",
    "REPORT_NAME",
    "REPORT_PAGE_NAME",
    "carry_over",
    "check_destination",
    "encode_manifest",
    "link_file",
    "put_manifest",
    "staged_bundle",
    "write_manifest",
]

REPORT_NAME, REPORT_PAGE_NAME = "report.json", "report.html"
REJECTED_SUFFIX, REJECTED_ENGINE_SUFFIX = ".onnx.rejected", ".plan.rejected"
"""Suffixes of networks that lost too much accuracy, and of engines that failed their self-test.

Such files are kept for inspection, and no manifest lists them.
"""


def check_destination(bundle: Path) -> None:
    """Refuse to replace anything but an earlier bundle, before any work is done.

    Raises:
        ExportError: `bundle` is a file, a folder with other files, or is inside another bundle.
    """
    inside = next((folder for folder in bundle.absolute().parents if _is_bundle(folder)), None)
    if inside is not None:
        raise ExportError(
            f"{bundle} is inside the bundle {inside}, which the next export there would replace as a whole: choose "
            f"another folder with -o"
        )
    if not bundle.exists():
        return
    if not bundle.is_dir():
        raise ExportError(f"{bundle} is a file; a bundle is a folder: choose another name with -o")
    if bundle.is_mount():
        raise ExportError(
            f"{bundle} is a mount point, and a bundle is put into place in one step: choose a folder in it with -o"
        )
    present = {path.name for path in bundle.iterdir()}
    if present and MANIFEST_NAME not in present:
        raise ExportError(f"{bundle} has files but is not a bundle, and was not changed: choose another folder with -o")
    if not present:
        return
    try:
        manifest = read_manifest(bundle)
    except (BundleError, ManifestError) as error:
        raise ExportError(
            f"{bundle} is not a bundle that this program reads, and was not changed: {error}. Choose another -o"
        ) from error
    # Kernels that were precompiled into a bundle are compiled again by the command that did so.
    ours = {MANIFEST_NAME, *SIGNATURE_NAMES, REPORT_NAME, REPORT_PAGE_NAME, CUBIN_FOLDER_NAME, *manifest.artefacts}
    foreign = sorted(name for name in present if written_name(name) not in ours and not _is_by_product(name))
    if foreign:
        raise ExportError(
            f"{bundle} is a bundle with other files in it ({', '.join(foreign[:5])}), which replacing it would delete; "
            f"move them away, or choose another folder with -o"
        )


def _is_by_product(name: str) -> bool:
    """Return whether no manifest lists a file: rejected, or an engine whose builder was killed before it was listed."""
    name = written_name(name)
    is_engine = name.startswith("model.") and name.endswith(".plan")
    return is_engine or name.endswith((REJECTED_SUFFIX, REJECTED_ENGINE_SUFFIX))


def _is_bundle(folder: Path) -> bool:
    if not (folder / MANIFEST_NAME).is_file():
        return False
    try:
        read_manifest(folder)
    except (BundleError, ManifestError):
        return False
    return True


@contextmanager
def staged_bundle(bundle: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `bundle` to write into; it takes the bundle's name only if the block succeeds.

    A failure, an interruption or a kill leaves an earlier bundle of that name unchanged; leftovers of a kill are
    removed by the next export there. A link is followed, and stays. See :func:`yolact_plugins.staging.staged_folder`.

    Yields:
        The empty folder.
    """
    check_destination(bundle)
    with naming(bundle):
        bundle.parent.mkdir(parents=True, exist_ok=True)
    with staged_folder(bundle) as staging:
        yield staging


def carry_over(bundle: Path, folder: Path, left_out: Collection[str] = ()) -> None:
    """Add the files of a bundle that a staging folder lacks, as links to the same files if possible.

    Args:
        bundle: Folder of the bundle; not modified.
        folder: Staging folder that will take its place.
        left_out: Names of files that are not carried over.
    """
    for path in bundle.iterdir():
        target = folder / path.name
        # Leftovers of a killed process belong to no one.
        if path.name in left_out or target.exists() or written_name(path.name) != path.name:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, target, symlinks=True, copy_function=link_file)
        else:
            link_file(path, target)
    shutil.copymode(bundle, folder)


def link_file(path: Path | str, target: Path | str) -> None:
    """Create another name for a file, or a copy if the file system has no links."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, target, follow_symlinks=False)


def encode_manifest(manifest: Manifest) -> str:
    """Encode a manifest, after checking that the runtime's own reader decodes the same manifest from it.

    Raises:
        ExportError: The runtime would refuse it, or read a different manifest.
    """
    text = manifest.to_json()
    try:
        again = Manifest.from_json(text, "the manifest")
    except ManifestError as error:
        raise ExportError(f"the runtime would refuse this model, so nothing is written: {error}") from error
    if again != manifest:
        names = [
            field.name for field in fields(manifest) if getattr(again, field.name) != getattr(manifest, field.name)
        ]
        raise ExportError(
            f"the runtime would read a different manifest than the one to write, so nothing is written: "
            f"{', '.join(names)} would change"
        )
    return text


def put_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, if it can be read again; see :func:`encode_manifest`.

    Raises:
        ExportError: It cannot be read again; nothing is written.
        OSError: The disk is full, or the folder is not writable.
    """
    write_atomically(folder / MANIFEST_NAME, encode_manifest(manifest).encode())


def write_manifest(
    folder: Path,
    manifest: Manifest,
    roles: Mapping[str, str],
    precisions: Mapping[str, str] | None = None,
    dtypes: Mapping[str, NetworkDtypes] | None = None,
) -> Manifest:
    """Write ``manifest.json`` with the size and hash of each artefact.

    Args:
        folder: Folder with the artefacts.
        manifest: Manifest without artefacts.
        roles: Role by file name; all files are networks.
        precisions: Precision by file name, of the files whose precision is not the manifest's own.
        dtypes: Types of input and outputs by file name, of the files whose types are not the manifest's own.

    Returns:
        The manifest as it was written.

    Raises:
        ExportError: The runtime would refuse it; nothing is written.
    """
    precision_of, dtypes_of = precisions or {}, dtypes or {}
    artefacts = {
        name: Artefact(
            role,
            precision_of.get(name, manifest.precision),
            file_sha256(folder / name),
            (folder / name).stat().st_size,
            dtypes=dtypes_of.get(name, manifest.dtypes),
        )
        for name, role in roles.items()
    }
    complete = replace(manifest, artefacts=artefacts)
    put_manifest(folder, complete)
    return complete
