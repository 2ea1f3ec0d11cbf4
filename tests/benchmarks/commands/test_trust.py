"""``--verify-key`` of ``yolact-eval`` and ``yolact-bench``, and engines without a bundle: what is run and recorded."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support.device_network import replay, tensor_specs
from support.fake_tensorrt import FakeTensorRt, put_in_place
from support.host_gpu import host_gpu, share_kernels
from support.scenes import DEFAULT_PROTOTYPE, Thing, raw_outputs, small_manifest, with_precisions, write_bundle
from support.signing import Keys, make_keys
from support.tools import needs_tool
from yolact_benchmarks.commands import bench_cli, eval_cli
from yolact_benchmarks.measure.request import BenchRequest
from yolact_runtime.media.images import write_image
from yolact_runtime.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, SIGNATURE_RECORD_NAME
from yolact_runtime.model.bundle_signature import sign_bundle
from yolact_runtime.model.engine_name import engine_name

THINGS = [Thing((0.25, 0.25, 0.75, 0.75), 0, 0.9), Thing((0.0, 0.0, 0.4, 0.6), 2, 0.6, prototype=1)]
QUICK = ("--duration", "0.05", "--warm-up", "0", "--stream", "0", "--cold-starts", "0", "--processes", "1")
QUICK += ("--size", "128x72", "--instances", "found", "-q")


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOLACT_REQUIRE_SIGNATURE", raising=False)


@pytest.fixture
def vendor(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys", "vendor")


@pytest.fixture
def device(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys", "device")


@pytest.fixture
def bundle(tmp_path: Path, vendor: Keys) -> Path:
    folder = write_bundle(tmp_path / "vendor.bundle", THINGS)
    with_precisions(folder, "fp32", "int8-cpu")
    sign_bundle(folder, vendor.private)
    return folder


@pytest.fixture
def reference(tmp_path: Path, device: Keys) -> Path:
    folder = write_bundle(tmp_path / "device.bundle", THINGS)
    sign_bundle(folder, device.private)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "a.png", np.full((40, 60, 3), 255, np.uint8))
    return folder


def evaluate(*words: object) -> int:
    return eval_cli.main([str(word) for word in (*words, "--bootstrap", "0", "-q")])


def bench(*words: object) -> int:
    return bench_cli.main([str(word) for word in (*words, *QUICK)])


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def unsign(bundle: Path) -> None:
    for name in (SIGNATURE_NAME, SIGNATURE_RECORD_NAME):
        (bundle / name).unlink()


def rename_a_class(bundle: Path) -> None:
    document = read(bundle / MANIFEST_NAME)
    document["class_names"][0] = "person"
    (bundle / MANIFEST_NAME).write_text(json.dumps(document))


# --- yolact-eval ------------------------------------------------------------------------------------------------------


def test_an_evaluation_records_both_signatures(
    bundle: Path,
    reference: Path,
    images: Path,
    vendor: Keys,
    device: Keys,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (bundle, "--against", reference, "--images", images, "--json", tmp_path / "r.json")
    assert evaluate(*words) == 0
    found = read(tmp_path / "r.json")
    assert [found[name]["signature"] for name in ("model", "reference")] == ["signed, not checked"] * 2
    # The reference is no better than its signature.
    assert evaluate(*words, "--verify-key", vendor.public) == 1
    assert f"{device.fingerprint}" in (told := capsys.readouterr().err)
    assert "does not belong to the key that signed it" in told
    assert evaluate(*words, "--verify-key", vendor.public, "--verify-key", device.public) == 0
    found = read(tmp_path / "r.json")
    assert {found[name]["signature"] for name in ("model", "reference")} == {"verified"}
    fingerprints = [found[name]["key_fingerprint"] for name in ("model", "reference")]
    assert fingerprints == [vendor.fingerprint, device.fingerprint]


# --- yolact-bench -----------------------------------------------------------------------------------------------------


def test_a_bench_records_the_signature_of_every_network(bundle: Path, vendor: Keys, tmp_path: Path) -> None:
    record = tmp_path / "r.json"
    words = (bundle, "--precision", "fp32,int8-cpu", "--json", record)
    assert bench(*words, "--verify-key", vendor.public) == 0
    models = read(record)["results"]["models"]
    assert [model["precision"] for model in models] == ["fp32", "int8-cpu"]
    assert {(model["signature"], model["key_fingerprint"]) for model in models} == {("verified", vendor.fingerprint)}
    unsign(bundle)
    assert bench(*words) == 0
    assert [model["signature"] for model in read(record)["results"]["models"]] == ["none"] * 2


def test_a_bench_verifies_what_it_compares_with(
    bundle: Path, reference: Path, images: Path, vendor: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(word) for word in (bundle, "--images", images, "--against", reference, "--verify-key", vendor.public)]
    assert bench_cli.main([*words, *QUICK[:-5], "-q"]) == 1
    assert f"the signature of {reference / MANIFEST_NAME} does not fit" in capsys.readouterr().err


def test_fresh_processes_verify_too(bundle: Path, vendor: Keys, device: Keys, tmp_path: Path) -> None:
    words = ["--duration", "0.05", "--warm-up", "0", "--stream", "0", "--cold-starts", "1", "--processes", "2"]
    words += ["--size", "128x72", "--instances", "found", "-q", "--json", str(tmp_path / "r.json")]
    assert bench_cli.main([str(bundle), *words, "--verify-key", str(vendor.public)]) == 0
    (model,) = read(tmp_path / "r.json")["results"]["models"]
    assert model["key_fingerprint"] == vendor.fingerprint
    assert model["cold_start"]["processes"] == 1
    assert bench_cli.main([str(bundle), *words, "--verify-key", str(device.public)]) == 1


def test_fresh_processes_import_nothing_from_where_somebody_stands(
    bundle: Path, vendor: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle's folder, say: what lies in it beside the bundle's own files is signed by nobody."""
    for name in ("json.py", "numpy.py", "onnxruntime.py", "yolact_runtime.py", "yolact_benchmarks.py"):
        (bundle / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w'); raise SystemExit('forged')")
    monkeypatch.chdir(bundle)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place).is_absolute()])
    words = ["--duration", "0.05", "--warm-up", "0", "--stream", "0", "--cold-starts", "1", "--processes", "2"]
    words += ["--size", "128x72", "--instances", "found", "-q", "--verify-key", str(vendor.public)]
    assert bench_cli.main([".", *words]) == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", ["eval", "bench"])
