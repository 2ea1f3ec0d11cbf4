"""Bundles on disk: a folder with ``manifest.json``, or a single model file that carries its manifest inside."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from yolact_plugins.compile.manifest_entry import KERNELS_ARTEFACT
from yolact_plugins.files import human_size
from yolact_runtime.errors import BundleError, ManifestError, NoNetworkError
from yolact_runtime.model.manifest import MAX_MANIFEST_BYTES, METADATA_KEY, Artefact, Manifest
from yolact_runtime.model.manifest_signature import SIGNATURE_NAME, SIGNATURE_RECORD_NAME
from yolact_runtime.model.onnx_metadata import read_metadata

__all__ = [
    "CPU_PRECISIONS",
    "CUDA_PRECISIONS",
    "ENGINE_ROLE",
    "MANIFEST_NAME",
    "NETWORK_ROLE",
    "SIGNATURE_NAME",
    "SIGNATURE_RECORD_NAME",
    "Bundle",
    "artefact_path",
    "checked_artefact",
    "file_sha256",
    "mask_iou_file",
    "open_bundle",
    "read_manifest",
    "refuse_writable_by_all",
    "require_precision",
]

MANIFEST_NAME = "manifest.json"
NETWORK_ROLE, ENGINE_ROLE = "network", "engine"
_MASK_IOU = "mask_iou"
CPU_PRECISIONS, CUDA_PRECISIONS = ("int8-cpu", "fp32"), ("fp16", "fp32")
"""What ONNX Runtime does well on a CPU and on CUDA, best first. ``"int8"`` is written for TensorRT, whose rules of
placement make it slow and no better there; a CPU converts ``"fp16"`` back and forth."""
# There is one mask-IoU network, whatever the precision of the main one: it is small, and nothing is gained by another.
_MASK_IOU_PRECISION = "fp32"


@dataclass(frozen=True)
class Bundle:
    """A model that is complete and is what its manifest says.

    Attributes:
        path: The folder or file it was opened from.
        manifest: How to feed the network and read its outputs; its precision is that of `network`.
        network: The network's file.
        mask_iou: The mask-IoU network's file (YOLACT++), or None.
    """

    path: Path
    manifest: Manifest
    network: Path
    mask_iou: Path | None = None


def open_bundle(path: Path | str, precision: str | None = None, preferred: tuple[str, ...] = CPU_PRECISIONS) -> Bundle:
    """Find the files of a model and check them.

    Args:
        path: A bundle folder, or an ``.onnx`` file that the exporter wrote.
        precision: Which network of a folder, such as ``"fp16"``; None takes the first of `preferred` that is there.
        preferred: Precisions, best first. Engines are opened by :mod:`yolact_runtime.backends.engine_file`.

    Raises:
        BundleError: Something is missing, damaged, or not a model of this project.
        NoNetworkError: The bundle has no network in this precision; a BundleError and a UsageError.
        ManifestError: The manifest cannot be understood.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, precision, preferred)
    if not path.exists():
        raise BundleError(f"no model at {path}: expected a bundle folder or an .onnx file; yolact-export writes them")
    if path.name == MANIFEST_NAME:
        return _open_folder(path.parent, precision, preferred)
    if path.suffix == ".onnx":
        return _open_onnx(path)
    if path.suffix in {".pth", ".pt"}:
        raise BundleError(f"{path} is a checkpoint; export it first: yolact-export {path}")
    if path.suffix in {".plan", ".engine"}:
        raise BundleError(
            f"{path} is an engine, which ONNX Runtime does not run; name its bundle folder or an .onnx file"
        )
    raise BundleError(f"{path} is neither a bundle folder nor an .onnx file")


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle folder; its artefacts are not looked at.

    Raises:
        BundleError: There is none.
        ManifestError: It cannot be understood.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        kind = "its manifest.json is no file" if path.exists() else f"it has no {MANIFEST_NAME}"
        raise BundleError(f"{folder} is not a bundle: {kind}")
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{path} is longer than {human_size(MAX_MANIFEST_BYTES)}: it is no manifest")
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    return Manifest.from_json(text, str(path))


def artefact_path(folder: Path, name: str) -> Path:
    """Where a file that the manifest lists is. The file's content is not looked at.

    Raises:
        BundleError: It is missing, or its name leads out of the folder, or into one inside it. The index of compiled
            kernels is the one file in a folder of its own.
    """
    # The manifest is data, not code: it must not reach outside its own folder. "..", which is its own name, and what
    # another system takes for a path are not plain either.
    if name != KERNELS_ARTEFACT and (Path(name).name != name or name in {"", ".."} or "\\" in name):
        raise BundleError(f'{folder}: the manifest names the artefact "{name}", which is not a plain file name')
    path = folder / name
    if not path.is_file():
        raise BundleError(f"{folder} is incomplete: {name} is missing; export again, or copy the whole folder")
    return path


