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
    """Sign a bundle's manifest, once every file is what it says; an earlier signature is replaced.

    ``signature.json`` is written beside it, and before it: whoever is stopped in between leaves no signature, or one
    that does not fit. The bundle is locked meanwhile, so nobody changes or replaces what is being signed.

    Args:
        bundle: The folder.
        key_path: Ed25519 private key, PEM without a password.
        expected: The manifest that the signer means; None signs what is there.

    Returns:
        The signature file.

    Raises:
        BundleError: The folder has no manifest, a file is not what the manifest says, or there are kernels
            that it does not list.
        SignatureError: The key cannot be read, or the manifest is not the one that is `expected`.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    key = read_private_key(key_path)
    with _locked(bundle), BundleFolder(bundle, any_digest=True) as folder:
        if expected is not None and folder.manifest != expected:
            raise SignatureError(
                f"{bundle} was changed by somebody else meanwhile, and is not signed: that change is not vouched for. "
                f"If you know what it was: yolact-export {shlex.quote(str(bundle))} --sign KEY"
            )
        _check_files(folder)
        write_atomically(bundle / SIGNATURE_RECORD_NAME, encode_record(fingerprint(key.public_key()), folder.content))
        write_atomically(bundle / SIGNATURE_NAME, key.sign(folder.content))
    return bundle / SIGNATURE_NAME


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

    if not keys:
        raise SignatureError(f"no key was given to verify {bundle} with")

    def verify() -> Manifest:
        with BundleFolder(bundle, keys) as folder:
            _check_files(folder)
            return folder.manifest

    return read_whole(bundle, WATCHED, verify)


def require_own_signature(bundle: Path, key_path: Path) -> Manifest:
    """Before a signed bundle is changed and signed again: its signature has to be one of this key.

    Whoever signs what was changed since it was signed vouches for that change.

    Args:
        bundle: The folder; one without a signature passes.
        key_path: Ed25519 private key, PEM without a password.

    Returns:
        The manifest.

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
        f"--drop-signature, and this signature is not looked at"
    )


@contextmanager
def _locked(bundle: Path) -> Iterator[None]:
    """The bundle, held; where there is none, opening it says so."""
    with ExitStack() as held:
        with suppress(FileNotFoundError, NotADirectoryError):
            held.enter_context(locked_folder(bundle))
        yield


def _check_files(folder: BundleFolder) -> None:
    for name in folder.manifest.artefacts:
        folder.check(name)
    check_kernels(folder.path, folder.manifest)
