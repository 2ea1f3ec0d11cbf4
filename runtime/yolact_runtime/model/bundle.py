"""Bundles on disk: a folder with ``manifest.json``, or a single model file that carries its manifest inside."""

from __future__ import annotations

import hashlib
import logging
import shlex
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yolact_plugins.files import real_path
from yolact_plugins.plain_text import printable_line
from yolact_runtime.errors import BundleError, NoNetworkError, SignatureError
from yolact_runtime.model.bundle_exchange import AbsentError, earlier_bundles, read_whole
from yolact_runtime.model.bundle_folder import MANIFEST_NAME, WATCHED, BundleFolder, artefact_path, read_manifest
from yolact_runtime.model.manifest import METADATA_KEY, Artefact, Manifest
from yolact_runtime.model.manifest_signature import SIGNATURE_NAME, SIGNATURE_RECORD_NAME
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.signing_keys import REQUIRE_VARIABLE, key_paths

__all__ = [
    "CPU_PRECISIONS",
    "CUDA_PRECISIONS",
    "ENGINE_ROLE",
    "MANIFEST_NAME",
    "NETWORK_ROLE",
    "PLAN_SUFFIXES",
    "SIGNATURE_NAME",
    "SIGNATURE_RECORD_NAME",
    "Bundle",
    "artefact_path",
    "bundle_in",
    "checked_artefact",
    "file_sha256",
    "folder_of",
    "mask_iou_of",
    "open_bundle",
    "open_file",
    "open_folder",
    "read_manifest",
    "require_precision",
]

_log = logging.getLogger(__name__)
NETWORK_ROLE, ENGINE_ROLE = "network", "engine"
PLAN_SUFFIXES = frozenset({".plan", ".engine"})
"""Suffixes of files that contain an engine."""
_MASK_IOU = "mask_iou"
CPU_PRECISIONS, CUDA_PRECISIONS = ("int8-cpu", "fp32"), ("fp16", "fp32")
"""Precisions that ONNX Runtime runs well on a CPU and on CUDA, best first.

``"int8"`` is written for TensorRT, whose placement rules make it slow and no more accurate there; a CPU converts
``"fp16"`` back and forth.
"""
# There is one mask-IoU network, whatever the precision of the main one: it is small, so others would gain nothing.
_MASK_IOU_PRECISION = "fp32"
# Signed bundles that were opened without verification, by path and manifest; each is reported once.
_warned: set[tuple[Path, bytes]] = set()
_warned_lock = threading.Lock()


@dataclass(frozen=True, repr=False)
class Bundle:
    """A model whose files are complete and match its manifest. :func:`open_bundle` returns it.

    It holds the bytes of its networks, so that the bytes that were checked are the bytes that are loaded. Drop it once
    they are: it takes as much memory as the files.

    Attributes:
        path: The folder or file that it was opened from.
        manifest: Description of the network's input and outputs, with the precision and dtypes of `network`.
        network: The network, an ONNX model.
        mask_iou: The mask-IoU network of YOLACT++, or None.
        verified_by: Fingerprint of the key whose signature was verified; None if no signature was checked.
    """

    path: Path
    manifest: Manifest
    network: ModelFile
    mask_iou: ModelFile | None = None
    verified_by: str | None = None

    def __repr__(self) -> str:
        return f"<Bundle: {self.manifest.summary()}, at {printable_line(str(self.path))}>"


def open_bundle(
    path: Path | str,
    precision: str | None = None,
    preferred: tuple[str, ...] = CPU_PRECISIONS,
    verify_key: Path | str | Sequence[Path | str] | None = None,
) -> Bundle:
    """Read the files of a model and check them against its manifest.

    Args:
        path: A bundle folder, or an ``.onnx`` file that the exporter wrote.
        precision: Precision of the network in a folder, such as ``"fp16"``; None takes the first of `preferred` that
            the bundle has.
        preferred: Precisions, best first. Engines are opened by :meth:`Segmenter.open`, not here.
        verify_key: Files of Ed25519 public keys, PEM. One of them must have signed the bundle, also that of an
            ``.onnx`` file. None takes the keys of the environment variable ``YOLACT_REQUIRE_SIGNATURE``; without any
            key signatures are not checked, and a signed bundle logs one warning.

    Returns:
        The model, with the bytes of its networks.

    Raises:
        BundleError: A file is missing, damaged, or no model of this project.
        SignatureError: None of the keys signed the bundle, or the manifest was changed since.
        NoNetworkError: The bundle has no network in this precision; a BundleError and a UsageError.
        ManifestError: The manifest cannot be read.
        MissingDependencyError: A signature is to be verified, and the package ``cryptography`` is not installed.
    """
    path, keys = Path(path), key_paths(verify_key)

    def read() -> Bundle:
        if path.suffix == ".onnx" and not path.is_dir():
            return open_file(path, keys)
        with open_folder(path, keys) as folder:
            return bundle_in(folder, precision, preferred)

    return read_whole(folder_of(path), WATCHED, read)


