"""Keys: what is one, what is none, and which of them a machine requires."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import Thing, write_bundle
from support.signing_keys import write_keys
from yolact_runtime import Segmenter
from yolact_runtime.errors import MissingDependencyError, SignatureError
from yolact_runtime.model.bundle_signature import sign_bundle, verify_bundle
from yolact_runtime.model.signing_keys import (
    fingerprint,
    key_paths,
    public_keys_required,
    read_private_key,
    read_public_key,
)


def _write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "key"
    path.write_bytes(content)
    return path


def _der(tmp_path: Path, public: bool) -> bytes:
    key = read_private_key(write_keys(tmp_path / "of-der")[0])
    if public:
        return bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


ODD_PUBLIC: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda t: t / "missing", "cannot read the public key .*missing: No such file"),
    "a folder": (lambda t: t, "cannot read the public key .*: Is a directory"),
    "empty": (lambda t: _write(t, b""), "the public key .* is empty; make one: openssl pkey -in KEY -pubout"),
    "text": (lambda t: _write(t, b"my key"), "is not a public key in PEM form; make one: openssl pkey"),
    "cut off": (
        lambda t: _write(t, write_keys(t / "k")[1].read_bytes()[:60]),
        "is not a public key in PEM form; make one: openssl pkey",
    ),
    "private": (
        lambda t: write_keys(t / "k k")[0],
        r"is a private key, which does not belong on a robot\); its public key: "
        r"openssl pkey -in '.*/k k/sign\.pem' -pubout -out '.*/k k/sign\.pub'$",
    ),
    "private with a password": (
        lambda t: write_keys(t / "k", password=b"secret")[0],
        "is a private key, which does not belong on a robot",
    ),
    "elliptic curve": (
        lambda t: write_keys(t / "k", ec.generate_private_key(ec.SECP256R1()))[1],
        "is a public key, but not of Ed25519; make one: openssl pkey",
    ),
    "RSA": (
        lambda t: write_keys(t / "k", rsa.generate_private_key(65537, 2048))[1],
        "is a public key, but not of Ed25519; make one: openssl pkey",
    ),
    "DER": (
        lambda t: _write(t, _der(t, public=True)),
        "it may be one in DER form: openssl pkey -pubin -inform DER -in .* -pubout -out KEY.pem",
    ),
    "long": (lambda t: _write(t, b"-----BEGIN" * 10_000), "is longer than 64 KiB: it is not a public key"),
    "OpenSSH": (
        lambda t: _write(t, b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@there"),
        "is not a public key in PEM form",
    ),
    "two keys": (
        lambda t: _write(t, b"".join(write_keys(t / name)[1].read_bytes() for name in "ab")),
        "contains more than one key, and only the first would count: put each into its own file",
    ),
    "a NUL in its name": (lambda t: t / "a\0b", "cannot read the public key .*: .*embedded null (byte|character)"),
}
ODD_PRIVATE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda t: t / "missing", "cannot read the private key .*missing: No such file"),
    "a folder": (lambda t: t, "cannot read the private key .*: Is a directory"),
    "empty": (lambda t: _write(t, b""), "the private key .* is empty; make one: openssl genpkey"),
    "text": (lambda t: _write(t, b"my key"), "is not a private key in PEM form; make one: openssl genpkey"),
    "public": (lambda t: write_keys(t / "k")[1], r"is a public key, which signs nothing\); name the private key"),
    "password": (lambda t: write_keys(t / "k", password=b"secret")[0], "has a password, which is not supported"),
    "elliptic curve": (
        lambda t: write_keys(t / "k", ec.generate_private_key(ec.SECP256R1()))[0],
        "is a private key, but not of Ed25519",
    ),
    "DER": (
        lambda t: _write(t, _der(t, public=False)),
        "it may be one in DER form: openssl pkey -inform DER -in .* -out KEY.pem",
    ),
}


@pytest.mark.parametrize("odd", ODD_PUBLIC)
def test_public_keys_that_are_none(tmp_path: Path, odd: str) -> None:
    make, message = ODD_PUBLIC[odd]
    with pytest.raises(SignatureError, match=message):
        read_public_key(make(tmp_path))


@pytest.mark.parametrize("odd", ODD_PRIVATE)
def test_private_keys_that_are_none(tmp_path: Path, odd: str) -> None:
    make, message = ODD_PRIVATE[odd]
    with pytest.raises(SignatureError, match=message):
        read_private_key(make(tmp_path))


def test_keys_that_went_through_an_editor_on_windows(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    expected = fingerprint(read_public_key(public))
    for path in (private, public):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert fingerprint(read_public_key(public)) == fingerprint(read_private_key(private).public_key()) == expected


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 2**31))
def test_no_file_is_taken_for_a_key_or_ends_in_anything_else(tmp_path: Path, inserted: bytes, place: int) -> None:
    private, public = write_keys(tmp_path)
    expected = fingerprint(read_public_key(public))
    content = public.read_bytes()
    place %= len(content)
    public.write_bytes(content[:place] + inserted + content[place:])
    try:
        # Text around the block of a key belongs to PEM.
        assert fingerprint(read_public_key(public)) == expected
    except SignatureError as error:
        assert str(public) in str(error)  # noqa: PT017 - either may happen
    del private


# --- what a machine requires ------------------------------------------------------------------------------------------


def test_keys_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, one), (_, two) = write_keys(tmp_path / "1"), write_keys(tmp_path / "2")
    monkeypatch.delenv("YOLACT_REQUIRE_SIGNATURE", raising=False)
    assert public_keys_required() == key_paths(None) == ()
    assert key_paths(str(one)) == key_paths(one) == key_paths([one]) == (one,)
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(one))
    assert public_keys_required() == key_paths(None) == (one,)
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", f"{one}{os.pathsep}{two}")
    assert key_paths(None) == (one, two)
    # A caller chooses among them, and adds none.
    third = write_keys(tmp_path / "3")[1]
    assert key_paths([third, two]) == (two,)
    with pytest.raises(
        SignatureError, match=r"3.verify\.pem is not among the keys that YOLACT_REQUIRE_SIGNATURE names"
    ):
        key_paths(third)


@pytest.mark.parametrize("value", ["", " ", ":", "/key:", ":/key", "/a::/b"])
def test_an_empty_name_in_the_environment_is_a_mistake(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", value)
    for ask in (public_keys_required, lambda: key_paths(None), lambda: Segmenter.open("no.bundle")):
        with pytest.raises(SignatureError, match="YOLACT_REQUIRE_SIGNATURE is set, and there is an empty name in"):
            ask()


@pytest.mark.parametrize("value", ["key.pub", "/etc/key.pub:key.pub", "./key.pub", " /etc/key.pub"])
def test_a_key_of_the_environment_is_the_same_in_every_folder(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or who can put a file where a robot is started decides what it runs."""
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", value)
    for ask in (public_keys_required, lambda: key_paths(None), lambda: Segmenter.open("no.bundle")):
        with pytest.raises(SignatureError, match="another file in every folder that a program is started in"):
            ask()


