"""Pairs of Ed25519 keys, and files that are not valid keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

__all__ = ["write_keys"]


def write_keys(folder: Path, key: Any = None, password: bytes | None = None) -> tuple[Path, Path]:
    """Write a private and a public key to PEM files and return their paths.

    Args:
        folder: Folder to write to; it is created if missing.
        key: Private key; None generates one of Ed25519.
        password: Password of the private key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = key or Ed25519PrivateKey.generate()
    private, public = folder / "sign.pem", folder / "verify.pem"
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public
