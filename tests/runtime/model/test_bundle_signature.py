"""Signed bundles."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from support.fake_tensorrt import add_engine
from support.precompiled import made_up_cubin, with_kernels
from support.properties import examples
from support.scenes import Thing, write_bundle
from support.signing_keys import write_keys
from support.tools import require_tool, tool_is_missing
from yolact_plugins.compile.cubin_folder import write_cubins
from yolact_plugins.files import write_atomically
from yolact_plugins.locks import Lock, open_folder, try_lock
from yolact_runtime import Segmenter, open_bundle
from yolact_runtime.errors import BundleError, SignatureError
from yolact_runtime.model import bundle_signature
from yolact_runtime.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, SIGNATURE_RECORD_NAME, file_sha256, read_manifest
from yolact_runtime.model.bundle_folder import BundleFolder
from yolact_runtime.model.bundle_signature import require_own_signature, sign_bundle, verify_bundle
from yolact_runtime.model.manifest import Artefact
from yolact_runtime.model.manifest_signature import encode_record


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
    assert require_own_signature(bundle, private) == read_manifest(bundle)  # there is none
    sign_bundle(bundle, private)
    require_own_signature(bundle, private)
    with pytest.raises(SignatureError, match=r"another key signed it\. Nothing is changed"):
        require_own_signature(bundle, write_keys(tmp_path / "other")[0])
    manifest = bundle / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace("bird", "brid"))
    with pytest.raises(SignatureError, match=r"changed after it was signed.*add --drop-signature"):
        require_own_signature(bundle, private)


def test_only_the_manifest_that_the_signer_means_is_signed(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    meant = read_manifest(bundle)
    sign_bundle(bundle, private, meant)
    assert verify_bundle(bundle, public) == meant
    (bundle / SIGNATURE_NAME).unlink()
    manifest = bundle / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace("bird", "brid"))
    with pytest.raises(SignatureError, match=r"was changed by another process, and is not signed.*--sign KEY"):
        sign_bundle(bundle, private, meant)
    assert not (bundle / SIGNATURE_NAME).exists()


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
    with pytest.raises(SignatureError, match="is not a signature: it has 5 bytes, not 64"):
        verify_bundle(bundle, public)


def test_no_bundle(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    for work, key in ((sign_bundle, private), (verify_bundle, public)):
        with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest\.json, and does not exist"):
            work(tmp_path / "nothing", key)


def test_any_one_of_several_keys_fits(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "mine")
    _, other = write_keys(tmp_path / "other")
    sign_bundle(bundle, private)
    assert verify_bundle(bundle, [other, public]) == verify_bundle(bundle, [public, other])
    with pytest.raises(SignatureError, match=r"other.verify\.pem or .*third.verify\.pem does not belong to the key"):
        verify_bundle(bundle, [other, write_keys(tmp_path / "third")[1]])
    with pytest.raises(SignatureError, match="no key was given"):
        verify_bundle(bundle, [])


def test_a_key_that_cannot_be_read_is_said_where_another_one_fits(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "mine")
    sign_bundle(bundle, private)
    with pytest.raises(SignatureError, match=r"cannot read the public key .*missing"):
        verify_bundle(bundle, [public, tmp_path / "missing"])


def test_the_record_names_key_and_manifest_as_other_programs_find_them(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    key = load_pem_public_key(public.read_bytes())
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert json.loads((bundle / SIGNATURE_RECORD_NAME).read_text()) == {
        "format_version": 1,
        "algorithm": "ed25519",
        "key_fingerprint": f"SHA256:{hashlib.sha256(der).hexdigest()}",
        "manifest_sha256": hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest(),
    }


def test_the_record_is_the_same_to_the_byte_in_every_release() -> None:
    """It is compared as a whole: another space, and bundles that were signed before would be refused."""
    assert encode_record("SHA256:ab", b"manifest") == (
        b'{\n  "format_version": 1,\n  "algorithm": "ed25519",\n  "key_fingerprint": "SHA256:ab",\n'
        b'  "manifest_sha256": "%s"\n}\n' % hashlib.sha256(b"manifest").hexdigest().encode()
    )


def test_whose_key_it_was_is_known_where_it_was_verified(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    named = json.loads((bundle / SIGNATURE_RECORD_NAME).read_text())["key_fingerprint"]
    with BundleFolder(bundle, (write_keys(tmp_path / "other")[1], public)) as verified, BundleFolder(bundle) as opened:
        assert (verified.verified_by, opened.verified_by) == (named, None)
        assert verified.is_signed
        assert verified.signature.fits(load_pem_public_key(public.read_bytes()), verified.content)


def test_a_changed_manifest_is_refused_without_a_key_too(bundle: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, write_keys(tmp_path / "keys")[0])
    manifest = bundle / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace("bird", "brid"))
    for read in (read_manifest, open_bundle, Segmenter.open):
        with pytest.raises(SignatureError, match=r"is signed, and its manifest\.json is not the one that was signed"):
            read(bundle)
    # Signing is how somebody says that it was meant.
    sign_bundle(bundle, write_keys(tmp_path / "keys")[0])
    assert "brid" in read_manifest(bundle).class_names


def test_a_bundle_of_an_earlier_release_has_no_record(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    (bundle / SIGNATURE_RECORD_NAME).unlink()
    assert verify_bundle(bundle, public) == read_manifest(bundle)
    (bundle / MANIFEST_NAME).write_bytes((bundle / MANIFEST_NAME).read_bytes() + b"\n")
    assert read_manifest(bundle).name  # nothing can tell
    with pytest.raises(SignatureError, match="does not fit"):
        verify_bundle(bundle, public)


def test_a_record_without_a_signature_says_nothing(bundle: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, write_keys(tmp_path / "keys")[0])
    (bundle / SIGNATURE_NAME).unlink()
    (bundle / MANIFEST_NAME).write_bytes((bundle / MANIFEST_NAME).read_bytes() + b"\n")
    assert read_manifest(bundle).name


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format_version": 2, "algorithm": "ed25519"}',
        b'{"format_version": 1, "algorithm": "rot13"}',
        b'{"format_version": 1, "algorithm": "ed25519"}',
        b'{"format_version": 1, "algorithm": "ed25519", "manifest_sha256": "abc"}',
        b'{"format_version": 1, "algorithm": "ed25519", "manifest_sha256": 7}',
        b"\xff\xfe\x00",
        b"[" * 10**5,
    ],
)
def test_a_record_that_is_none(bundle: Path, tmp_path: Path, content: bytes) -> None:
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    (bundle / SIGNATURE_RECORD_NAME).write_bytes(content)
    for read in (lambda: read_manifest(bundle), lambda: verify_bundle(bundle, public)):
        with pytest.raises(SignatureError, match=r"signature\.json"):
            read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "has a format that this release does not support"),
        ({"algorithm": "rot13"}, "has a format that this release does not support"),
        ({"manifest_sha256": 7}, "has no SHA-256 of a manifest"),
        ({"manifest_sha256": "a" * 63}, "has no SHA-256 of a manifest"),
        ({"manifest_sha256": "a" * 65}, "has no SHA-256 of a manifest"),
        ({"manifest_sha256": "A" * 64}, "has no SHA-256 of a manifest"),
        ({"manifest_sha256": "_" * 64}, "has no SHA-256 of a manifest"),
        ({"manifest_sha256": "a" * 64}, "signed was aaaaaaaaaaaa…"),
    ],
)
def test_everything_that_a_record_says_is_looked_at(
    bundle: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    record = bundle / SIGNATURE_RECORD_NAME
    record.write_text(json.dumps(json.loads(record.read_text()) | changes), encoding="utf-8")
    with pytest.raises(SignatureError, match=message):
        read_manifest(bundle)
    with pytest.raises(SignatureError, match=r"signature\.json does not belong to the signature beside it"):
        verify_bundle(bundle, public)


@pytest.mark.parametrize(
    ("content", "claimed"),
    [
        (b'{"key_fingerprint": "SHA256:ab12"}', "SHA256:ab12"),
        (json.dumps({"key_fingerprint": "ab" * 100}).encode(), "ab" * 35 + "a"),
        (b'{"key_fingerprint": "ab \\u001b[2J"}', None),
        ('{"key_fingerprint": "\u00e9"}'.encode(), None),
        (b'{"key_fingerprint": ""}', None),
        (b'{"key_fingerprint": 7}', None),
        (b"{}", None),
        (b"[]", None),
        (b"{", None),
        (None, None),
    ],
)
def test_whose_signature_it_claims_to_be(
    bundle: Path, tmp_path: Path, content: bytes | None, claimed: str | None
) -> None:
    """Nothing vouches for the record there, so that little of it is shown."""
    sign_bundle(bundle, write_keys(tmp_path / "keys")[0])
    (bundle / SIGNATURE_RECORD_NAME).unlink()
    if content is not None:
        (bundle / SIGNATURE_RECORD_NAME).write_bytes(content)
    with pytest.raises(SignatureError, match="does not fit") as raised:
        verify_bundle(bundle, write_keys(tmp_path / "other")[1])
    shown = "" if claimed is None else f" (signature.json names the key {claimed})"
    assert str(raised.value).endswith(f"it again from where it was made{shown}")


def test_a_record_is_read_to_a_bound(bundle: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, write_keys(tmp_path / "keys")[0])
    record = bundle / SIGNATURE_RECORD_NAME
    content = record.read_bytes().rstrip()
    record.write_bytes(content.rjust(65536))
    assert read_manifest(bundle).name
    record.write_bytes(content.rjust(65537))
    with pytest.raises(SignatureError, match=r"signature\.json"):
        read_manifest(bundle)


# --- whatever is changed ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle with a file of every kind, and the key that verifies it."""
    folder = tmp_path_factory.mktemp("signed")
    bundle = write_bundle(folder / "b", [Thing((0.25, 0.25, 0.75, 0.75))], mask_iou=[1, 1, 1])
    with_kernels(bundle, "sm_87")
    add_engine(bundle)
    _put_golden(bundle)
    private, public = write_keys(folder / "keys")
    sign_bundle(bundle, private)
    return bundle, public


