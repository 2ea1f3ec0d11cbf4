"""Signed bundles: an Ed25519 signature of ``manifest.json``, which contains the SHA-256 of every other file.

For compiled kernels it contains that of their index, which contains those of the cubins. A hash beside a file detects
accidents. A signature also detects anyone who can write the folder but does not have the key: engines and kernels are
executable code, and should not be loaded without a signature from a place that others can write.

The signature file contains the raw 64 bytes, so OpenSSL 3 creates and verifies the same file::

    openssl genpkey -algorithm ed25519 -out sign.pem
    openssl pkey -in sign.pem -pubout -out verify.pem
    openssl pkeyutl -verify -pubin -inkey verify.pem -rawin -in manifest.json -sigfile manifest.json.sig

Beside it ``signature.json`` names the key and the signed manifest; see :mod:`yolact_runtime.model.manifest_signature`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from yolact_plugins.files import write_atomically
from yolact_plugins.locks import locked_folder
from yolact_runtime.errors import SignatureError
from yolact_runtime.model.bundle_exchange import read_whole
from yolact_runtime.model.bundle_folder import MANIFEST_NAME, WATCHED, BundleFolder
from yolact_runtime.model.kernel_folder import check_kernels
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.manifest_signature import SIGNATURE_NAME, SIGNATURE_RECORD_NAME, encode_record
from yolact_runtime.model.signing_keys import fingerprint, read_private_key

__all__ = ["require_own_signature", "sign_bundle", "verify_bundle"]


def sign_bundle(bundle: Path, key_path: Path, expected: Manifest | None = None) -> Path:
    """Sign a bundle's manifest after checking every file; an earlier signature is replaced.

    ``signature.json`` is written first: if the process is stopped in between, there is no signature, or one that does
    not fit. The bundle is locked, so that no other process changes or replaces what is being signed.

    Args:
        bundle: The bundle's folder.
        key_path: Ed25519 private key, a PEM file without a password.
        expected: The manifest that the caller intends to sign; None signs the existing one.

    Returns:
        Path of the signature file.

    Raises:
        BundleError: The folder has no manifest, a file does not match the manifest, or there are kernels that it does
            not list.
        SignatureError: The key cannot be read, or the manifest differs from `expected`.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    key = read_private_key(key_path)
    with _locked(bundle), BundleFolder(bundle, any_digest=True) as folder:
        if expected is not None and folder.manifest != expected:
            raise SignatureError(
                f"{bundle} was changed by another process, and is not signed: the signature would cover that change. "
                f"If you know what was changed: yolact-export {shlex.quote(str(bundle))} --sign KEY"
            )
        _check_files(folder)
        write_atomically(bundle / SIGNATURE_RECORD_NAME, encode_record(fingerprint(key.public_key()), folder.content))
        write_atomically(bundle / SIGNATURE_NAME, key.sign(folder.content))
    return bundle / SIGNATURE_NAME


def verify_bundle(bundle: Path, public_keys: Path | Sequence[Path]) -> Manifest:
    """Verify the signature of a bundle's manifest, every listed file, and the cubins of compiled kernels.

    Args:
        bundle: The bundle's folder.
        public_keys: Ed25519 public keys (PEM files), one of which must fit.

    Returns:
        The manifest that the signature covers.

    Raises:
        BundleError: The folder has no manifest, a file does not match the manifest, or there are kernels that it does
            not list.
        SignatureError: There is no signature, none of the keys fits, or a key cannot be read.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    keys = (public_keys,) if isinstance(public_keys, Path) else tuple(public_keys)

    if not keys:
        raise SignatureError(f"no key was given to verify {bundle}")

    def verify() -> Manifest:
        with BundleFolder(bundle, keys) as folder:
            _check_files(folder)
            return folder.manifest

    return read_whole(bundle, WATCHED, verify)


def require_own_signature(bundle: Path, key_path: Path) -> Manifest:
    """Check, before a signed bundle is changed and signed again, that its signature was made with this key.

    A new signature would otherwise cover changes that were made since the old one.

    Args:
        bundle: The bundle's folder; an unsigned bundle passes.
        key_path: Ed25519 private key, a PEM file without a password.

    Returns:
        The manifest of the bundle.

    Raises:
        BundleError: The folder has no manifest.
        SignatureError: The signature does not fit, or the key cannot be read.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    key = read_private_key(key_path)
    with BundleFolder(bundle, any_digest=True) as folder:
        if not folder.is_signed or folder.signature.fits(key.public_key(), folder.content):
            return folder.manifest
    raise SignatureError(
        f"{bundle} is signed, and its signature does not fit {key_path}: {MANIFEST_NAME} was changed after it was "
        f"signed, or another key signed it. Nothing is changed. Get the bundle again from where it was made. Where "
        f"another key signed it, add --verify-key with its public key; if you know what was changed, add "
        f"--drop-signature, and this signature is not checked"
    )


@contextmanager
def _locked(bundle: Path) -> Iterator[None]:
    """Lock the bundle; if it does not exist, opening it reports that."""
    with ExitStack() as held:
        with suppress(FileNotFoundError, NotADirectoryError):
            held.enter_context(locked_folder(bundle))
        yield


def _check_files(folder: BundleFolder) -> None:
    for name in folder.manifest.artefacts:
        folder.check(name)
    check_kernels(folder.path, folder.manifest)
