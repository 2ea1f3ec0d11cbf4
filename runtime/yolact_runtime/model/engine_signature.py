"""Signed bundles: an Ed25519 signature of ``manifest.json``, which holds the sha256 of every other file.

Of compiled kernels it holds that of their index, which holds those of the cubins. A hash beside a file finds accidents.
A signature also finds whoever can write the folder and has not the key: without it, nobody's engine or kernels should
be loaded from a place that others write to, because they are executable code.

The signature file holds the 64 bytes as they are, so that OpenSSL 3 makes and checks the same::

    openssl genpkey -algorithm ed25519 -out sign.pem
    openssl pkey -in sign.pem -pubout -out verify.pem
    openssl pkeyutl -verify -pubin -inkey verify.pem -rawin -in manifest.json -sigfile manifest.json.sig
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolact_plugins.files import write_atomically
from yolact_runtime.errors import BundleError, MissingDependencyError, SignatureError
from yolact_runtime.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, artefact_path, file_sha256
from yolact_runtime.model.kernel_folder import check_kernels
from yolact_runtime.model.manifest import Manifest

__all__ = ["require_own_signature", "sign_bundle", "verify_bundle"]

_NUM_BYTES = 64


def sign_bundle(bundle: Path, key_path: Path) -> Path:
    """Sign a bundle's manifest, once every file is what it says; an earlier signature is replaced.

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
    key = _read_key(key_path, private=True)
    content = _read(bundle / MANIFEST_NAME)
    _check_files(bundle, Manifest.from_json(content, str(bundle / MANIFEST_NAME)))
    path = bundle / SIGNATURE_NAME
    write_atomically(path, key.sign(content))
    return path


def verify_bundle(bundle: Path, public_key_path: Path) -> Manifest:
    """Check the signature of a bundle's manifest, every file that it lists, and the cubins of compiled kernels.

    Args:
        bundle: The folder.
        public_key_path: Ed25519 public key, PEM.

    Returns:
        The manifest that is vouched for.

    Raises:
        BundleError: The folder has no manifest, a file is not what the manifest says, or there are kernels
            that it does not list.
        SignatureError: There is no signature, it does not fit, or the key cannot be read.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    key = _read_key(public_key_path, private=False)
    content = _read(bundle / MANIFEST_NAME)
    if not _fits(key, bundle, content):
        raise SignatureError(
            f"the signature of {bundle / MANIFEST_NAME} does not fit: the manifest was changed after it was signed, or "
            f"{public_key_path} does not belong to the key that signed it. Do not run this bundle; get it again from "
            f"where it was made"
        )
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
    key = _read_key(key_path, private=True)
    if not (bundle / SIGNATURE_NAME).exists():
        return
    if not _fits(key.public_key(), bundle, _read(bundle / MANIFEST_NAME)):
        raise SignatureError(
            f"{bundle} is signed, and its signature does not fit {key_path}: {MANIFEST_NAME} was changed after it was "
            f"signed, or another key signed it. Nothing is changed. Get the bundle again from where it was made; or, "
            f"if you know what was changed, remove {bundle / SIGNATURE_NAME} first"
        )


def _fits(key: Any, bundle: Path, content: bytes) -> bool:
    """Whether the signature in a bundle is one of this content.

    Raises:
        SignatureError: There is none, or it is none.
    """
    try:
        signature = (bundle / SIGNATURE_NAME).read_bytes()
    except FileNotFoundError as error:
        raise SignatureError(
            f"{bundle} is not signed: it has no {SIGNATURE_NAME}. Sign it where it was made: yolact-export … --sign "
            f"KEY; a bundle changes, and loses its signature, when engines are built or kernels compiled into it"
        ) from error
    except OSError as error:
        raise SignatureError(f"cannot read {bundle / SIGNATURE_NAME}: {error.strerror or error}") from error
    if len(signature) != _NUM_BYTES:
        raise SignatureError(
            f"{bundle / SIGNATURE_NAME} is no signature: it has {len(signature)} bytes, not {_NUM_BYTES}; copy it again"
        )
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


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


def _read_key(path: Path, private: bool) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
    except ImportError as error:
        raise MissingDependencyError("cryptography", "Signing and verifying bundles", "sign") from error
    kind = "private" if private else "public"
    make = "openssl genpkey -algorithm ed25519 -out KEY" if private else "openssl pkey -in KEY -pubout -out PUBLIC_KEY"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SignatureError(f"cannot read the {kind} key {path}: {error.strerror or error}") from error
    wanted: Any = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    try:
        key = load_pem_private_key(content, password=None) if private else load_pem_public_key(content)
    except TypeError as error:
        raise SignatureError(
            f"the private key {path} has a password, which is not asked for here; use one without"
        ) from error
    except Exception as error:  # cryptography has several errors for what is no key, without a common base
        other = " (it is a private key, which does not belong on a robot)" if b"PRIVATE KEY" in content else ""
        raise SignatureError(f"{path} is no {kind} key in PEM form{other}; make one: {make}") from error
    if not isinstance(key, wanted):
        raise SignatureError(f"{path} is a {kind} key, but not of Ed25519; make one: {make}")
    return key