def refuse_writable_by_all(path: Path, subject: str) -> None:
    """Refuse code from a place that every user of the machine may change.

    Args:
        path: A file or folder; the folder that it is in is looked at too.
        subject: What it is, for the message: ``"an engine is"``.

    Raises:
        BundleError: Everybody may write it.
    """
    for place in (path, path.parent):
        mode = place.stat().st_mode
        # Anybody may add files to a sticky folder such as /tmp, but not replace those of others.
        if mode & stat.S_IWOTH and not (place.is_dir() and mode & stat.S_ISVTX):
            raise BundleError(
                f"{place} can be written by every user of this machine, and {subject} executable code: "
                f"chmod o-w {place}, and make sure that what is there is yours"
            )


def mask_iou_file(folder: Path, manifest: Manifest) -> Path | None:
    """The mask-IoU network of a bundle (YOLACT++), checked; None for a model without one.

    Raises:
        BundleError: The manifest speaks of one, and it is missing or damaged.
    """
    if not manifest.mask_rescoring:
        return None
    name = _the_only(folder, manifest.artefacts, _MASK_IOU, _MASK_IOU_PRECISION)
    return checked_artefact(folder, name, manifest.artefacts[name])


def require_precision(
    folder: Path, artefacts: Mapping[str, Artefact], precision: str, roles: Collection[str] = (NETWORK_ROLE,)
) -> None:
    """Refuse a precision that a bundle does not have.

    Args:
        folder: The bundle.
        artefacts: Those of its manifest.
        precision: What was asked for.
        roles: Those of the artefacts that will do.

    Raises:
        NoNetworkError: There is none; the message says which precisions there are.
    """
    there = dict.fromkeys(artefact.precision for artefact in artefacts.values() if artefact.role in roles)
    if precision not in there:
        raise NoNetworkError(f'{folder} has no network in "{precision}"; it has {", ".join(there) or "none"}')


def _open_folder(folder: Path, precision: str | None, preferred: tuple[str, ...]) -> Bundle:
    manifest = read_manifest(folder)
    name = _choose_network(folder, manifest.artefacts, precision, preferred)
    network = checked_artefact(folder, name, manifest.artefacts[name])
    precision = manifest.artefacts[name].precision
    return Bundle(folder, replace(manifest, precision=precision), network, mask_iou_file(folder, manifest))


def _choose_network(
    folder: Path, artefacts: Mapping[str, Artefact], precision: str | None, preferred: tuple[str, ...]
) -> str:
    if precision is None:
        there = {a.precision for name, a in artefacts.items() if a.role == NETWORK_ROLE and name.endswith(".onnx")}
        precision = next((best for best in preferred if best in there), None)
        if precision is None and there:
            wanted, others = " or ".join(preferred), ", ".join(sorted(there))
            raise BundleError(
                f"{folder} has no network for this backend ({wanted}), only {others}; name one of its .onnx files to "
                f"run it all the same, or export with another precision"
            )
    else:
        require_precision(folder, artefacts, precision)
    return _the_only(folder, artefacts, NETWORK_ROLE, precision)


def _the_only(folder: Path, artefacts: Mapping[str, Artefact], role: str, precision: str | None) -> str:
    """Name of the one ONNX model of a role and precision."""
    of_role = {name: artefact for name, artefact in artefacts.items() if artefact.role == role}
    fitting = [name for name, a in of_role.items() if precision in (None, a.precision) and name.endswith(".onnx")]
    if len(fitting) != 1:
        there = ", ".join(f"{name} ({artefact.precision})" for name, artefact in of_role.items()) or "none"
        wanted = f"with precision {precision}" if precision else "to run"
        raise BundleError(f"{folder} has {len(fitting)} {role} models {wanted}; the manifest lists: {there}")
    return fitting[0]


def checked_artefact(folder: Path, name: str, artefact: Artefact) -> Path:
    """Where a file that the manifest lists is, once its content is what the manifest says.

    Raises:
        BundleError: It is missing, or another file than the manifest describes.
    """
    path = artefact_path(folder, name)
    found = file_sha256(path)
    if found != artefact.sha256:
        raise BundleError(
            f"{path} is not the file the manifest describes: sha256 {found[:12]}…, expected "
            f"{artefact.sha256[:12]}…. Copy the folder again, or export again"
        )
    return path


def _open_onnx(path: Path) -> Bundle:
    metadata = read_metadata(path)
    if METADATA_KEY not in metadata:
        raise BundleError(
            f"{path} carries no manifest (metadata property {METADATA_KEY}): it was not written by yolact-export, or "
            f"another tool dropped its metadata. Run the bundle folder, or export the checkpoint again"
        )
    manifest = Manifest.from_json(metadata[METADATA_KEY], str(path))
    mask_iou = None
    if manifest.mask_rescoring:
        mask_iou = path.parent / f"{_MASK_IOU}.{_MASK_IOU_PRECISION}.onnx"
        if not mask_iou.is_file():
            raise BundleError(
                f"{path} is a YOLACT++ network that re-scores masks with a second network, and {mask_iou.name} is not "
                f"beside it. Run the bundle folder, or copy that file too"
            )
    return Bundle(path, manifest, path, mask_iou)
