"""Bundles on disk: a folder with ``manifest.json``, or a single model file that carries its manifest inside."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yolact_runtime.errors import BundleError
from yolact_runtime.manifest import METADATA_KEY, Artefact, Manifest
from yolact_runtime.onnx_metadata import read_metadata

__all__ = ["MANIFEST_NAME", "Bundle", "file_sha256", "open_bundle"]

MANIFEST_NAME = "manifest.json"
_NETWORK, _MASK_IOU = "network", "mask_iou"


@dataclass(frozen=True)
class Bundle:
    """A model that is complete and is what its manifest says.

    Attributes:
        path: The folder or file it was opened from.
        manifest: How to feed the network and read its outputs.
        network: The network's file.
        mask_iou: The mask-IoU network's file (YOLACT++), or None.
    """

    path: Path
    manifest: Manifest
    network: Path
    mask_iou: Path | None = None


def open_bundle(path: Path | str, precision: str | None = None) -> Bundle:
    """Find the files of a model and check them.

    Args:
        path: A bundle folder, or an ``.onnx`` file that the exporter wrote.
        precision: Which network of a folder, such as ``"fp32"``; None takes the only one.

    Raises:
        BundleError: Something is missing, damaged, or not a model of this project.
        ManifestError: The manifest cannot be understood.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, precision)
    if not path.exists():
        raise BundleError(f"no model at {path}: expected a bundle folder or an .onnx file; yolact-export writes them")
    if path.name == MANIFEST_NAME:
        return _open_folder(path.parent, precision)
    if path.suffix == ".onnx":
        return _open_onnx(path)
    if path.suffix in {".pth", ".pt"}:
        raise BundleError(f"{path} is a checkpoint; export it first: yolact-export {path}")
    if path.suffix in {".plan", ".engine"}:
        raise BundleError(f"{path} is an engine; this release runs .onnx models and bundle folders only")
    raise BundleError(f"{path} is neither a bundle folder nor an .onnx file")


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open_folder(folder: Path, precision: str | None) -> Bundle:
    path = folder / MANIFEST_NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_NAME}") from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    manifest = Manifest.from_json(text, str(path))
    network = _choose(folder, manifest.artefacts, _NETWORK, precision)
    mask_iou = None
    if manifest.mask_rescoring:
        mask_iou = _choose(folder, manifest.artefacts, _MASK_IOU, None)
    return Bundle(folder, manifest, network, mask_iou)


def _choose(folder: Path, artefacts: Mapping[str, Artefact], role: str, precision: str | None) -> Path:
    """The one artefact of a role and precision, checked against its hash."""
    of_role = {name: artefact for name, artefact in artefacts.items() if artefact.role == role}
    fitting = [name for name, a in of_role.items() if precision in (None, a.precision) and name.endswith(".onnx")]
    if len(fitting) != 1:
        there = ", ".join(f"{name} ({artefact.precision})" for name, artefact in of_role.items()) or "none"
        wanted = f"with precision {precision}" if precision else "to run; name a precision"
        raise BundleError(f"{folder} has {len(fitting)} {role} models {wanted}; the manifest lists: {there}")
    (name,) = fitting
    path = folder / name
    # The manifest is data, not code: it must not reach outside its own folder.
    if Path(name).name != name:
        raise BundleError(f'{folder}: the manifest names the artefact "{name}", which is not a plain file name')
    if not path.is_file():
        raise BundleError(f"{folder} is incomplete: {name} is missing; export again, or copy the whole folder")
    found = file_sha256(path)
    if found != artefacts[name].sha256:
        raise BundleError(
            f"{path} is not the file the manifest describes: sha256 {found[:12]}…, expected "
            f"{artefacts[name].sha256[:12]}…. Copy the folder again, or export again"
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
        mask_iou = path.parent / f"mask_iou.{manifest.precision}.onnx"
        if not mask_iou.is_file():
            raise BundleError(
                f"{path} is a YOLACT++ network that re-scores masks with a second network, and {mask_iou.name} is not "
                f"beside it. Run the bundle folder, or copy that file too"
            )
    return Bundle(path, manifest, path, mask_iou)
