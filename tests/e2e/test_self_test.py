"""The self-test: what is right passes in every precision and on every backend, and what cannot be tested says so."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from support.cuda_onnxruntime import CudaOnnxRuntime
from support.device_network import replay, tensor_specs
from support.fake_tensorrt import FakeTensorRt, add_engine, put_in_place
from support.golden_bundles import PRECISIONS, GoldenBundle, file_of
from support.host_gpu import HostDriver, host_gpu, share_kernels
from support.scenes import Thing, raw_outputs, small_manifest, write_bundle
from support.tools import needs_tool
from yolact_export.engine.self_test import try_engine
from yolact_export.golden import write_golden
from yolact_plugins.driver.driver import Device
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.backends import onnxruntime_cuda
from yolact_runtime.commands import run_cli
from yolact_runtime.errors import BackendError, BundleError, NoGoldenFrameError, SelfTestError
from yolact_runtime.golden import read_golden
from yolact_runtime.media.images import write_image
from yolact_runtime.model.bundle import read_manifest
from yolact_runtime.model.manifest import InputSpec
from yolact_runtime.reporter import ForwardingReporter

CPU = "onnxruntime-cpu"
THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]
OUTPUTS = raw_outputs(small_manifest(), THINGS)


@pytest.fixture
def bundle(shapes: Path, tmp_path: Path) -> GoldenBundle:
    return GoldenBundle.copy(shapes, tmp_path / "copy.bundle")


# --- what is right ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_bundle_that_is_right_passes(shapes: Path, precision: str) -> None:
    # Thresholds of the caller's own are set aside.
    options = SegmenterOptions(min_confidence=0.9, iou_threshold=0.1, max_instances=1, num_threads=1)
    with Segmenter.open(shapes, CPU, options, precision, self_test=True) as segmenter:
        result = segmenter.self_test()
    assert (result.precision, result.backend) == (precision, CPU)
    assert result.num_expected is not None
    assert result.num_expected >= 3
    assert result.num_matched >= 0.8 * result.num_expected
    assert all(result.differences[name] <= 0.5 * result.limits[name] for name in result.limits)
    assert f"self-test passed ({precision} on {CPU}): " in str(result)


def test_the_frame_is_of_another_size_and_aspect_than_the_input(shapes: Path) -> None:
    golden = read_golden(shapes / "golden.npz")
    height, width = golden.frame.shape[:2]
    manifest = read_manifest(shapes)
    assert width / height != pytest.approx(manifest.input.width / manifest.input.height, rel=0.1)
    assert set(golden.expectations) == {*PRECISIONS, *(f"{name} on {CPU}" for name in ("fp16", "int8"))}
    assert "rounded to float16" in golden.expectations["int8"].made_by
    assert "rounded" not in golden.expectations["int8-cpu"].made_by


# --- what cannot be tested --------------------------------------------------------------------------------------------


def test_a_bundle_without_a_golden_frame_says_so(bundle: GoldenBundle) -> None:
    manifest = read_manifest(bundle.folder)
    others = {name: artefact for name, artefact in manifest.artefacts.items() if artefact.role != "golden"}
    bundle.write(dataclasses.replace(manifest, artefacts=others))
    with pytest.raises(NoGoldenFrameError, match=r"has no golden frame.*Export the checkpoint again; adding a network"):
        Segmenter.open(bundle.folder, CPU, self_test=True)
    Segmenter.open(bundle.folder, CPU).close()


def test_a_file_outside_of_its_bundle_has_none(bundle: GoldenBundle) -> None:
    with pytest.raises(NoGoldenFrameError, match=r"model.fp32.onnx was opened without one: open the folder"):
        Segmenter.open(bundle.folder / file_of("fp32"), CPU, self_test=True)


def test_a_precision_that_was_added_by_hand_has_none(bundle: GoldenBundle) -> None:
    manifest = read_manifest(bundle.folder)
    (bundle.folder / "other.onnx").write_bytes((bundle.folder / file_of("fp32")).read_bytes())
    other = dataclasses.replace(manifest.artefacts[file_of("fp32")], precision="int4")
    bundle.write(dataclasses.replace(manifest, artefacts={**manifest.artefacts, "other.onnx": other}))
    with pytest.raises(NoGoldenFrameError, match="no expectation for int4, only for fp16, fp32, int8, int8-cpu"):
        Segmenter.open(bundle.folder, CPU, precision="int4", self_test=True)


def test_a_golden_frame_that_is_not_the_listed_one_is_refused(bundle: GoldenBundle) -> None:
    path = bundle.folder / "golden.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="is not the file the manifest describes"):
        Segmenter.open(bundle.folder, CPU, self_test=True)
    path.unlink()
    with pytest.raises(BundleError, match=r"golden.npz is missing"):
        Segmenter.open(bundle.folder, CPU, self_test=True)


def test_a_closed_segmenter_refuses(shapes: Path) -> None:
    segmenter = Segmenter.open(shapes, CPU)
    segmenter.close()
    with pytest.raises(BackendError, match="was closed"):
        segmenter.self_test()


def test_a_self_test_leaves_the_segmenter_as_it_was(shapes: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)
    with Segmenter.open(shapes, CPU) as segmenter:
        before = segmenter(frame)
        segmenter.self_test()
        assert segmenter(frame).confidence.tolist() == before.confidence.tolist()


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_tests_and_then_runs(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli.main([str(shapes), "--self-test", "--backend", CPU, "--precision", "int8"]) == 0
    assert "self-test passed (int8 on onnxruntime-cpu): 5 of 5 instances found" in capsys.readouterr().out
    write_image(tmp_path / "a.png", np.zeros((40, 50, 3), np.uint8))
    assert run_cli.main([str(shapes), str(tmp_path / "a.png"), "--self-test", "--backend", CPU]) == 0
    output = capsys.readouterr()
    assert "self-test passed" in output.err
    assert "a.png: nothing found" in output.out
    assert run_cli.main([str(shapes), "--self-test", "--backend", CPU, "--json", "-", "-q"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["self_test"]["num_matched"] == document["self_test"]["num_expected"] == 5


def test_the_command_refuses_a_model_that_fails(
    bundle: GoldenBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swapped = dataclasses.replace(read_manifest(bundle.folder).input, channel_order="BGR")
    bundle.edit_manifest(lambda manifest: dataclasses.replace(manifest, input=swapped))
    write_image(tmp_path / "a.png", np.zeros((40, 50, 3), np.uint8))
    out = tmp_path / "out"
    assert (
        run_cli.main([str(bundle.folder), str(tmp_path / "a.png"), "--self-test", "--backend", CPU, "-o", str(out)])
        == 8
    )
    error = capsys.readouterr().err
    assert (
        "the network's input differs by 1.4 (2e-03 allowed): frames are resized or normalised in another way" in error
    )
    assert not out.exists()


def test_the_command_needs_an_input_or_the_self_test(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli.main([str(shapes)]) == 2
    assert "name an INPUT" in capsys.readouterr().err


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Finds the same two things in every frame: black is its darkest input, and that is not dark."""
    manifest = small_manifest(input=InputSpec(32, 48, (0.0, 0.0, 0.0), (57.38, 57.12, 58.40)))
    folder = write_bundle(tmp_path / "small.bundle", THINGS, manifest)
    write_golden(folder, read_manifest(folder))
    return folder


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Puts an engine that returns some outputs into a bundle, and a simulated TensorRT and GPU in place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    share_kernels(monkeypatch)
    tensors = tensor_specs(small_manifest(), OUTPUTS["prototype"].shape[1:])
    with host_gpu() as device:

        def put(bundle: Path, outputs: dict[str, np.ndarray], rtx: bool = False) -> Path:
            put_in_place(monkeypatch, FakeTensorRt(device, tensors, replay([outputs]), rtx=rtx))
            return add_engine(bundle, "rtx" if rtx else "tensorrt", "fp32")

        yield put