def folder_of(path: Path) -> Path:
    """Return the bundle folder for its own path, or for that of its manifest or of a model file in it."""
    return path.parent if path.name == MANIFEST_NAME or path.suffix in {".onnx", *PLAN_SUFFIXES} else path


def open_folder(path: Path, keys: Sequence[Path]) -> BundleFolder:
    """Open a bundle folder to run its models; the caller closes it.

    Args:
        path: The folder, or its manifest.
        keys: Ed25519 public keys (PEM files), one of which must fit; if there are none, the signature is not checked,
            which is logged once.

    Raises:
        BundleError, SignatureError, ManifestError, MissingDependencyError: The same as for :func:`open_bundle`.
    """
    if path.name == MANIFEST_NAME and not path.is_dir():
        path = path.parent
    try:
        folder = BundleFolder(path, keys)
    except AbsentError as error:
        if error.path != path:
            raise
        raise _no_model(path) from error
    except BundleError as error:
        if not isinstance(error.__cause__, NotADirectoryError):
            raise
        raise _not_a_bundle(path) from error
    if folder.is_signed and not keys:
        _warn_unchecked(folder)
    return folder


def bundle_in(folder: BundleFolder, precision: str | None, preferred: tuple[str, ...]) -> Bundle:
    """Return a network of an open folder, with the files that belong to it.

    Raises:
        BundleError, NoNetworkError: The same as for :func:`open_bundle`.
    """
    name = _choose_network(folder.path, folder.manifest.artefacts, precision, preferred)
    manifest = folder.manifest.artefacts[name].described_by(folder.manifest)
    return Bundle(folder.path, manifest, folder.model(name), mask_iou_of(folder), folder.verified_by)


def open_file(path: Path, keys: Sequence[Path]) -> Bundle:
    """Open a single ``.onnx`` file written by the exporter; with keys, as a part of its signed bundle.

    Raises:
        BundleError, SignatureError, ManifestError, MissingDependencyError: The same as for :func:`open_bundle`.
    """
    if not keys:
        try:
            network = ModelFile.read(path)
        except BundleError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise _no_model(path) from error
        return _bundle_of(path, network, _mask_iou_beside)
    if not (path.parent / MANIFEST_NAME).is_file():
        raise SignatureError(f"{path} is not in a bundle, so no signature covers it: name its bundle folder")
    with open_folder(path.parent, keys) as folder:
        if path.name not in folder.manifest.artefacts:
            raise SignatureError(
                f"{path} is not part of the signed bundle around it: the manifest does not list it. Name the "
                f"bundle folder"
            )
        found = _bundle_of(path, folder.model(path.name), lambda _: mask_iou_of(folder))
        return replace(found, verified_by=folder.verified_by)


def mask_iou_of(folder: BundleFolder) -> ModelFile | None:
    """Read and verify the mask-IoU network of an open folder (YOLACT++); return None if the model has none.

    Raises:
        BundleError: The manifest requires one, and it is missing or damaged.
    """
    if not folder.manifest.mask_rescoring:
        return None
    return folder.model(_the_only(folder.path, folder.manifest.artefacts, _MASK_IOU, _MASK_IOU_PRECISION))


