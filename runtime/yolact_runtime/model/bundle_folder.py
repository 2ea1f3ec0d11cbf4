"""An open bundle folder: one manifest, read once, and files that are what it says.

There is no gap between check and use: the manifest is parsed from the bytes whose signature was checked, and of a file
those bytes are returned whose hash was compared. The folder is held open, so that all of it belongs together whatever
its name stands for meanwhile.
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
"""Files whose exchange makes a bundle another one, see :mod:`yolact_runtime.model.bundle_exchange`."""
# A FIFO in the place of a file must not be waited for.
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class BundleFolder:
    """A bundle folder, open. Use it as a context manager, or call :meth:`close`.

    Args:
        path: The folder.
        keys: Ed25519 public keys, PEM: one of them has to have signed the manifest, which is not parsed before that is
            known. None are given to look at no signature.
        any_digest: Open it also where the manifest is not the one that was signed, to sign it.

    Raises:
        BundleError: There is no manifest.
        ManifestError: It cannot be understood.
        SignatureError: No key fits; or, without keys, it is not the manifest that was signed, which finds accidents.
        MissingDependencyError: There are keys, and the package ``cryptography`` is not installed.

    Attributes:
        path: As given.
        content: Bytes of ``manifest.json``.
        manifest: What they say.
        signature: What lies beside it.
        verified_by: Fingerprint of the key whose signature fits; None where none was asked for.
    """

    def __init__(self, path: Path, keys: Sequence[Path] = (), any_digest: bool = False) -> None:
        self.path = path
        self.verified_by: str | None = None
        try:
            self._descriptor: int | None = os.open(path, FOLDER_FLAGS)
        except FileNotFoundError as error:
            raise AbsentError(f"{path} is not a bundle: it has no {MANIFEST_NAME}; it is not there", path) from error
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
        """There is a signature; whether it fits is not said."""
        return self.signature.signature is not None

    def read(self, name: str) -> bytes:
        """The content of a file that the manifest lists, once it is what the manifest says.

        Raises:
            BundleError: It is not listed, is missing, or is another file than the manifest describes.
        """
        with self._open_listed(name) as file:
            artefact, size = self.manifest.artefacts[name], os.fstat(file.fileno()).st_size
            # One that is longer is not read at all: it may be longer than memory.
            if size > artefact.size_bytes:
                raise self._another(name, f"it has {size} bytes, expected {artefact.size_bytes}")
            content = file.read(artefact.size_bytes + 1)
        found = hashlib.sha256(content).hexdigest()
        if found != artefact.sha256:
            raise self._another(name, f"sha256 {found[:12]}…, expected {artefact.sha256[:12]}…")
        return content

    def check(self, name: str) -> None:
        """Compare a file that the manifest lists with the manifest, in pieces, and keep nothing of it.

        Raises:
            BundleError: As :meth:`read`.
        """
        digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
        with self._open_listed(name) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != self.manifest.artefacts[name].sha256:
            raise BundleError(f"{self.path / name} is not the file that the manifest describes; get the bundle again")

    def model(self, name: str) -> ModelFile:
        """An ONNX model that the manifest lists.

        Raises:
            BundleError: As :meth:`read`; or it has tensors in other files.
        """
        return ModelFile.of_onnx(self.path / name, self.read(name))

    def close(self) -> None:
        """Let the folder go. May be called again; what was read stays."""
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
            raise BundleError(f"{self.path} is not a bundle: its {MANIFEST_NAME} is no file") from error
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
        if len(content) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{path} is longer than {human_size(MAX_MANIFEST_BYTES)}: it is no manifest")
        return content

    def _read_signature(self, name: str) -> bytes | None:
        try:
            return self._read(name, MAX_SIGNATURE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SignatureError(f"cannot read {self.path / name}: {error.strerror or error}") from error

    def _read(self, name: str, limit: int) -> bytes:
        """The beginning of a file in the folder that was opened."""
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
        """Open a file of the folder that was opened, whatever its name stands for now."""
        if self._descriptor is None:
            raise BundleError(f"{self.path} was closed; open it again")
        file = os.fdopen(os.open(name, _FILE_FLAGS, dir_fd=self._descriptor), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise IsADirectoryError(errno.EISDIR, "it is no file")
        return file


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle folder; its artefacts are not looked at, and neither is a signature with a key.

    Raises:
        BundleError: There is none.
        ManifestError: It cannot be understood.
        SignatureError: It is not the one that was signed; see :class:`BundleFolder`.
    """

    def read() -> Manifest:
        with BundleFolder(folder) as opened:
            return opened.manifest

    return read_whole(folder, WATCHED, read)


def require_plain(folder: Path, name: str) -> None:
    """Refuse the name of an artefact that leads out of a bundle's folder, or into one inside it.

    The index of compiled kernels is the one file in a folder of its own.

    Raises:
        BundleError: It does.
    """
    # The manifest is data, not code: it must not reach outside its own folder. "..", which is its own name, and what
    # another system takes for a path are not plain either.
    if name != KERNELS_ARTEFACT and (Path(name).name != name or name in {"", ".."} or "\\" in name):
        raise BundleError(f'{folder}: the manifest names the artefact "{name}", which is not a plain file name')


def artefact_path(folder: Path, name: str) -> Path:
    """Where a file that the manifest lists is. The file's content is not looked at.

    Raises:
        BundleError: It is missing, or its name is not plain.
    """
    require_plain(folder, name)
    path = folder / name
    if not path.is_file():
        raise missing(folder, name)
    return path


def missing(folder: Path, name: str) -> AbsentError:
    """An artefact is not there."""
    return AbsentError(
        f"{folder} is incomplete: {name} is missing; export again, or copy the whole folder", folder / name
    )