@pytest.mark.parametrize("keys", [[], "", [""], ()])
def test_a_caller_who_names_no_key(keys: Any) -> None:
    with pytest.raises(SignatureError, match="verify_key names no key"):
        Segmenter.open("no.bundle", verify_key=keys)


# --- without the package ----------------------------------------------------------------------------------------------


@pytest.fixture
def without_cryptography(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name.startswith("cryptography"):
            raise ModuleNotFoundError(name)
        return original(name, *arguments)

    return lambda: monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_the_package_nothing_is_signed_or_verified(
    tmp_path: Path, without_cryptography: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_bundle(tmp_path / "b", [Thing((0.25, 0.25, 0.75, 0.75))])
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    without_cryptography()
    message = r'pip install "yolact-deploy\[sign\]".*apt install python3-cryptography'
    for work in (
        lambda: sign_bundle(bundle, private),
        lambda: verify_bundle(bundle, public),
        lambda: Segmenter.open(bundle, verify_key=public),
    ):
        with pytest.raises(MissingDependencyError, match=message):
            work()
    # Not even a look at the digest needs it.
    Segmenter.open(bundle, "onnxruntime-cpu").close()
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(public))
    with pytest.raises(MissingDependencyError, match=message):
        Segmenter.open(bundle)


def test_opening_a_signed_bundle_does_not_import_the_package(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", [Thing((0.25, 0.25, 0.75, 0.75))])
    sign_bundle(bundle, write_keys(tmp_path / "keys")[0])
    code = (
        "import sys; from yolact_runtime import open_bundle; open_bundle(sys.argv[1]); "
        "sys.exit('cryptography' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(bundle)], check=True, capture_output=True)