@pytest.mark.parametrize("by", ["option", "variable"])
@pytest.mark.parametrize("case", ["another key", "no signature", "changed manifest", "no cryptography"])
def test_what_is_not_signed_as_it_should_be_is_not_measured(
    bundle: Path,
    images: Path,
    vendor: Keys,
    device: Keys,
    command: str,
    by: str,
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, message = vendor.public, "was changed after it was signed"
    if case == "another key":
        key, message = device.public, "does not belong to the key that signed it"
    elif case == "no signature":
        message = "is not signed: it has no manifest.json.sig"
        unsign(bundle)
    elif case == "changed manifest":
        rename_a_class(bundle)
    else:
        message = 'pip install "yolact-deploy[sign]"'
        for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
            monkeypatch.setitem(sys.modules, name, None)
    words: list[object] = ["--json", tmp_path / "r.json"]
    words += ["--verify-key", key] if by == "option" else []
    if by == "variable":
        monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(key))
    if command == "eval":
        assert evaluate(bundle, "--against", bundle, "--images", images, *words) == 1
    else:
        assert bench(bundle, *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


# --- engines without a bundle -----------------------------------------------------------------------------------------


def test_a_lone_engine_is_benched_only_where_somebody_vouches_for_it(
    bundle: Path, vendor: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "copied.plan"
    plan.write_bytes(b"plan")
    assert bench(plan) == 1
    assert "--trust-engine" in capsys.readouterr().err
    assert bench(plan, "--trust-engine", "--verify-key", vendor.public) == 2
    assert "contradict each other" in capsys.readouterr().err
    assert bench(bundle, "--trust-engine") == 2
    assert "--trust-engine is for an engine" in capsys.readouterr().err
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(vendor.public))
    assert bench(plan, "--trust-engine") == 1
    assert "this machine runs only what is signed" in capsys.readouterr().err


def test_a_reference_is_never_trusted_with_the_engine(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("yolact_benchmarks.measure.request.Segmenter.open", lambda *_, **options: asked.append(options))
    plan = tmp_path / "copied.plan"
    request = BenchRequest(plan, trust_engine=True)
    request.open_segmenter(plan, "auto", request.options, None)
    request.open_segmenter(bundle, "auto", request.options, "fp32")
    assert [options["trust_engine"] for options in asked] == [True, False]
    opened: Any = SimpleNamespace(verified_by=None)
    assert request.signature(plan, opened) == {"signature": "trusted"}
    assert request.signature(bundle, opened) == {"signature": "signed, not checked"}


@pytest.fixture
def lone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plan that runs on a GPU that is none, away from every bundle, with its manifest in its name."""
    share_kernels(monkeypatch)
    manifest = small_manifest()
    tensors = tensor_specs(manifest, DEFAULT_PROTOTYPE.shape)  # type: ignore[arg-type]  # three numbers
    with host_gpu() as device:
        name = engine_name(dataclasses.replace(manifest, precision="fp16").to_json())
        engine = FakeTensorRt(device, tensors, replay([raw_outputs(manifest, THINGS)]), name=name)
        engine.layers = [{"Name": "head", "LayerType": "convolution", "Metadata": "[ONNX Layer: head]", "ms": 1.0}]
        put_in_place(monkeypatch, engine)
        plan = tmp_path / "copied" / "model.plan"
        plan.parent.mkdir()
        plan.write_bytes(b"plan")
        yield plan


@needs_tool("g++")
def test_a_lone_engine_that_is_trusted_is_benched_by_the_manifest_in_its_name(
    lone: Path,
    images: Path,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # How fast memory is copied is measured with 256 MB.
    monkeypatch.setattr("yolact_benchmarks.measure.gpu_stages._COPY_BYTES", 1 << 16)
    record = tmp_path / "r.json"
    assert bench(lone, "--trust-engine", "--peers", "--layers", "--json", record) == 0
    told = capsys.readouterr().err
    assert "peers are left out: they run the network of a bundle, and an engine alone has none" in told
    assert "layer profiles cannot count operations: that takes the network of a bundle" in told
    results = read(record)["results"]
    (model,) = results["models"]
    assert (model["precision"], model["backend"], model["file"]) == ("fp16", "tensorrt", "model.plan")
    assert (model["signature"], "key_fingerprint" in model) == ("trusted", False)
    assert "peers" not in results
    assert results["layers"]["fp16"]
    assert results["cases"]

    assert evaluate(lone, "--trust-engine", "--against", bundle, "--images", images, "--json", record) == 0
    found = read(record)
    assert [found[name]["signature"] for name in ("model", "reference")] == ["trusted", "signed, not checked"]
