"""Signed bundles."""

from __future__ import annotations

import builtins
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from support.precompiled import made_up_cubin, with_kernels
from support.scenes import Thing, write_bundle
from support.tools import require_tool, tool_is_missing
from yolact_plugins.compile.cubin_folder import write_cubins
from yolact_runtime.errors import BundleError, MissingDependencyError, SignatureError
from yolact_runtime.model.bundle import MANIFEST_NAME, SIGNATURE_NAME
from yolact_runtime.model.bundle_signature import require_own_signature, sign_bundle, verify_bundle


def write_keys(folder: Path, key: Any = None, password: bytes | None = None) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    key = key or Ed25519PrivateKey.generate()
    private, public = folder / "sign.pem", folder / "verify.pem"
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b", [Thing((0.25, 0.25, 0.75, 0.75))])


def test_what_was_signed_is_verified(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    assert sign_bundle(bundle, private) == bundle / SIGNATURE_NAME
    assert (bundle / SIGNATURE_NAME).stat().st_size == 64
    assert verify_bundle(bundle, public).artefacts.keys() == {"model.fp32.onnx"}


def test_openssl_understands_the_signature(bundle: Path, tmp_path: Path) -> None:
    openssl = require_tool("openssl")
    if "OpenSSL 3" not in subprocess.run([openssl, "version"], capture_output=True, text=True).stdout:
        tool_is_missing("needs openssl of version 3")
    private, public = write_keys(tmp_path / "keys")
    command = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    command += ["-in", str(bundle / MANIFEST_NAME), "-sigfile", str(sign_bundle(bundle, private))]
    subprocess.run(command, check=True, capture_output=True)


def test_before_a_bundle_is_signed_again_its_signature_has_to_be_ones_own(bundle: Path, tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path / "keys")
    require_own_signature(bundle, private)  # there is none
    sign_bundle(bundle, private)
    require_own_signature(bundle, private)
    with pytest.raises(SignatureError, match=r"another key signed it\. Nothing is changed"):
        require_own_signature(bundle, write_keys(tmp_path / "other")[0])
    manifest = bundle / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace("bird", "brid"))
    with pytest.raises(SignatureError, match=r"changed after it was signed.*remove .*manifest.json.sig first"):
        require_own_signature(bundle, private)


def test_another_key(bundle: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, write_keys(tmp_path / "mine")[0])
    with pytest.raises(
        SignatureError, match=r"does not fit: .* does not belong to the key that signed it\. Do not run"
    ):
        verify_bundle(bundle, write_keys(tmp_path / "theirs")[1])


def test_a_manifest_that_was_changed(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    path = bundle / MANIFEST_NAME
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        verify_bundle(bundle, public)


def test_a_file_that_was_changed(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    (bundle / "model.fp32.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx is not the file that the manifest describes"):
        verify_bundle(bundle, public)
    with pytest.raises(BundleError, match="is not the file"):
        sign_bundle(bundle, private)


def test_kernels_are_vouched_for(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    with_kernels(bundle, "sm_87", "sm_90")
    sign_bundle(bundle, private)
    assert "cubins/cubins.json" in verify_bundle(bundle, public).artefacts
    # Never read, so nothing needs to vouch for it.
    (bundle / "cubins" / "stray.cubin").write_bytes(b"evil")
    verify_bundle(bundle, public)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cubin", r"\.cubin is not the file that .*cubins\.json describes"),
        ("no cubin", r"\.cubin is missing"),
        ("index", r"cubins\.json is not the file that the manifest describes"),
        ("no index", r"is incomplete: cubins/cubins\.json is missing"),
        ("all", r"cubins\.json is not the file that the manifest describes"),
    ],
)
def test_kernels_that_were_changed(bundle: Path, tmp_path: Path, change: str, message: str) -> None:
    private, public = write_keys(tmp_path / "keys")
    index = with_kernels(bundle, "sm_87", "sm_90")
    sign_bundle(bundle, private)
    cubin = max(index.parent.glob("*.cubin"))
    if change == "all":
        # Index and cubins fit each other: only the manifest can tell.
        write_cubins(index.parent, [made_up_cubin("sm_87", b"evil")], prune=True)
    elif change.startswith("no "):
        (index if change == "no index" else cubin).unlink()
    else:
        path = index if change == "index" else cubin
        path.write_bytes(path.read_bytes() + b" ")
    for work, key in ((verify_bundle, public), (sign_bundle, private)):
        with pytest.raises(BundleError, match=message):
            work(bundle, key)


def test_kernels_that_the_manifest_does_not_list(bundle: Path, tmp_path: Path) -> None:
    """A robot would refuse them: better said before it is signed, and when the signature is checked."""
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    write_cubins(bundle / "cubins", [made_up_cubin("sm_87")])
    for work, key in ((verify_bundle, public), (sign_bundle, private)):
        with pytest.raises(BundleError, match=r"cubins is not listed .*python -m yolact_plugins\.compile --arch"):
            work(bundle, key)


def test_no_signature(bundle: Path, tmp_path: Path) -> None:
    _, public = write_keys(tmp_path / "keys")
    with pytest.raises(SignatureError, match=r"is not signed: it has no manifest\.json\.sig\. Sign it"):
        verify_bundle(bundle, public)


def test_a_signature_that_is_none(bundle: Path, tmp_path: Path) -> None:
    _, public = write_keys(tmp_path / "keys")
    (bundle / SIGNATURE_NAME).write_bytes(b"short")
    with pytest.raises(SignatureError, match="is no signature: it has 5 bytes, not 64"):
        verify_bundle(bundle, public)


def test_no_bundle(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    for work, key in ((sign_bundle, private), (verify_bundle, public)):
        with pytest.raises(BundleError, match=r"is not a bundle: cannot read manifest\.json"):
            work(tmp_path / "nothing", key)


def test_keys_that_are_none(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    other_private, other_public = write_keys(tmp_path / "ec", ec.generate_private_key(ec.SECP256R1()))
    locked, _ = write_keys(tmp_path / "locked", password=b"secret")
    text = tmp_path / "key.txt"
    text.write_text("my key")
    for work, key, message in (
        (sign_bundle, tmp_path / "missing", "cannot read the private key"),
        (sign_bundle, text, r"is no private key in PEM form; make one: openssl genpkey"),
        (sign_bundle, public, "is no private key in PEM form"),
        (sign_bundle, other_private, "but not of Ed25519"),
        (sign_bundle, locked, "has a password"),
        (verify_bundle, private, "is a private key, which does not belong on a robot.; make one: openssl pkey"),
        (verify_bundle, other_public, "but not of Ed25519"),
    ):
        with pytest.raises(SignatureError, match=message):
            work(bundle, key)


def test_without_the_package(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, _ = write_keys(tmp_path / "keys")
    original = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name.startswith("cryptography"):
            raise ModuleNotFoundError(name)
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r'pip install "yolact-deploy\[sign\]"'):
        sign_bundle(bundle, private)
