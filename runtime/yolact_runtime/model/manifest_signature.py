"""The two signature files beside ``manifest.json``, and their comparison with its bytes.

``manifest.json.sig`` is the signature: 64 bytes of Ed25519. ``signature.json`` names the key's fingerprint and the
manifest's SHA-256, and is read without ``cryptography``: a manifest that was changed after signing is rejected even
without a key. That detects accidents and protects against nothing else: anyone who can change the manifest can also
change the digest, or remove both files.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from yolact_plugins.compile.manifest_entry import SIGNATURE_NAME, SIGNATURE_RECORD_NAME
from yolact_plugins.text import decode_json
from yolact_runtime.errors import SignatureError, TextError
from yolact_runtime.model.signing_keys import fingerprint, read_public_key, require_cryptography, signature_fits

__all__ = ["SIGNATURE_NAME", "SIGNATURE_RECORD_NAME", "SignatureFiles", "encode_record"]

MAX_SIGNATURE_BYTES = 1 << 16
"""Maximum size in bytes of each of the two files."""
_NUM_BYTES = 64
_FORMAT, _ALGORITHM = 1, "ed25519"


def encode_record(key_fingerprint: str, manifest: bytes) -> bytes:
    """Create the content of ``signature.json``.

    Args:
        key_fingerprint: Fingerprint of the public key; see :func:`yolact_runtime.model.signing_keys.fingerprint`.
        manifest: Bytes of ``manifest.json``.
    """
    document = {
        "format_version": _FORMAT,
        "algorithm": _ALGORITHM,
        "key_fingerprint": key_fingerprint,
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


class SignatureFiles(NamedTuple):
    """The signature files beside a manifest.

    Attributes:
        folder: The bundle's folder, for messages.
        signature: Content of ``manifest.json.sig``; None if it does not exist.
        record: Content of ``signature.json``; None if it does not exist, as in bundles of earlier releases.
    """

    folder: Path
    signature: bytes | None
    record: bytes | None

    def check_digest(self, manifest: bytes) -> None:
        """Compare a manifest with the digest from its signing, which detects accidental changes only.

        An unsigned bundle passes, and so does one that an earlier release signed, which has no digest.

        Args:
            manifest: Bytes of ``manifest.json``.

        Raises:
            SignatureError: The digests differ, or ``signature.json`` is invalid.
        """
        if self.signature is None or self.record is None:
            return
        found = hashlib.sha256(manifest).hexdigest()
        expected = self._digest(self.record)
        if found != expected:
            raise SignatureError(
                f"{self.folder} is signed, and its manifest.json is not the one that was signed: sha256 {found[:12]}…, "
                f"signed was {expected[:12]}…. Get the bundle again from where it was made; or, if you know what was "
                f"changed, sign it again: yolact-export {shlex.quote(str(self.folder))} --sign KEY --drop-signature; "
                f"or remove {SIGNATURE_NAME} and {SIGNATURE_RECORD_NAME}"
            )

    def verify(self, manifest: bytes, public_keys: Sequence[Path]) -> str:
        """Verify the signature of a manifest.

        Args:
            manifest: Bytes of ``manifest.json``.
            public_keys: Ed25519 public keys (PEM files), one of which must fit.

        Returns:
            Fingerprint of the key that fits.

        Raises:
            SignatureError: There is no signature, none of the keys fits, a key cannot be read, or ``signature.json``
                contradicts the signature.
            MissingDependencyError: The package ``cryptography`` is not installed.
        """
        require_cryptography()
        if not public_keys:
            raise SignatureError(f"no key was given to verify {self.folder}")
        # All keys are read first: an unreadable key is a mistake even if another one fits.
        keys = [read_public_key(path) for path in public_keys]
        signature = self._require_signature()
        fitting = next((key for key in keys if signature_fits(key, signature, manifest)), None)
        if fitting is None:
            shown = " or ".join(map(str, public_keys))
            raise SignatureError(
                f"the signature of {self.folder / 'manifest.json'} does not fit: the manifest was changed after it was "
                f"signed, or {shown} does not belong to the key that signed it. Do not run this bundle; get "
                f"it again from where it was made{self._signer()}"
            )
        found = fingerprint(fitting)
        if self.record is not None and self.record != encode_record(found, manifest):
            raise SignatureError(
                f"{self.folder / SIGNATURE_RECORD_NAME} does not belong to the signature beside it: it was changed. "
                f"Get the bundle again from where it was made"
            )
        return found

    def fits(self, public_key: object, manifest: bytes) -> bool:
        """Return whether an ``Ed25519PublicKey`` verifies the signature of a manifest.

        Raises:
            SignatureError: The signature is missing or malformed.
        """
        return signature_fits(public_key, self._require_signature(), manifest)

    def _require_signature(self) -> bytes:
        if self.signature is None:
            raise SignatureError(
                f"{self.folder} is not signed: it has no {SIGNATURE_NAME}. Sign it where it was made: "
                f"yolact-export {shlex.quote(str(self.folder))} --sign KEY. Engines and kernels that are added with "
                f"--drop-signature leave it unsigned"
            )
        if len(self.signature) != _NUM_BYTES:
            raise SignatureError(
                f"{self.folder / SIGNATURE_NAME} is not a signature: it has {len(self.signature)} bytes, not "
                f"{_NUM_BYTES}; copy it again"
            )
        return self.signature

    def _signer(self) -> str:
        """Return the signer that the record claims, if it can be read."""
        try:
            document = decode_json(self.record or b"", SIGNATURE_RECORD_NAME)
        except TextError:
            return ""
        claimed = document.get("key_fingerprint") if isinstance(document, dict) else None
        if not isinstance(claimed, str) or not claimed.removeprefix("SHA256:").isalnum() or not claimed.isascii():
            return ""
        return f" ({SIGNATURE_RECORD_NAME} names the key {claimed[:71]})"

    def _digest(self, record: bytes) -> str:
        path = self.folder / SIGNATURE_RECORD_NAME
        try:
            document = decode_json(record, str(path))
        except TextError as error:
            raise SignatureError(f"{error}; get the bundle again, or sign it again") from error
        if not isinstance(document, dict):
            raise SignatureError(f"{path} is not a JSON object; get the bundle again, or sign it again")
        if document.get("format_version") != _FORMAT or document.get("algorithm") != _ALGORITHM:
            raise SignatureError(
                f"{path} has a format that this release does not support (format_version {_FORMAT}, algorithm "
                f"{_ALGORITHM}): install the release that signed it, or sign it again"
            )
        digest = document.get("manifest_sha256")
        if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise SignatureError(f"{path} has no SHA-256 of a manifest; get the bundle again, or sign it again")
        return digest
