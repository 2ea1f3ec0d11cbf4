"""An open bundle folder: its manifest, read once, and files that match it.

There is no gap between check and use: the manifest is parsed from the bytes whose signature was checked, and the bytes
returned for a file are those whose hash was compared. The folder is held open, so that all files belong together
whatever happens to its name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from yolact_plugins.compile.cubin_folder import MANIFEST_NAME
from yolact_plugins.compile.manifest_entry import KERNELS_ARTEFACT
from yolact_plugins.files import human_size
from yolact_runtime.errors import BundleError, ManifestError, SignatureError
from yolact_runtime.model.bundle_exchange import FOLDER_FLAGS, AbsentError, read_whole
from yolact_runtime.model.manifest import MAX_MANIFEST_BYTES, Manifest
from yolact_runtime.model.manifest_signature import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE_NAME,
    SIGNATURE_RECORD_NAME,
    SignatureFiles,
)
from yolact_runtime.model.model_file import ModelFile

__all__ = ["MANIFEST_NAME", "WATCHED", "BundleFolder", "artefact_path", "read_manifest"]

WATCHED = (MANIFEST_NAME, SIGNATURE_NAME, SIGNATURE_RECORD_NAME)
"""Files whose replacement changes a bundle; see :mod:`yolact_runtime.model.bundle_exchange`."""
# Do not block on a FIFO in place of a file.
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class BundleFolder:
    """An open bundle folder. Use it as a context manager, or call :meth:`close`.

    Args:
        path: Path of the folder.
        keys: Ed25519 public keys (PEM files), one of which must have signed the manifest, which is verified before it
            is parsed. If there are none, the signature is not checked.
        any_digest: If True, open the bundle even if the manifest is not the signed one, in order to sign it.

    Raises:
        BundleError: There is no manifest.
        ManifestError: The manifest is invalid.
        SignatureError: No key fits; or, without keys, the manifest is not the one that was signed, which detects
            accidental changes.
        MissingDependencyError: There are keys, but the package ``cryptography`` is not installed.

    Attributes:
        path: Path of the folder.
        content: Bytes of ``manifest.json``.
        manifest: The parsed manifest.
        signature: The signature files beside the manifest.
        verified_by: Fingerprint of the key whose signature fits; None if no signature was checked.
    """

    def __init__(self, path: Path, keys: Sequence[Path] = (), any_digest: bool = False) -> None:
        self.path = path
        self.verified_by: str | None = None
        try:
            self._descriptor: int | None = os.open(path, FOLDER_FLAGS)
        except FileNotFoundError as error:
            raise AbsentError(f"{path} is not a bundle: it has no {MANIFEST_NAME}, and does not exist", path) from error
        except OSError as error:
            raise BundleError(
                f"{path} is not a bundle: cannot read {MANIFEST_NAME}: {error.strerror or error}"
            ) from error
        try:
            self.content = self._read_manifest()
            signature, record = (self._read_signature(name) for name in (SIGNATURE_NAME, SIGNATURE_RECORD_NAME))
            self.signature = SignatureFiles(path, signature, record)
            if keys:
                self.verified_by = self.signature.verify(self.content, keys)
            elif not any_digest:
                self.signature.check_digest(self.content)
            self.manifest = Manifest.from_json(self.content, str(path / MANIFEST_NAME))
        except BaseException:
            self.close()
            raise

    @property
    def is_signed(self) -> bool:
        """Whether there is a signature, valid or not."""
        return self.signature.signature is not None

    def read(self, name: str) -> bytes:
        """Read a listed file after comparing its size and hash with the manifest.

        Raises:
            BundleError: The file is not listed, is missing, or does not match the manifest.
        """
        with self._open_listed(name) as file:
            artefact, size = self.manifest.artefacts[name], os.fstat(file.fileno()).st_size
            # A longer file is not read at all, because it may exceed the memory.
            if size > artefact.size_bytes:
                raise self._another(name, f"it has {size} bytes, expected {artefact.size_bytes}")
            content = file.read(artefact.size_bytes + 1)
        found = hashlib.sha256(content).hexdigest()
        if found != artefact.sha256:
            raise self._another(name, f"sha256 {found[:12]}…, expected {artefact.sha256[:12]}…")
        return content

    def check(self, name: str) -> None:
        """Compare a listed file with the manifest, in blocks, without keeping its content.

        Raises:
            BundleError: The same as for :meth:`read`.
        """
        digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
        with self._open_listed(name) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != self.manifest.artefacts[name].sha256:
            raise BundleError(f"{self.path / name} is not the file that the manifest describes; get the bundle again")

    def model(self, name: str) -> ModelFile:
        """Read a listed ONNX model.

        Raises:
            BundleError: The same as for :meth:`read`; or the model has tensors in other files.
        """
        return ModelFile.of_onnx(self.path / name, self.read(name))

    def close(self) -> None:
        """Close the folder. May be called again; content that was read stays valid."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> BundleFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _another(self, name: str, difference: str) -> BundleError:
        return BundleError(
            f"{self.path / name} is not the file the manifest describes: {difference}. Copy the folder again, or "
            f"export again"
        )

    def _read_manifest(self) -> bytes:
        path = self.path / MANIFEST_NAME
        try:
            content = self._read(MANIFEST_NAME, MAX_MANIFEST_BYTES + 1)
        except FileNotFoundError as error:
            raise AbsentError(f"{self.path} is not a bundle: it has no {MANIFEST_NAME}", path) from error
        except IsADirectoryError as error:
            raise BundleError(f"{self.path} is not a bundle: its {MANIFEST_NAME} is not a file") from error
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
        if len(content) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{path} is longer than {human_size(MAX_MANIFEST_BYTES)}: it is not a manifest")
        return content

    def _read_signature(self, name: str) -> bytes | None:
        try:
            return self._read(name, MAX_SIGNATURE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SignatureError(f"cannot read {self.path / name}: {error.strerror or error}") from error

    def _read(self, name: str, limit: int) -> bytes:
        """Return the beginning of a file in the open folder."""
        with self._open(name) as file:
            return file.read(limit)

    @contextmanager
    def _open_listed(self, name: str) -> Iterator[BinaryIO]:
        if name not in self.manifest.artefacts:
            raise BundleError(f"{self.path} lists no file {name}")
        require_plain(self.path, name)
        try:
            with self._open(name) as file:
                yield file
        except (FileNotFoundError, IsADirectoryError) as error:
            raise missing(self.path, name) from error
        except OSError as error:
            raise BundleError(f"cannot read {self.path / name}: {error.strerror or error}") from error

    def _open(self, name: str) -> BinaryIO:
        """Open a file in the open folder, whatever its name refers to now."""
        if self._descriptor is None:
            raise BundleError(f"{self.path} was closed; open it again")
        file = os.fdopen(os.open(name, _FILE_FLAGS, dir_fd=self._descriptor), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise IsADirectoryError(errno.EISDIR, "it is not a file")
        return file


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle folder, without checking its artefacts or verifying its signature.

    Raises:
        BundleError: There is no manifest.
        ManifestError: The manifest is invalid.
        SignatureError: The manifest is not the one that was signed; see :class:`BundleFolder`.
    """

    def read() -> Manifest:
        with BundleFolder(folder) as opened:
            return opened.manifest

    return read_whole(folder, WATCHED, read)


def require_plain(folder: Path, name: str) -> None:
    """Reject the name of an artefact that leads out of a bundle's folder, or into one inside it.

    The index of compiled kernels is the only file in a subfolder.

    Raises:
        BundleError: The name is not a plain file name.
    """
    # The manifest is data, not code, and must not refer to files outside its own folder. "..", which equals its own
    # name, and paths of other systems are not plain either.
    if name != KERNELS_ARTEFACT and (Path(name).name != name or name in {"", ".."} or "\\" in name):
        raise BundleError(f'{folder}: the manifest names the artefact "{name}", which is not a plain file name')


def artefact_path(folder: Path, name: str) -> Path:
    """Return the path of a listed file, without checking its content.

    Raises:
        BundleError: The file is missing, or its name is not plain.
    """
    require_plain(folder, name)
    path = folder / name
    if not path.is_file():
        raise missing(folder, name)
    return path


def missing(folder: Path, name: str) -> AbsentError:
    """Create the error for a missing artefact."""
    return AbsentError(
        f"{folder} is incomplete: {name} is missing; export again, or copy the whole folder", folder / name
    )
