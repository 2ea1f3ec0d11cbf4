"""``--sign``, ``--verify-key`` and ``--drop-signature`` of ``yolact-export``: what is refused, and what is signed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from support.engine_graphs import write_engine_bundle
from support.precompiled import made_up_cubin
from support.signing import Keys, make_keys, signature_fits, signature_names, watched_signature
from yolact_export import seal
from yolact_export.commands import cli
from yolact_export.engine import bundle as engine_bundle
from yolact_export.engine.build import BuiltEngine
from yolact_export.errors import EngineBuildError
from yolact_plugins.compile.manifest_entry import put_kernels
from yolact_plugins.locks import open_folder
from yolact_runtime.errors import SelfTestError
from yolact_runtime.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, SIGNATURE_RECORD_NAME, open_bundle, read_manifest
from yolact_runtime.model.bundle_signature import sign_bundle, verify_bundle

ENGINE = ("--engine", "--target", "rtx", "--compute-capability", "8.6")


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("YOLACT_SIGNING_KEY", "YOLACT_REQUIRE_SIGNATURE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def vendor(tmp_path: Path) -> Keys:
    return make_keys(tmp_path, "vendor")


@pytest.fixture
def device(tmp_path: Path) -> Keys:
    return make_keys(tmp_path, "device")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_engine_bundle(tmp_path / "my.bundle", ("fp32", "fp16"))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Engines are made up: what counts here is what is signed. The precisions that were built."""
    made: list[str] = []

    def build(model: bytes, manifest_json: str, *_: Any) -> BuiltEngine:
        made.append(json.loads(manifest_json)["precision"])
        return BuiltEngine(f"plan {len(made)} of {made[-1]}".encode(), (), {"target": "rtx"}, ())

    monkeypatch.setattr(engine_bundle, "build_in_process", build)
    monkeypatch.setattr(engine_bundle, "try_engine", lambda *_: None)
    return made


def export(*words: object) -> int:
    return cli.main([str(word) for word in words])


def files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def rename_a_class(bundle: Path) -> None:
    """What an attacker, or an editor, makes of a manifest."""
    document = json.loads((bundle / MANIFEST_NAME).read_bytes())
    document["class_names"][0] = "person"
    (bundle / MANIFEST_NAME).write_text(json.dumps(document, indent=2))


# --- signing alone ----------------------------------------------------------------------------------------------------