def _put_golden(bundle: Path) -> None:
    """A file that is listed as the golden frame: nobody looks into it here."""
    (bundle / "golden.npz").write_bytes(bytes(range(200)))
    manifest = read_manifest(bundle)
    golden = Artefact("golden", "", file_sha256(bundle / "golden.npz"), 200)
    changed = dataclasses.replace(manifest, artefacts={**manifest.artefacts, "golden.npz": golden})
    (bundle / MANIFEST_NAME).write_text(changed.to_json(), encoding="utf-8")


FILES = [
    MANIFEST_NAME,
    SIGNATURE_NAME,
    SIGNATURE_RECORD_NAME,
    "model.fp32.onnx",
    "mask_iou.fp32.onnx",
    "golden.npz",
    "cubins/cubins.json",
    "model.fp16.plan",
]


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def refused(bundle: Path, public: Path, name: str) -> None:
    with pytest.raises((SignatureError, BundleError)):
        verify_bundle(bundle, public)
    if name == MANIFEST_NAME:
        with pytest.raises(SignatureError):
            read_manifest(bundle)
    if name not in {"cubins/cubins.json", "model.fp16.plan"}:
        # Everything that a CPU loads; the others are looked at where they are loaded.
        with pytest.raises((SignatureError, BundleError)):
            Segmenter.open(bundle, "onnxruntime-cpu", verify_key=public)


