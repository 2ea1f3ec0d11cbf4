"""Signatures where a model runs: what is loaded is what was signed, and what was checked is what is loaded."""

from __future__ import annotations

import dataclasses
import gc
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from support.device_network import replay, tensor_specs
from support.fake_tensorrt import FakeTensorRt, add_engine, put_in_place
from support.host_gpu import host_gpu, share_kernels
from support.scenes import DEFAULT_PROTOTYPE, Thing, raw_outputs, small_manifest, write_bundle
from support.signing_keys import write_keys
from yolact_plugins.driver.driver import Device
from yolact_runtime import Segmenter, SegmenterOptions, open_bundle
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.errors import (
    BackendUnavailableError,
    BundleError,
    NoGoldenFrameError,
    SignatureError,
    UsageError,
    YolactError,
)
from yolact_runtime.model import bundle_folder
from yolact_runtime.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, SIGNATURE_RECORD_NAME
from yolact_runtime.model.bundle_signature import sign_bundle
from yolact_runtime.model.engine_name import engine_name
from yolact_runtime.model.model_file import ModelFile

THINGS = [Thing((0.25, 0.25, 0.75, 0.75))]
OTHERS = [Thing((0.0, 0.0, 0.4, 0.6), class_id=2)]
WHITE = np.full((60, 90, 3), 255, np.uint8)
CPU = "onnxruntime-cpu"
SURE = SegmenterOptions(min_confidence=0.1)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 1])


@pytest.fixture
def keys(tmp_path: Path, bundle: Path) -> tuple[Path, Path]:
    """Private and public; the bundle is signed."""
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    return private, public


def refused(path: Any, message: str, **options: Any) -> None:
    with pytest.raises(SignatureError, match=message):
        Segmenter.open(path, CPU, **options)


# --- with a key -------------------------------------------------------------------------------------------------------