def test_a_bundle_is_signed_without_other_work(
    bundle: Path, vendor: Keys, built: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(bundle)
    assert export(bundle, "--sign", vendor.private, "--json", tmp_path / "report.json") == 0
    assert verify_bundle(bundle, vendor.public) == read_manifest(bundle)
    assert {name: files(bundle)[name] for name in before} == before
    assert not built
    assert f"signed: {bundle / SIGNATURE_NAME}" in capsys.readouterr().err
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report == {"bundle": str(bundle), "signature": "signed", "key_fingerprint": vendor.fingerprint}
    # Its own signature is made anew.
    assert export(bundle, "--sign", vendor.private) == 0
    assert signature_fits(bundle, vendor)


@pytest.mark.parametrize(
    ("option", "proposed"),
    [
        ("--verify-key", "To verify it: yolact-run '{0}' --self-test --verify-key '{1}'. "),
        ("--drop-signature", "nothing else: rm '{0}/manifest.json.sig' '{0}/signature.json'. "),
    ],
)
def test_what_a_signature_alone_is_asked_for_is_answered(
    option: str, proposed: str, bundle: Path, vendor: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named, key = bundle.rename(tmp_path / "my robot.bundle"), vendor.public.rename(tmp_path / "a key.pub")
    words = (option, key) if option == "--verify-key" else (option,)
    assert export(named, *words) == 2
    assert proposed.format(named, key) in capsys.readouterr().err


@pytest.mark.parametrize("signed", [False, True])
def test_nothing_is_signed_that_is_not_what_the_manifest_says(
    bundle: Path, vendor: Keys, signed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if signed:
        sign_bundle(bundle, vendor.private)
    (bundle / "model.fp16.onnx").write_bytes(b"another network")
    before = files(bundle)
    assert export(bundle, "--sign", vendor.private) == 1
    talk = capsys.readouterr().err
    assert "model.fp16.onnx is not the file that the manifest describes" in talk
    assert "signed: " not in talk
    assert files(bundle) == before


def test_options_of_other_work_are_refused(bundle: Path, vendor: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(bundle, "--sign", vendor.private, "--workspace", "2G") == 2
    assert "--workspace has no effect where no engine is built; add --engine" in capsys.readouterr().err
    assert signature_names(bundle) == set()


def test_the_variable_signs_nothing_that_nobody_asked_to_change(
    bundle: Path, device: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("YOLACT_SIGNING_KEY", str(device.private))
    assert export(bundle) == 2
    assert f"To sign it: yolact-export {bundle} --sign KEY" in capsys.readouterr().err
    assert signature_names(bundle) == set()


# --- whose signature it was -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [(), ENGINE], ids=["alone", "engine"])
def test_another_keys_signature_is_replaced_only_where_it_was_verified_or_given_up(
    bundle: Path,
    vendor: Keys,
    device: Keys,
    built: list[str],
    work: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    sign_bundle(bundle, vendor.private)
    before = files(bundle)
    words = (bundle, *work, "--sign", device.private)
    assert export(*words) == 1
    talk = capsys.readouterr().err
    assert "another key signed it. Nothing is changed." in talk
    assert "--verify-key" in talk
    assert "--drop-signature" in talk
    assert (files(bundle), built) == (before, [])
    assert export(*words, "--verify-key", device.public) == 1
    assert "does not belong to the key that signed it" in capsys.readouterr().err
    assert (files(bundle), built) == (before, [])
    assert export(*words, "--verify-key", device.public, "--verify-key", vendor.public) == 0
    assert f"the signature of {bundle} is verified" in capsys.readouterr().err
    assert signature_fits(bundle, device)
    assert built == (["fp32", "fp16"] if work else [])
    verify_bundle(bundle, device.public)

    sign_bundle(bundle, vendor.private)
    assert export(*words, "--drop-signature") == 0
    verify_bundle(bundle, device.public)


@pytest.mark.parametrize("work", [(), ENGINE], ids=["alone", "engine"])
def test_a_changed_manifest_is_signed_only_by_somebody_who_says_that_it_may(
    bundle: Path, vendor: Keys, built: list[str], work: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    sign_bundle(bundle, vendor.private)
    rename_a_class(bundle)
    before = files(bundle)
    for more in ((), ("--verify-key", vendor.public)):
        assert export(bundle, *work, "--sign", vendor.private, *more) == 1
        assert "was changed after it was signed" in capsys.readouterr().err
        assert (files(bundle), built) == (before, [])
    assert export(bundle, *work, "--sign", vendor.private, "--drop-signature") == 0
    assert signature_fits(bundle, vendor)


def test_an_unsigned_bundle_does_not_pass_for_a_verified_one(
    bundle: Path, vendor: Keys, device: Keys, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(bundle, *ENGINE, "--verify-key", vendor.public, "--sign", device.private) == 1
    assert "is not signed" in capsys.readouterr().err
    assert not built


# --- without a key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verified", [False, True])
def test_a_signed_bundle_is_not_changed_without_a_key(
    bundle: Path, vendor: Keys, built: list[str], verified: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    sign_bundle(bundle, vendor.private)
    before = files(bundle)
    words = (bundle, *ENGINE, *(("--verify-key", vendor.public) if verified else ()))
    assert export(*words) == 1
    talk = capsys.readouterr().err
    assert "the change would invalidate its signature; nothing is changed" in talk
    assert "--sign KEY" in talk
    assert "--drop-signature" in talk
    assert (files(bundle), built) == (before, [])
    assert export(*words, "--drop-signature") == 0
    assert signature_names(bundle) == set()
    assert f"{bundle} is not signed now: sign it with yolact-export {bundle} --sign KEY" in capsys.readouterr().err
    # It never was signed since, and that needs no word.
    assert export(bundle, *ENGINE) == 0
    assert "is not signed now" not in capsys.readouterr().err


def test_an_export_over_a_signed_bundle_needs_a_key_or_a_word(
    bundle: Path, vendor: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_bundle(bundle, vendor.private)
    before = files(bundle)
    checkpoint = tmp_path / "mine.pth"
    checkpoint.write_bytes(b"no checkpoint")
    words = (checkpoint, "-o", bundle, "-q")
    assert export(*words) == 1
    assert "is signed, and would be replaced by a bundle that is not; nothing is changed" in capsys.readouterr().err
    # What comes next is the checkpoint, which is none.
    for more in (("--sign", vendor.private), ("--drop-signature",)):
        assert export(*words, *more) == 1
        assert "mine.pth" in capsys.readouterr().err
    monkeypatch.setenv("YOLACT_SIGNING_KEY", str(tmp_path / "lost.pem"))
    assert export(*words) == 1
    assert "cannot read the private key" in capsys.readouterr().err
    assert export(*words, "--verify-key", vendor.public) == 2
    assert (
        "--verify-key has no effect on a checkpoint, which has no signature; name the bundle" in capsys.readouterr().err
    )
    assert files(bundle) == before


# --- variables --------------------------------------------------------------------------------------------------------


def test_a_robot_has_its_keys_in_variables(
    bundle: Path, vendor: Keys, device: Keys, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_bundle(bundle, vendor.private)
    monkeypatch.setenv("YOLACT_SIGNING_KEY", str(device.private))
    assert export(bundle, *ENGINE) == 1
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", f"{vendor.public}:{device.public}")
    for _ in range(2):
        assert export(bundle, *ENGINE) == 0
        verify_bundle(bundle, device.public)
    assert built == ["fp32", "fp16"] * 2


def test_a_robot_that_runs_only_what_is_signed_signs_nothing_else(
    bundle: Path, vendor: Keys, device: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(vendor.public))
    assert export(bundle, "--sign", device.private) == 1
    talk = capsys.readouterr().err
    assert "is not signed" in talk
    assert "YOLACT_REQUIRE_SIGNATURE asks for it; --drop-signature works on the bundle without verifying it" in talk
    assert export(bundle, "--sign", device.private, "--drop-signature") == 0
    assert signature_fits(bundle, device)


@pytest.mark.parametrize("name", ["YOLACT_SIGNING_KEY", "YOLACT_REQUIRE_SIGNATURE"])
def test_an_empty_variable_is_a_mistake(
    bundle: Path, built: list[str], name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "")
    assert export(bundle, *ENGINE) == 1
    assert f"{name} is set" in capsys.readouterr().err
    assert not built


def test_dropping_a_signature_is_not_undone_by_the_variable(
    bundle: Path, device: Keys, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_bundle(bundle, device.private)
    monkeypatch.setenv("YOLACT_SIGNING_KEY", str(device.private))
    assert export(bundle, *ENGINE, "--drop-signature") == 0
    assert signature_names(bundle) == set()
    assert built == ["fp32", "fp16"]


@pytest.mark.parametrize("words", [("--sign", "{device}"), (*ENGINE, "--verify-key", "{public}")])
def test_without_cryptography_nothing_passes_for_signed_or_verified(
    bundle: Path,
    device: Keys,
    built: list[str],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sign_bundle(bundle, device.private)
    before = files(bundle)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert export(bundle, *(word.format(device=device.private, public=device.public) for word in words)) == 1
    assert 'pip install "yolact-deploy[sign]"' in capsys.readouterr().err
    assert (files(bundle), built) == (before, [])


def test_who_signs_is_not_reminded_to_verify(
    bundle: Path, device: Keys, built: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_bundle(bundle, device.private)
    tried: list[str] = []

    def try_engine(folder: Path, name: str, *_: Any) -> None:
        tried.append(name)
        open_bundle(folder)

    monkeypatch.setattr(engine_bundle, "try_engine", try_engine)
    assert export(bundle, *ENGINE, "--sign", device.private) == 0
    assert len(tried) == len(built) == 2
    assert "was not checked" not in caplog.text
    export(bundle, "--sign", device.private)
    rename_a_class(bundle)
    assert export(bundle, "--sign", device.private, "--drop-signature") == 0
    open_bundle(bundle)
    assert "was not checked" in caplog.text


def test_an_engine_is_kept_on_a_machine_that_may_not_run_it(
    bundle: Path, vendor: Keys, device: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sign_bundle(bundle, vendor.private)
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(vendor.public))
    assert export(bundle, *ENGINE, "--sign", device.private) == 0
    told = capsys.readouterr().err
    assert f"model.fp32.rtx.plan: not tested, because the signature of {bundle / MANIFEST_NAME} does not fit" in told
    assert "model.fp32.rtx.plan" in verify_bundle(bundle, device.public).artefacts


# --- builds that end early --------------------------------------------------------------------------------------------


def test_at_no_moment_is_there_a_signature_that_does_not_fit(
    bundle: Path, vendor: Keys, device: Keys, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_bundle(bundle, vendor.private)
    with watched_signature(monkeypatch, bundle, vendor, device) as looks:
        assert export(bundle, *ENGINE, "--verify-key", vendor.public, "--sign", device.private) == 0
        assert export(bundle, *ENGINE, "--sign", device.private) == 0
        put_kernels(bundle, [made_up_cubin("sm_87")])
        assert export(bundle, "--sign", device.private, "--drop-signature") == 0
    assert {"signed", "unsigned"} == set(looks)
    verify_bundle(bundle, device.public)


@pytest.mark.parametrize("error", [KeyboardInterrupt, EngineBuildError])
def test_a_build_that_ends_after_the_first_engine_leaves_that_one_signed(
    bundle: Path,
    device: Keys,
    built: list[str],
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sign_bundle(bundle, device.private)
    build = engine_bundle.build_in_process

    def fail_the_second(*words: Any) -> Any:
        if built:
            raise error("stopped")
        return build(*words)

    monkeypatch.setattr(engine_bundle, "build_in_process", fail_the_second)
    assert export(bundle, *ENGINE, "--sign", device.private) in {1, 130}
    assert built == ["fp32"]
    assert "model.fp32.rtx.plan" in verify_bundle(bundle, device.public).artefacts


def test_what_could_not_be_signed_is_said_to_be_unsigned(
    bundle: Path, device: Keys, built: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sign_bundle(bundle, device.private)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(bundle / SIGNATURE_NAME))

    monkeypatch.setattr("yolact_export.seal.sign_bundle", full)
    assert export(bundle, *ENGINE, "--sign", device.private) == 1
    talk = capsys.readouterr().err
    assert f"{bundle} is not signed now: sign it with yolact-export {bundle} --sign KEY" in talk
    assert built == ["fp32"]
    assert signature_names(bundle) == set()
    monkeypatch.undo()
    assert export(bundle, "--sign", device.private) == 0
    assert "model.fp32.rtx.plan" in verify_bundle(bundle, device.public).artefacts


def test_a_failed_write_of_an_engine_gives_the_signature_back(
    bundle: Path, device: Keys, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_bundle(bundle, device.private)
    before = files(bundle)
    write = engine_bundle.write_atomically

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".plan":
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(engine_bundle, "write_atomically", full)
    assert export(bundle, *ENGINE, "--sign", device.private) == 1
    assert built == ["fp32"]
    assert files(bundle) == before
    assert {SIGNATURE_NAME, SIGNATURE_RECORD_NAME} <= set(before)


def test_a_manifest_that_cannot_be_written_gives_the_earlier_engine_back(
    bundle: Path, device: Keys, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(bundle, *ENGINE, "--sign", device.private) == 0
    before = files(bundle)

    def full(folder: Path, manifest: object) -> None:
        raise OSError(28, "No space left on device", str(folder / MANIFEST_NAME))

    monkeypatch.setattr(engine_bundle, "put_manifest", full)
    assert export(bundle, *ENGINE, "--sign", device.private) == 1
    assert built == ["fp32", "fp16", "fp32"]
    assert files(bundle) == before
    assert verify_bundle(bundle, device.public)


def test_an_engine_that_fails_its_self_test_is_neither_listed_nor_signed(
    bundle: Path, device: Keys, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, name: str, *_: Any) -> None:
        # It is tried as a robot opens it, which may run only what is signed.
        assert name in verify_bundle(folder, device.public).artefacts
        raise SelfTestError("it differs")

    monkeypatch.setattr(engine_bundle, "try_engine", fail)
    assert export(bundle, *ENGINE, "--sign", device.private) == 8
    assert "model.fp32.rtx.plan.rejected" in files(bundle)
    assert not any(name.endswith(".plan") for name in verify_bundle(bundle, device.public).artefacts)
    assert built == ["fp32"]


def test_what_somebody_else_changed_meanwhile_is_not_signed(
    bundle: Path, device: Keys, built: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sign_bundle(bundle, device.private)
    build = engine_bundle.build_in_process

    def build_while_somebody_writes(*words: Any) -> Any:
        rename_a_class(bundle)
        return build(*words)

    monkeypatch.setattr(engine_bundle, "build_in_process", build_while_somebody_writes)
    assert export(bundle, *ENGINE, "--sign", device.private) == 1
    talk = capsys.readouterr().err
    assert "was changed by another process" in talk
    assert "is not signed now" in talk
    assert signature_names(bundle) == set()
    assert built == ["fp32"]


@pytest.mark.parametrize("when", ["the manifest is read", "the network is read"])
def test_nothing_is_built_of_what_lay_there_for_a_moment(
    tmp_path: Path, vendor: Keys, device: Keys, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It is exchanged once the signature was verified, and put back before the engine is signed."""
    bundle = write_engine_bundle(tmp_path / "one.bundle", ("fp32",))
    sign_bundle(bundle, vendor.private)
    genuine, network, built_of = files(bundle), bundle / "model.fp32.onnx", []
    content = genuine[network.name]
    name = read_manifest(bundle).class_names[0].encode()
    forged = content.replace(name, b"evil"[: len(name)].ljust(len(name), b"!"))
    assert forged != content

    def exchange(found: Any) -> Any:
        network.write_bytes(forged)
        if when == "the manifest is read":
            document = json.loads(genuine[MANIFEST_NAME])
            document["artefacts"][network.name]["sha256"] = hashlib.sha256(forged).hexdigest()
            for name in (SIGNATURE_NAME, SIGNATURE_RECORD_NAME):
                (bundle / name).unlink()
            (bundle / MANIFEST_NAME).write_text(json.dumps(document, indent=2))
        return found

    def build(*words: Any) -> BuiltEngine:
        built_of.append(words[:2])
        for name, genuine_content in genuine.items():
            (bundle / name).write_bytes(genuine_content)
        return BuiltEngine(b"plan", (), {"target": "rtx"}, ())

    if when == "the manifest is read":
        monkeypatch.setattr(engine_bundle, "remove_leftovers_in", exchange)
    else:
        read_bytes = Path.read_bytes
        swap = lambda path: exchange(read_bytes(path)) if path == network else read_bytes(path)  # noqa: E731
        monkeypatch.setattr(Path, "read_bytes", swap)
    monkeypatch.setattr(engine_bundle, "build_in_process", build)
    monkeypatch.setattr(engine_bundle, "try_engine", lambda *_: None)
    status = export(bundle, *ENGINE, "--verify-key", vendor.public, "--sign", device.private)
    assert not any(model != content or "evi" in text for model, text in built_of)
    if when == "the manifest is read":
        assert (status, built_of) == (1, []), "the network is not the one that was verified"
    else:
        assert (status, len(built_of)) == (0, 1)
        verify_bundle(bundle, device.public)


def test_signing_waits_for_who_puts_an_engine_in(bundle: Path, vendor: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is signed is what stays: a manifest that changes meanwhile would be left with another one's signature."""
    held: list[bool] = []
    sign = seal.sign_bundle

    def look(folder: Path, *words: Any) -> Path:
        descriptor = open_folder(folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(False)
        except BlockingIOError:
            held.append(True)
        finally:
            os.close(descriptor)
        return sign(folder, *words)

    monkeypatch.setattr(seal, "sign_bundle", look)
    assert export(bundle, "--sign", vendor.private) == 0
    assert held == [True]