@examples(100)
@given(st.sampled_from(FILES), st.integers(0, 2**31), st.integers(1, 255))
def test_a_flipped_byte_is_refused(signed: tuple[Path, Path], name: str, place: int, change: int) -> None:
    bundle, public = signed
    content = bytearray((bundle / name).read_bytes())
    content[place % len(content)] ^= change
    with changed(bundle / name, bytes(content)):
        refused(bundle, public, name)


@examples(50)
@given(st.sampled_from(FILES), st.integers(0, 2**31), st.binary(max_size=3))
def test_what_was_cut_off_or_lengthened_is_refused(
    signed: tuple[Path, Path], name: str, place: int, added: bytes
) -> None:
    bundle, public = signed
    content = (bundle / name).read_bytes()
    other = content[: place % len(content)] if place % 2 else content + added + b"."
    with changed(bundle / name, other):
        refused(bundle, public, name)


def test_what_was_not_changed_is_verified_and_runs(signed: tuple[Path, Path]) -> None:
    bundle, public = signed
    verify_bundle(bundle, public)
    Segmenter.open(bundle, "onnxruntime-cpu", verify_key=public).close()


def test_a_bundle_is_locked_while_it_is_signed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever builds an engine meanwhile waits, or the signature would be of the manifest that was there before."""
    private, _ = write_keys(tmp_path / "keys")
    seen = []

    def write(path: Path, content: bytes) -> None:
        descriptor = open_folder(bundle)
        seen.append((path.name, try_lock(descriptor)))
        os.close(descriptor)
        write_atomically(path, content)

    monkeypatch.setattr(bundle_signature, "write_atomically", write)
    sign_bundle(bundle, private)
    assert seen == [(SIGNATURE_RECORD_NAME, Lock.TAKEN), (SIGNATURE_NAME, Lock.TAKEN)]