def file_sha256(path: Path) -> str:
    """Compute the hexadecimal SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_precision(
    folder: Path, artefacts: Mapping[str, Artefact], precision: str, roles: Collection[str] = (NETWORK_ROLE,)
) -> None:
    """Raise an error if a bundle lacks a precision.

    Args:
        folder: The bundle folder.
        artefacts: Artefacts of the bundle's manifest.
        precision: The requested precision.
        roles: Acceptable roles of the artefact.

    Raises:
        NoNetworkError: There is no such network; the message lists the available precisions.
    """
    there = dict.fromkeys(artefact.precision for artefact in artefacts.values() if artefact.role in roles)
    if precision not in there:
        raise NoNetworkError(f'{folder} has no network in "{precision}"; it has {", ".join(there) or "none"}')


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
                f"run it anyway, or export with another precision"
            )
    else:
        require_precision(folder, artefacts, precision)
    return _the_only(folder, artefacts, NETWORK_ROLE, precision)


def _the_only(folder: Path, artefacts: Mapping[str, Artefact], role: str, precision: str | None) -> str:
    """Return the name of the only ONNX model of a role and precision."""
    of_role = {name: artefact for name, artefact in artefacts.items() if artefact.role == role}
    fitting = [name for name, a in of_role.items() if precision in (None, a.precision) and name.endswith(".onnx")]
    if len(fitting) != 1:
        there = ", ".join(f"{name} ({artefact.precision})" for name, artefact in of_role.items()) or "none"
        wanted = f"with precision {precision}" if precision else "to run"
        raise BundleError(f"{folder} has {len(fitting)} {role} models {wanted}; the manifest lists: {there}")
    return fitting[0]


def checked_artefact(folder: Path, name: str, artefact: Artefact) -> Path:
    """Return the path of a listed file after comparing its content with the manifest.

    Raises:
        BundleError: The file is missing, or does not match the manifest.
    """
    path = artefact_path(folder, name)
    found = file_sha256(path)
    if found != artefact.sha256:
        raise BundleError(
            f"{path} is not the file the manifest describes: sha256 {found[:12]}…, expected "
            f"{artefact.sha256[:12]}…. Copy the folder again, or export again"
        )
    return path


def _bundle_of(path: Path, network: ModelFile, find_mask_iou: Callable[[Path], ModelFile | None]) -> Bundle:
    """Return a bundle with the manifest inside its network."""
    metadata = network.metadata()
    if METADATA_KEY not in metadata:
        raise BundleError(
            f"{path} contains no manifest (metadata property {METADATA_KEY}): it was not written by yolact-export, or "
            f"another tool dropped its metadata. Run the bundle folder, or export the checkpoint again"
        )
    manifest = Manifest.from_json(metadata[METADATA_KEY], str(path))
    return Bundle(path, manifest, network, find_mask_iou(path) if manifest.mask_rescoring else None)


def _mask_iou_beside(path: Path) -> ModelFile:
    beside = path.parent / f"{_MASK_IOU}.{_MASK_IOU_PRECISION}.onnx"
    if not beside.is_file():
        raise BundleError(
            f"{path} is a YOLACT++ network that re-scores masks with a second network, and {beside.name} is not "
            f"beside it. Run the bundle folder, or copy that file too"
        )
    return ModelFile.read(beside)


def _warn_unchecked(folder: BundleFolder) -> None:
    """Warn once per bundle and process that the signature was not verified."""
    bundle = (real_path(folder.path), hashlib.sha256(folder.content).digest())
    with _warned_lock:
        if bundle in _warned:
            return
        _warned.add(bundle)
    _log.warning(
        "%s is signed, and the signature was not checked: use --verify-key KEY (verify_key= of Segmenter.open), or "
        "set %s",
        folder.path,
        REQUIRE_VARIABLE,
    )


def _no_model(path: Path) -> AbsentError:
    left = earlier_bundles(path)
    if left:
        return AbsentError(
            f"no model at {path}: it was being exchanged when its writer was stopped, and the earlier one is "
            f"{left[0]}. Repeat the command that wrote it, or mv {shlex.quote(str(left[0]))} {shlex.quote(str(path))}",
            path,
        )
    return AbsentError(
        f"no model at {path}: expected a bundle folder or an .onnx file; yolact-export writes them", path
    )


def _not_a_bundle(path: Path) -> BundleError:
    if path.suffix in {".pth", ".pt"}:
        return BundleError(f"{path} is a checkpoint; export it first: yolact-export {shlex.quote(str(path))}")
    if path.suffix in PLAN_SUFFIXES:
        return BundleError(
            f"{path} is an engine, which ONNX Runtime does not run; name its bundle folder or an .onnx file"
        )
    return BundleError(f"{path} is neither a bundle folder nor an .onnx file")
