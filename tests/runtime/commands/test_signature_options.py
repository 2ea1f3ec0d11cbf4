"""``--verify-key`` and ``--trust-engine``: what contradicts itself, what is run, and what the results say."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from support.run_command import BRIGHT, THINGS, picture, run
from support.scenes import write_bundle
from support.signing import Keys, make_keys
from yolact_export.golden import write_golden
from yolact_runtime import Segmenter
from yolact_runtime.commands.signature_options import signature_document
from yolact_runtime.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, SIGNATURE_RECORD_NAME, read_manifest
from yolact_runtime.model.bundle_signature import sign_bundle


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOLACT_REQUIRE_SIGNATURE", raising=False)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys", "right")


@pytest.fixture
def other(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys", "other")


@pytest.fixture
def signed(tmp_path: Path, keys: Keys) -> Path:
    bundle = write_bundle(tmp_path / "signed.bundle", THINGS)
    sign_bundle(bundle, keys.private)
    return bundle


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return picture(tmp_path / "a.png", BRIGHT)


def results(path: Path, *words: object) -> dict[str, Any]:
    assert run(*words, "--json", path) == 0
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def rename_a_class(bundle: Path) -> None:
    document = json.loads((bundle / MANIFEST_NAME).read_bytes())
    document["class_names"][0] = "person"
    (bundle / MANIFEST_NAME).write_text(json.dumps(document))


def test_the_results_say_whose_signature_was_verified(
    signed: Path, keys: Keys, other: Keys, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([keys], [other, keys]):
        options = [word for one in words for word in ("--verify-key", one.public)]
        document = results(tmp_path / "r.json", signed, image, *options)
        assert (document["signature"], document["key_fingerprint"]) == ("verified", keys.fingerprint)
        assert len(document["images"]) == 1
        assert f", signature verified ({keys.fingerprint[:23]}…)\n" in capsys.readouterr().err


def test_without_a_key_the_results_say_that_nothing_was_checked(signed: Path, image: Path, tmp_path: Path) -> None:
    document = results(tmp_path / "r.json", signed, image)
    assert document["signature"] == "signed, not checked"
    assert "key_fingerprint" not in document
    for name in (SIGNATURE_NAME, SIGNATURE_RECORD_NAME):
        (signed / name).unlink()
    assert results(tmp_path / "r.json", signed, image)["signature"] == "none"


@pytest.mark.parametrize("by", ["option", "variable"])
@pytest.mark.parametrize("more", [(), ("--self-test",)], ids=["run", "self-test"])
@pytest.mark.parametrize("case", ["another key", "no signature", "changed manifest"])
def test_what_is_not_signed_as_it_should_be_is_not_run(
    signed: Path,
    keys: Keys,
    other: Keys,
    image: Path,
    case: str,
    more: tuple[str, ...],
    by: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, message = keys.public, "was changed after it was signed"
    if case == "another key":
        key, message = other.public, "does not belong to the key that signed it"
    elif case == "no signature":
        message = "is not signed: it has no manifest.json.sig"
        for name in (SIGNATURE_NAME, SIGNATURE_RECORD_NAME):
            (signed / name).unlink()
    else:
        rename_a_class(signed)
    words: list[object] = ["--verify-key", key]
    if by == "variable":
        words = []
        monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(key))
    assert run(signed, image, *more, *words) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert "error: " in found.err
    assert message in found.err


@pytest.mark.parametrize("name", ["", "model.fp32.onnx"])
def test_a_record_tells_of_the_bundle_that_was_opened(signed: Path, keys: Keys, name: str) -> None:
    """It is written at the end, hours after another bundle may have come to its place."""
    model = signed / name if name else signed
    with Segmenter.open(model, verify_key=keys.public) as segmenter:
        rename_a_class(signed)
        assert signature_document(model, segmenter) == {"signature": "verified", "key_fingerprint": keys.fingerprint}
        shutil.rmtree(signed)
        assert signature_document(model, segmenter)["signature"] == "verified"
    assert segmenter.verified_by == keys.fingerprint


def test_the_variable_names_several_keys(
    signed: Path, keys: Keys, other: Keys, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", os.pathsep.join([str(other.public), str(keys.public)]))
    assert results(tmp_path / "r.json", signed, image)["key_fingerprint"] == keys.fingerprint


def test_without_cryptography_nothing_passes_for_verified(
    signed: Path, keys: Keys, image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert run(signed, image, "--verify-key", keys.public) == 1
    assert 'pip install "yolact-deploy[sign]"' in capsys.readouterr().err
    # Who wants nothing verified needs no package.
    assert run(signed, image) == 0


def test_the_self_test_says_it_too(signed: Path, keys: Keys, tmp_path: Path) -> None:
    write_golden(signed, read_manifest(signed))
    sign_bundle(signed, keys.private)
    document = results(tmp_path / "t.json", signed, "--self-test", "--verify-key", keys.public)
    assert (document["signature"], document["key_fingerprint"]) == ("verified", keys.fingerprint)
    assert document["self_test"]


# --- engines without a bundle -----------------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "copied" / "model.fp16.plan"
    path.parent.mkdir()
    path.write_bytes(b"plan")
    return path


def test_a_lone_engine_is_refused_with_the_flag_that_would_run_it(
    plan: Path, image: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(plan, image) == 1
    assert f"{plan} is not in a bundle" in (told := capsys.readouterr().err)
    assert "--trust-engine" in told
    assert run(plan, image, "--verify-key", keys.public) == 1
    assert f"{plan} is not in a bundle, so no signature covers it" in capsys.readouterr().err


def test_trust_and_verification_contradict_each_other(
    plan: Path,
    signed: Path,
    image: Path,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(plan, image, "--trust-engine", "--verify-key", keys.public) == 2
    assert "--trust-engine and --verify-key contradict each other" in capsys.readouterr().err
    assert run(signed, image, "--trust-engine") == 2
    assert "--trust-engine is for an engine" in capsys.readouterr().err
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(keys.public))
    assert run(plan, image, "--trust-engine") == 1
    assert "YOLACT_REQUIRE_SIGNATURE says that this machine runs only what is signed" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", os.pathsep, "a.pub" + os.pathsep])
def test_a_variable_that_names_nothing_is_a_mistake(
    signed: Path, image: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", text)
    assert run(signed, image) == 1
    assert "error: YOLACT_REQUIRE_SIGNATURE is set" in capsys.readouterr().err
