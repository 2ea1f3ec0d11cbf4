"""Ed25519 keys of signed bundles: read from PEM files, and named by a fingerprint that needs no key to be compared.

Reading keys takes the package ``cryptography``; without it nothing is verified, and nothing passes for it.
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
"""Environment variable: public keys, one of which has to fit every bundle that is opened to run."""
_MAX_BYTES = 1 << 16
_BLOCK = re.compile(rb"^-----BEGIN (?:[A-Z]+ )*(?:PUBLIC|PRIVATE) KEY-----", re.MULTILINE)
_MAKE_PRIVATE = "openssl genpkey -algorithm ed25519 -out KEY"
_MAKE_PUBLIC = "openssl pkey -in KEY -pubout -out PUBLIC_KEY"


def public_keys_required() -> tuple[Path, ...]:
    """The public keys that ``YOLACT_REQUIRE_SIGNATURE`` names, separated as in ``PATH``; none where it is not set.

    Raises:
        SignatureError: It is set and names nothing, or has an empty name or a relative path in it.
    """
    text = os.environ.get(REQUIRE_VARIABLE)
    if text is None:
        return ()
    names = text.split(os.pathsep)
    if not all(name.strip() for name in names):
        raise SignatureError(
            f'{REQUIRE_VARIABLE} is set, and there is an empty name in "{text}": name a public key, several with '
            f"{os.pathsep} between them, or unset it to run what nobody signed"
        )
    if relative := next((name for name in names if not Path(name).is_absolute()), None):
        raise SignatureError(
            f'{REQUIRE_VARIABLE} names "{relative}", which is another file in every folder that a program is started '
            f"in; write its whole path, from / on"
        )
    return tuple(Path(name) for name in names)


def key_paths(keys: Path | str | Sequence[Path | str] | None) -> tuple[Path, ...]:
    """The keys that one has to fit: those of a caller, or those of the environment; none where neither says any.

    Keys of a caller do not set aside those of the environment: a robot that has to run what one of them signed does not
    run what another one signed.

    Args:
        keys: One public key, several, or None.

    Raises:
        SignatureError: `keys` is an empty sequence or holds an empty name; or see :func:`public_keys_required`; or
            a caller's key is none of those of the environment.
    """
    required = public_keys_required()
    if keys is None:
        return required
    named = [keys] if isinstance(keys, str | Path) else list(keys)
    if not named or any(str(name) == "" for name in named):
        raise SignatureError("verify_key names no key: give a public key in PEM form, or None to look at no signature")
    paths = tuple(Path(name) for name in named)
    if not required:
        return paths
    allowed = {fingerprint(read_public_key(path)) for path in required}
    both = tuple(path for path in paths if fingerprint(read_public_key(path)) in allowed)
    if not both:
        raise SignatureError(
            f"{', '.join(map(str, paths))} is none of the keys that {REQUIRE_VARIABLE} names "
            f"({', '.join(map(str, required))}), and this machine runs only what one of those signed: name one of them"
        )
    return both


def read_private_key(path: Path) -> Any:
    """An ``Ed25519PrivateKey``.

    Raises:
        SignatureError: The file cannot be read, or is no private key of Ed25519 in PEM form without a password.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    require_cryptography()
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path, "private")
    if b"ENCRYPTED" in content:
        raise SignatureError(f"the private key {path} has a password, which is not asked for here; use one without")
    try:
        key = load_pem_private_key(content, password=None)
    except Exception as error:  # cryptography has several errors for what is no key, without a common base
        raise _no_key(path, content, "private") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SignatureError(f"{path} is a private key, but not of Ed25519; make one: {_MAKE_PRIVATE}")
    return key


def read_public_key(path: Path) -> Any:
    """An ``Ed25519PublicKey``.

    Raises:
        SignatureError: The file cannot be read, or is no public key of Ed25519 in PEM form.
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
    """``SHA256:`` and the hexadecimal SHA-256 of the public key's DER form (``SubjectPublicKeyInfo``).

    OpenSSL prints the same: ``openssl pkey -pubin -in KEY -outform DER | sha256sum``.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"SHA256:{hashlib.sha256(der).hexdigest()}"


def signature_fits(public_key: Any, signature: bytes, content: bytes) -> bool:
    """Whether a signature is one of this content by this key."""
    from cryptography.exceptions import InvalidSignature

    try:
        public_key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def require_cryptography() -> None:
    """Refuse to go on without the package that verifies.

    Raises:
        MissingDependencyError: It is not installed.
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
        raise SignatureError(f"{path} is longer than {_MAX_BYTES >> 10} KiB: it is no {kind} key; make one: {make}")
    if len(_BLOCK.findall(content)) > 1:
        raise SignatureError(f"{path} holds more than one key, and only the first would count: give each its own file")
    return content


def _no_key(path: Path, content: bytes, kind: str) -> SignatureError:
    """What is wrong with a file that should be a key."""
    if kind == "public" and b"PRIVATE KEY" in content:
        return SignatureError(
            f"{path} is no public key in PEM form (it is a private key, which does not belong on a robot); its "
            f"public key: openssl pkey -in {shlex.quote(str(path))} -pubout -out "
            f"{shlex.quote(str(path.with_suffix('.pub')))}"
        )
    if kind == "private" and b"PUBLIC KEY" in content:
        return SignatureError(
            f"{path} is no private key in PEM form (it is a public key, which signs nothing); name the private key "
            f"that it belongs to"
        )
    if content[:1] == b"\x30":
        form, out = ("-inform DER", "-out") if kind == "private" else ("-pubin -inform DER", "-pubout -out")
        return SignatureError(
            f"{path} is no {kind} key in PEM form; it may be one in DER form: "
            f"openssl pkey {form} -in {shlex.quote(str(path))} {out} KEY.pem"
        )
    make = _MAKE_PRIVATE if kind == "private" else _MAKE_PUBLIC
    return SignatureError(f"{path} is no {kind} key in PEM form; make one: {make}")
