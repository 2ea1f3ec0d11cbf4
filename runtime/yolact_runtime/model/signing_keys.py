"""Ed25519 keys of signed bundles, read from PEM files and identified by fingerprint.

Reading keys requires the package ``cryptography``; without it nothing is verified, and nothing counts as verified.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolact_runtime.errors import MissingDependencyError, SignatureError

__all__ = [
    "REQUIRE_VARIABLE",
    "fingerprint",
    "key_paths",
    "public_keys_required",
    "read_private_key",
    "read_public_key",
    "require_cryptography",
    "signature_fits",
]

REQUIRE_VARIABLE = "YOLACT_REQUIRE_SIGNATURE"
"""Environment variable with public keys, one of which must fit every bundle that is opened to run."""
_MAX_BYTES = 1 << 16
_BLOCK = re.compile(rb"^-----BEGIN (?:[A-Z]+ )*(?:PUBLIC|PRIVATE) KEY-----", re.MULTILINE)
_MAKE_PRIVATE = "openssl genpkey -algorithm ed25519 -out KEY"
_MAKE_PUBLIC = "openssl pkey -in KEY -pubout -out PUBLIC_KEY"


def public_keys_required() -> tuple[Path, ...]:
    """Return the public keys in ``YOLACT_REQUIRE_SIGNATURE``, separated as in ``PATH``; none if it is not set.

    Raises:
        SignatureError: The variable is set but empty, or contains an empty name or a relative path.
    """
    text = os.environ.get(REQUIRE_VARIABLE)
    if text is None:
        return ()
    names = text.split(os.pathsep)
    if not all(name.strip() for name in names):
        raise SignatureError(
            f'{REQUIRE_VARIABLE} is set, and there is an empty name in "{text}": name a public key, several with '
            f"{os.pathsep} between them, or unset it to run unsigned bundles"
        )
    if relative := next((name for name in names if not Path(name).is_absolute()), None):
        raise SignatureError(
            f'{REQUIRE_VARIABLE} names "{relative}", which is another file in every folder that a program is started '
            f"in; write its whole path, from / on"
        )
    return tuple(Path(name) for name in names)


def key_paths(keys: Path | str | Sequence[Path | str] | None) -> tuple[Path, ...]:
    """Return the keys to verify with, from the caller or else from the environment; none if neither has any.

    A caller's keys do not override those of the environment: a robot that must run only what one of them signed does
    not run what another key signed.

    Args:
        keys: One public key, several, or None.

    Raises:
        SignatureError: The sequence is empty or has an empty name; a caller's key is not one of those of the
            environment; or the same as for :func:`public_keys_required`.
    """
    required = public_keys_required()
    if keys is None:
        return required
    named = [keys] if isinstance(keys, str | Path) else list(keys)
    if not named or any(str(name) == "" for name in named):
        raise SignatureError("verify_key names no key: give a public key in PEM form, or None to check no signature")
    paths = tuple(Path(name) for name in named)
    if not required:
        return paths
    allowed = {fingerprint(read_public_key(path)) for path in required}
    both = tuple(path for path in paths if fingerprint(read_public_key(path)) in allowed)
    if not both:
        raise SignatureError(
            f"{', '.join(map(str, paths))} is not among the keys that {REQUIRE_VARIABLE} names "
            f"({', '.join(map(str, required))}), and this machine runs only what one of those signed: name one of them"
        )
    return both


def read_private_key(path: Path) -> Any:
    """Read an ``Ed25519PrivateKey``.

    Raises:
        SignatureError: The file cannot be read, or is not an Ed25519 private key in PEM form without a password.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    require_cryptography()
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path, "private")
    if b"ENCRYPTED" in content:
        raise SignatureError(f"the private key {path} has a password, which is not supported; use one without")
    try:
        key = load_pem_private_key(content, password=None)
    except Exception as error:  # cryptography has several errors for invalid keys, without a common base
        raise _no_key(path, content, "private") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SignatureError(f"{path} is a private key, but not of Ed25519; make one: {_MAKE_PRIVATE}")
    return key


def read_public_key(path: Path) -> Any:
    """Read an ``Ed25519PublicKey``.

    Raises:
        SignatureError: The file cannot be read, or is not an Ed25519 public key in PEM form.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    require_cryptography()
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path, "public")
    try:
        key = load_pem_public_key(content)
    except Exception as error:  # as above
        raise _no_key(path, content, "public") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise SignatureError(f"{path} is a public key, but not of Ed25519; make one: {_MAKE_PUBLIC}")
    return key


def fingerprint(public_key: Any) -> str:
    """Return ``SHA256:`` and the hexadecimal SHA-256 of the public key's DER form (``SubjectPublicKeyInfo``).

    OpenSSL prints the same: ``openssl pkey -pubin -in KEY -outform DER | sha256sum``.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"SHA256:{hashlib.sha256(der).hexdigest()}"


def signature_fits(public_key: Any, signature: bytes, content: bytes) -> bool:
    """Return whether a signature of the content was made with this key."""
    from cryptography.exceptions import InvalidSignature

    try:
        public_key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def require_cryptography() -> None:
    """Raise an error unless the package for verification is installed.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: F401 - the other functions use it
    except ImportError as error:
        raise MissingDependencyError(
            "cryptography", "Signing and verifying bundles", "sign", distribution="python3-cryptography"
        ) from error


def _read(path: Path, kind: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SignatureError(f"cannot read the {kind} key {path}: {reason}") from error
    make = _MAKE_PRIVATE if kind == "private" else _MAKE_PUBLIC
    if not content:
        raise SignatureError(f"the {kind} key {path} is empty; make one: {make}")
    if len(content) > _MAX_BYTES:
        raise SignatureError(f"{path} is longer than {_MAX_BYTES >> 10} KiB: it is not a {kind} key; make one: {make}")
    if len(_BLOCK.findall(content)) > 1:
        raise SignatureError(
            f"{path} contains more than one key, and only the first would count: put each into its own file"
        )
    return content


def _no_key(path: Path, content: bytes, kind: str) -> SignatureError:
    """Explain what is wrong with a file that should be a key."""
    if kind == "public" and b"PRIVATE KEY" in content:
        return SignatureError(
            f"{path} is not a public key in PEM form (it is a private key, which does not belong on a robot); its "
            f"public key: openssl pkey -in {shlex.quote(str(path))} -pubout -out "
            f"{shlex.quote(str(path.with_suffix('.pub')))}"
        )
    if kind == "private" and b"PUBLIC KEY" in content:
        return SignatureError(
            f"{path} is not a private key in PEM form (it is a public key, which signs nothing); name the private key "
            f"that it belongs to"
        )
    if content[:1] == b"\x30":
        form, out = ("-inform DER", "-out") if kind == "private" else ("-pubin -inform DER", "-pubout -out")
        return SignatureError(
            f"{path} is not a {kind} key in PEM form; it may be one in DER form: "
            f"openssl pkey {form} -in {shlex.quote(str(path))} {out} KEY.pem"
        )
    make = _MAKE_PRIVATE if kind == "private" else _MAKE_PUBLIC
    return SignatureError(f"{path} is not a {kind} key in PEM form; make one: {make}")