needs_kernels = needs_tool("g++")


@needs_kernels
@pytest.mark.parametrize("rtx", [False, True])
def test_an_engine_is_tested_with_the_kernels(small: Path, engine: Callable[..., Path], rtx: bool) -> None:
    engine(small, OUTPUTS, rtx=rtx)
    with Segmenter.open(small, options=SegmenterOptions(min_confidence=0.99), self_test=True) as segmenter:
        assert segmenter.postprocessing == "gpu"
        assert segmenter.self_test().backend == ("tensorrt-rtx" if rtx else "tensorrt")
    on_the_cpu = SegmenterOptions(cpu_postprocessing=True)
    with Segmenter.open(small, options=on_the_cpu, self_test=True) as segmenter:
        assert segmenter.postprocessing == "cpu"


@needs_kernels
def test_onnx_runtime_on_the_gpu_is_tested_with_the_kernels(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    share_kernels(monkeypatch)
    driver = HostDriver()
    monkeypatch.setitem(sys.modules, "onnxruntime", CudaOnnxRuntime(driver))  # type: ignore[arg-type]
    monkeypatch.setattr(onnxruntime_cuda, "_open_device", lambda: Device(driver=driver))
    with Segmenter.open(small, options=SegmenterOptions(min_confidence=0.99), self_test=True) as segmenter:
        assert (segmenter.backend_name, segmenter.postprocessing) == ("onnxruntime-cuda", "gpu")
    assert run_cli.main([str(small), "--self-test", "--backend", "onnxruntime-cuda"]) == 0
    said = capsys.readouterr()
    assert "small (fp32) on onnxruntime-cuda, post-processing on the GPU" in said.out + said.err
    assert "self-test passed (fp32 on onnxruntime-cuda): 2 of 2 instances found" in said.out + said.err
    assert driver.leaks() == []


@needs_kernels
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_stale_engine_is_caught(small: Path, engine: Callable[..., Path], name: str) -> None:
    engine(small, {**OUTPUTS, name: OUTPUTS[name][:, ::-1].copy()})
    with pytest.raises(SelfTestError, match=f'the output "{name}" differs by'):
        Segmenter.open(small, self_test=True)


@needs_kernels
def test_an_engine_that_was_built_is_tried_and_a_wrong_one_is_rejected(
    small: Path, engine: Callable[..., Path]
) -> None:
    said: list[str] = []
    name = engine(small, OUTPUTS).name
    try_engine(small, name, "fp32", "tensorrt", ForwardingReporter(lambda _, text: said.append(text)))
    assert said[0].startswith("model.fp32.plan: self-test passed (fp32 on tensorrt): 2 of 2 instances found")
    engine(small, {**OUTPUTS, "prototype": -OUTPUTS["prototype"]})
    with pytest.raises(SelfTestError, match='"prototype" differs by 2'):
        try_engine(small, name, "fp32", "tensorrt", ForwardingReporter(lambda _, text: said.append(text)))


@needs_kernels
def test_a_frame_on_the_gpu_is_inspected(small: Path, engine: Callable[..., Path]) -> None:
    engine(small, OUTPUTS)
    frame = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    with Segmenter.open(small) as gpu, Segmenter.open(small, CPU) as cpu:
        found, expected = (segmenter.frame_path.inspect(frame) for segmenter in (gpu, cpu))
        np.testing.assert_allclose(found.tensor, expected.tensor, atol=1e-4)
        assert set(found.outputs) == set(expected.outputs) == set(OUTPUTS)
        for name, array in expected.outputs.items():
            np.testing.assert_array_equal(found.outputs[name], array)
        assert found.instances.mask == expected.instances.mask
