"""Signed bundles: an Ed25519 signature of ``manifest.json``, which holds the sha256 of every other file.

Of compiled kernels it holds that of their index, which holds those of the cubins. A hash beside a file finds accidents.
A signature also finds whoever can write the folder and has not the key: without it, nobody's engine or kernels should
be loaded from a place that others write to, because they are executable code.

The signature file holds the 64 bytes as they are, so that OpenSSL 3 makes and checks the same::

    openssl genpkey -algorithm ed25519 -out sign.pem
    openssl pkey -in sign.pem -pubout -out verify.pem
    openssl pkeyutl -verify -pubin -inkey verify.pem -rawin -in manifest.json -sigfile manifest.json.sig

Beside it ``signature.json`` names the key and the manifest that was signed, see
:mod:`yolact_runtime.model.manifest_signature`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolact_plugins.files import write_atomically
from yolact_runtime.errors import BundleError, SignatureError
from yolact_runtime.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, artefact_path, file_sha256
from yolact_runtime.model.kernel_folder import check_kernels
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.manifest_signature import SIGNATURE_RECORD_NAME, SignatureFiles, encode_record
from yolact_runtime.model.signing_keys import fingerprint, read_private_key

__all__ = ["require_own_signature", "sign_bundle", "verify_bundle"]


def sign_bundle(bundle: Path, key_path: Path) -> Path:
    """Sign a bundle's manifest, once every file is what it says; an earlier signature is replaced.

    ``signature.json`` is written beside it, and before it: whoever is stopped in between leaves no signature, or one
    that does not fit.

    Args:
        bundle: The folder.
        key_path: Ed25519 private key, PEM without a password.

    Returns:
        The signature file.

    Raises:
        BundleError: The folder has no manifest, a file is not what the manifest says, or there are kernels
            that it does not list.
        SignatureError: The key cannot be read.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    key = read_private_key(key_path)
    content = _read(bundle / MANIFEST_NAME)
    _check_files(bundle, Manifest.from_json(content, str(bundle / MANIFEST_NAME)))
    write_atomically(bundle / SIGNATURE_RECORD_NAME, encode_record(fingerprint(key.public_key()), content))
    path = bundle / SIGNATURE_NAME
    write_atomically(path, key.sign(content))
    return path


def verify_bundle(bundle: Path, public_keys: Path | Sequence[Path]) -> Manifest:
    """Check the signature of a bundle's manifest, every file that it lists, and the cubins of compiled kernels.

    Args:
        bundle: The folder.
        public_keys: Ed25519 public keys, PEM; one of them has to fit.

    Returns:
        The manifest that is vouched for.

    Raises:
        BundleError: The folder has no manifest, a file is not what the manifest says, or there are kernels
            that it does not list.
        SignatureError: There is no signature, it fits none of the keys, or a key cannot be read.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    keys = (public_keys,) if isinstance(public_keys, Path) else tuple(public_keys)
    content = _read(bundle / MANIFEST_NAME)
    _signature_files(bundle).verify(content, keys)
    manifest = Manifest.from_json(content, str(bundle / MANIFEST_NAME))
    _check_files(bundle, manifest)
    return manifest


def require_own_signature(bundle: Path, key_path: Path) -> None:
    """Before a signed bundle is changed and signed again: its signature has to be one of this key.

    Whoever signs what was changed since it was signed vouches for that change.

    Args:
        bundle: The folder; one without a signature passes.
        key_path: Ed25519 private key, PEM without a password.

    Raises:
        BundleError: The folder has no manifest.
        SignatureError: The signature does not fit, or the key cannot be read.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    key = read_private_key(key_path)
    files = _signature_files(bundle)
    if files.signature is None:
        return
    if not files.fits(key.public_key(), _read(bundle / MANIFEST_NAME)):
        raise SignatureError(
            f"{bundle} is signed, and its signature does not fit {key_path}: {MANIFEST_NAME} was changed after it was "
            f"signed, or another key signed it. Nothing is changed. Get the bundle again from where it was made; or, "
            f"if you know what was changed, remove {bundle / SIGNATURE_NAME} first"
        )


def _signature_files(bundle: Path) -> SignatureFiles:
    return SignatureFiles(bundle, *(_read_if_there(bundle / name) for name in (SIGNATURE_NAME, SIGNATURE_RECORD_NAME)))


def _read_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SignatureError(f"cannot read {path}: {error.strerror or error}") from error


def _check_files(bundle: Path, manifest: Manifest) -> None:
    for name, artefact in manifest.artefacts.items():
        if file_sha256(artefact_path(bundle, name)) != artefact.sha256:
            raise BundleError(f"{bundle / name} is not the file that the manifest describes; get the bundle again")
    check_kernels(bundle, manifest)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path.parent} is not a bundle: cannot read {path.name}: {error.strerror or error}"
        ) from error