def test_a_signed_bundle_runs(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_keys(tmp_path / "other")[1]
    for path in (bundle, str(bundle), bundle / MANIFEST_NAME, bundle / "model.fp32.onnx"):
        for given in (keys[1], str(keys[1]), [other, keys[1]]):
            with Segmenter.open(path, CPU, SURE, verify_key=given) as segmenter:
                assert len(segmenter(WHITE)) == 1


def test_what_is_not_signed_or_signed_by_another_is_refused_by_name(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other = write_keys(tmp_path / "other")[1]
    refused(bundle, r"does not fit: .*other.verify\.pem does not belong to the key", verify_key=other)
    unsigned = write_bundle(tmp_path / "unsigned", THINGS)
    refused(unsigned, r"unsigned is not signed: it has no manifest\.json\.sig", verify_key=keys[1])
    refused(unsigned / "model.fp32.onnx", r"unsigned is not signed", verify_key=keys[1])


def test_lone_files_need_a_signed_folder(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    alone = Path(shutil.copy(bundle / "model.fp32.onnx", tmp_path / "alone.onnx"))
    refused(alone, r"alone\.onnx is not in a bundle, so no signature covers it", verify_key=keys[1])
    stray = Path(shutil.copy(alone, bundle / "stray.onnx"))
    refused(stray, r"stray\.onnx is not part of the signed bundle around it", verify_key=keys[1])
    plan = tmp_path / "alone.plan"
    plan.write_bytes(b"plan")
    with pytest.raises(SignatureError, match=r"alone\.plan is not in a bundle, so no signature covers it"):
        Segmenter.open(plan, "tensorrt", verify_key=keys[1])
    network = bundle / "model.fp32.onnx"
    network.write_bytes(network.read_bytes() + b"\n")
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx is not the file the manifest describes"):
        Segmenter.open(bundle / "model.fp32.onnx", CPU, verify_key=keys[1])


def test_the_second_network_is_vouched_for_too(bundle: Path, keys: tuple[Path, Path]) -> None:
    path = bundle / "mask_iou.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    for model in (bundle, bundle / "model.fp32.onnx"):
        with pytest.raises(BundleError, match=r"mask_iou\.fp32\.onnx is not the file the manifest describes"):
            Segmenter.open(model, CPU, verify_key=keys[1])


def test_an_opened_bundle_says_who_vouches_for_it(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    opened = open_bundle(bundle, verify_key=keys[1])
    assert opened.verified_by is not None
    Segmenter.open(opened, CPU, verify_key=keys[1]).close()
    refused(opened, "was opened without verifying a signature of", verify_key=write_keys(tmp_path / "other")[1])
    unchecked = open_bundle(bundle)
    assert unchecked.verified_by is None
    refused(
        unchecked, r"was opened without verifying a signature of .* open_bundle\(…, verify_key=\)", verify_key=keys[1]
    )


def test_a_machine_that_requires_signatures(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchecked = open_bundle(bundle)
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(keys[1]))
    Segmenter.open(bundle, CPU).close()
    assert open_bundle(bundle).verified_by is not None
    unsigned = write_bundle(tmp_path / "unsigned", THINGS)
    refused(unsigned, "unsigned is not signed")
    refused(unsigned / "model.fp32.onnx", "unsigned is not signed")
    refused(unchecked, "was opened without verifying")
    with pytest.raises(SignatureError, match="unsigned is not signed"):
        open_bundle(unsigned)
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(tmp_path / "nowhere.pem"))
    refused(bundle, r"cannot read the public key .*nowhere\.pem: No such file")


# --- without a key ----------------------------------------------------------------------------------------------------


def test_signed_and_not_checked_is_said_once(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        Segmenter.open(bundle, CPU).close()
        open_bundle(bundle)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        f"{bundle} is signed, and the signature was not checked: use --verify-key KEY (verify_key= of "
        f"Segmenter.open), or set YOLACT_REQUIRE_SIGNATURE"
    ]
    caplog.clear()
    Segmenter.open(bundle, CPU, verify_key=keys[1]).close()
    Segmenter.open(write_bundle(tmp_path / "unsigned", THINGS), CPU).close()
    assert not caplog.records
    Segmenter.open(shutil.copytree(bundle, tmp_path / "another"), CPU).close()
    assert "another is signed, and the signature was not checked" in caplog.text


def test_a_signed_bundle_of_an_earlier_release_is_warned_of_only(
    bundle: Path, keys: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    (bundle / SIGNATURE_RECORD_NAME).unlink()
    Segmenter.open(bundle, CPU).close()
    assert "is signed, and the signature was not checked" in caplog.text


# --- nothing between check and use ------------------------------------------------------------------------------------


def _swap_after_reading(monkeypatch: pytest.MonkeyPatch, swap: Callable[[str], None]) -> list[str]:
    """Runs `swap` each time a file of a bundle was opened and read, before anybody judges what it holds."""
    opened: list[str] = []
    original = bundle_folder.BundleFolder._open

    def open_and_swap(self: bundle_folder.BundleFolder, name: str) -> BinaryIO:
        copy: BinaryIO = tempfile.TemporaryFile()  # type: ignore[assignment]  # noqa: SIM115 - who reads it closes it
        with original(self, name) as file:
            copy.write(file.read())
        copy.seek(0)
        opened.append(name)
        swap(name)
        return copy

    monkeypatch.setattr(bundle_folder.BundleFolder, "_open", open_and_swap)
    return opened


def test_files_that_are_exchanged_behind_the_check_have_no_effect(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Segmenter.open(bundle, CPU, SURE) as segmenter:
        expected = segmenter(WHITE)
    evil = write_bundle(tmp_path / "evil", OTHERS, mask_iou=[2, 2, 2])

    def swap(name: str) -> None:
        shutil.copy(evil / name, bundle / name) if (evil / name).exists() else (bundle / name).unlink(missing_ok=True)

    opened = _swap_after_reading(monkeypatch, swap)
    with Segmenter.open(bundle, CPU, SURE, verify_key=keys[1]) as segmenter:
        found = segmenter(WHITE)
        assert segmenter.class_names == small_manifest().class_names
    assert opened == [
        MANIFEST_NAME,
        SIGNATURE_NAME,
        SIGNATURE_RECORD_NAME,
        "model.fp32.onnx",
        "mask_iou.fp32.onnx",
    ]
    assert found.class_id.tolist() == expected.class_id.tolist()
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    assert (bundle / "model.fp32.onnx").read_bytes() == (evil / "model.fp32.onnx").read_bytes()


def test_a_bundle_that_is_gone_after_opening_still_has_its_golden_frame_and_manifest(bundle: Path) -> None:
    segmenter = Segmenter.open(bundle, CPU)
    shutil.rmtree(bundle)
    segmenter.compare_manifests()
    with pytest.raises(NoGoldenFrameError, match="has no golden frame"):
        segmenter.self_test()
    segmenter.close()


# --- memory -----------------------------------------------------------------------------------------------------------


def _holders(content: bytes) -> int:
    gc.collect()
    return sys.getrefcount(content)


def test_the_bytes_of_a_model_are_let_go_once_it_is_loaded(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    original = ModelFile.of_onnx.__func__  # type: ignore[attr-defined]

    def note(cls: type[ModelFile], path: Path, content: bytes) -> ModelFile:
        seen.append(content)
        return original(cls, path, content)  # type: ignore[no-any-return]

    monkeypatch.setattr(ModelFile, "of_onnx", classmethod(note))
    segmenter = Segmenter.open(bundle, CPU)
    backend = OnnxRuntimeBackend(bundle / "model.fp32.onnx")
    assert len(seen) == 3
    alone = [b"".join([content]) + b"." for content in seen]  # what nobody but a list holds
    assert [_holders(content) for content in seen] == [_holders(content) for content in alone]
    segmenter.close()
    backend.close()


# --- engines ----------------------------------------------------------------------------------------------------------

TENSORS = tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape)  # type: ignore[arg-type]  # three numbers
ON_HOST = SegmenterOptions(cpu_postprocessing=True, min_confidence=0.1)


@pytest.fixture
def device(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    share_kernels(monkeypatch)
    with host_gpu() as device:
        yield device


@pytest.fixture
def install(device: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTensorRt]:
    def put(**changes: Any) -> FakeTensorRt:
        outputs = replay([raw_outputs(small_manifest(), THINGS)])
        return put_in_place(monkeypatch, FakeTensorRt(device, TENSORS, outputs, **changes))

    return put


def test_an_engine_of_a_signed_bundle_needs_no_trusted_folder(
    tmp_path: Path, install: Callable[..., FakeTensorRt]
) -> None:
    """The hash of the signed manifest is enough: a container may run as root over the bundle of another user."""
    install()
    bundle = write_bundle(tmp_path / "b", THINGS)
    plan = add_engine(bundle)
    private, public = write_keys(tmp_path / "keys")
    sign_bundle(bundle, private)
    plan.chmod(0o666)
    with pytest.raises(BundleError, match="can be written by every user"):
        Segmenter.open(bundle, "tensorrt", ON_HOST)
    for path in (bundle, plan):
        with Segmenter.open(path, "tensorrt", ON_HOST, verify_key=public) as segmenter:
            assert segmenter.backend_name == "tensorrt"
    plan.write_bytes(b"another plan")
    with pytest.raises(BundleError, match=r"model\.fp16\.plan is not the engine that the manifest lists"):
        Segmenter.open(bundle, "tensorrt", ON_HOST, verify_key=public)


def test_a_plan_in_no_bundle_runs_where_it_is_trusted(tmp_path: Path, install: Callable[..., FakeTensorRt]) -> None:
    manifest = dataclasses.replace(small_manifest(), class_names=("ring", *small_manifest().class_names[1:]))
    install(name=engine_name(manifest.to_json()))
    plan = tmp_path / "copied.plan"
    plan.write_bytes(b"plan tensorrt fp16")
    with pytest.raises(BundleError, match=r"copied\.plan is not in a bundle.*--trust-engine, trust_engine=True"):
        Segmenter.open(plan, "tensorrt", ON_HOST)
    with Segmenter.open(plan, "tensorrt", ON_HOST, trust_engine=True) as segmenter:
        assert segmenter.class_names[0] == "ring"
        assert segmenter.network_file == plan
        assert len(segmenter(WHITE)) == 1
        with pytest.raises(NoGoldenFrameError):
            segmenter.self_test()
    with pytest.raises(BackendUnavailableError, match=r"copied\.plan was built for tensorrt"):
        Segmenter.open(plan, "tensorrt-rtx", ON_HOST, trust_engine=True)
    with pytest.raises(BundleError, match=r"cannot read .*missing"):
        Segmenter.open(tmp_path / "missing.plan", "tensorrt", ON_HOST, trust_engine=True)


def test_a_trusted_plan_without_room_for_its_manifest(tmp_path: Path, install: Callable[..., FakeTensorRt]) -> None:
    for name, message in (
        ("", "contains no manifest"),
        ("yolact-manifest-too-long:900 classes", "has no room for its"),
    ):
        install(name=name)
        (tmp_path / "copied.plan").write_bytes(b"plan")
        with pytest.raises(BundleError, match=message):
            Segmenter.open(tmp_path / "copied.plan", "tensorrt", ON_HOST, trust_engine=True)


def test_a_trusted_plan_that_needs_a_second_network(tmp_path: Path, install: Callable[..., FakeTensorRt]) -> None:
    manifest = dataclasses.replace(small_manifest(), mask_rescoring=True)
    install(name=engine_name(manifest.to_json()))
    plan = tmp_path / "copied.plan"
    plan.write_bytes(b"plan")
    with pytest.raises(BundleError, match="re-scores masks with a second network, which an engine does not contain"):
        Segmenter.open(plan, "tensorrt", ON_HOST, trust_engine=True)
    without = dataclasses.replace(ON_HOST, mask_rescoring=False)
    Segmenter.open(plan, "tensorrt", without, trust_engine=True).close()


def test_an_engine_of_a_bundle_is_no_less_checked_where_it_is_trusted(
    tmp_path: Path, install: Callable[..., FakeTensorRt]
) -> None:
    install()
    bundle = write_bundle(tmp_path / "b", THINGS)
    plan = add_engine(bundle)
    plan.write_bytes(b"another plan")
    with pytest.raises(BundleError, match="is not the engine that the manifest lists"):
        Segmenter.open(plan, "tensorrt", ON_HOST, trust_engine=True)


def test_trust_and_a_signature_contradict_each_other(
    tmp_path: Path, bundle: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        Segmenter.open(bundle, verify_key=keys[1], trust_engine=True)
    monkeypatch.setenv("YOLACT_REQUIRE_SIGNATURE", str(keys[1]))
    with pytest.raises(YolactError, match="contradict each other"):
        Segmenter.open(tmp_path / "copied.plan", trust_engine=True)
