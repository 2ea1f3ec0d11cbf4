"""Engines under yolact-bench, on a TensorRT and a GPU that are played: stages, planted instances, the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.cuda_onnxruntime import CudaOnnxRuntime
from support.device_network import replay, tensor_specs
from support.fake_tensorrt import FakeTensorRt, add_engine, put_in_place
from support.host_gpu import HostDriver, host_gpu, share_kernels
from support.mask_iou_models import mask_iou_network_model
from support.scenes import DEFAULT_PROTOTYPE, Thing, fake_segmenter, raw_outputs, small_manifest, write_bundle
from support.tools import needs_tool
from yolact_benchmarks.commands import bench_cli
from yolact_benchmarks.layers.engine_profile import profile_engine, read_layers
from yolact_benchmarks.layers.layer_profile import CONVERSIONS, profile_document
from yolact_benchmarks.machine.machine_state import MachineWatch
from yolact_benchmarks.measure.device_timer import DeviceModel, DeviceTimer
from yolact_benchmarks.measure.frames import FrameSet
from yolact_benchmarks.measure.measurement import Plan
from yolact_benchmarks.measure.opened_model import choose_precisions, open_model
from yolact_benchmarks.measure.request import BenchRequest
from yolact_benchmarks.peers.peer_networks import PeerMissingError
from yolact_benchmarks.peers.peers import Peer, measure_peers
from yolact_plugins.driver.driver import Device
from yolact_plugins.errors import CudaUnavailableError
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.backends import onnxruntime_cuda
from yolact_runtime.backends.tensorrt import TensorRtBackend
from yolact_runtime.errors import BackendError, UsageError
from yolact_runtime.model.bundle import Bundle, open_bundle

pytestmark = needs_tool("g++")

THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]
PICTURES = SegmenterOptions(min_confidence=0.3)
FRAME = np.zeros((30, 40, 3), np.uint8)
DEVICE_STAGES = ["upload", "preprocess", "network", "candidates", "nms", "masks", "download"]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRt]:
    """What every engine is, here."""
    share_kernels(monkeypatch)
    tensors = tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape)  # type: ignore[arg-type]  # three numbers
    with host_gpu() as device:
        fake = FakeTensorRt(device, tensors, replay([raw_outputs(small_manifest(), THINGS)]))
        yield put_in_place(monkeypatch, fake)


@pytest.fixture
def bundle(tmp_path: Path, engine: FakeTensorRt) -> Path:
    """With an engine that runs."""
    assert engine.layers == []
    folder = write_bundle(tmp_path / "m.bundle", THINGS)
    add_engine(folder)
    return folder


def test_stages_of_the_gpu_and_of_the_host(bundle: Path) -> None:
    with DeviceModel(Segmenter.open(bundle, options=PICTURES)) as model:
        timer = model.timer()
        times = timer.time(FRAME)
        assert [stage.name for stage in timer.stages if stage.clock == "device"] == DEVICE_STAGES
        assert set(times.stage_ms) == {stage.name for stage in timer.stages}
        assert times.total_ms == pytest.approx(times.stage_ms["enqueue"] + times.stage_ms["result"])
        assert times.num_instances == 2


def test_stages_are_timed_inside_of_one_graph(bundle: Path, engine: FakeTensorRt) -> None:
    driver = engine.device.driver
    assert isinstance(driver, HostDriver)
    with DeviceModel(Segmenter.open(bundle, options=PICTURES)) as model:
        timer = model.timer()
        for _ in range(6):  # two frames are in flight in turns; each is captured once by the segmenter and once here
            timer.time(FRAME)
        with driver.recording() as calls:
            times = timer.time(FRAME)
        # The frame itself, again for its stages' sake, and its stages.
        assert calls.count("cuGraphLaunch") == 3
        assert not {"cuLaunchKernel", "cuStreamBeginCapture", "cuEventRecordWithFlags"} & set(calls)
        assert all(times.stage_ms[name] == 1 for name in DEVICE_STAGES)
        # A frame of another size has other launches.
        assert timer.time(np.zeros((50, 60, 3), np.uint8)).num_instances == 2
    engine.capturable = False
    with DeviceModel(Segmenter.open(bundle, options=PICTURES)) as model:
        timer = model.timer()
        for _ in range(3):
            assert all(timer.time(FRAME).stage_ms[name] == 1 for name in DEVICE_STAGES)


def test_onnx_runtime_on_the_gpu_is_timed_launch_by_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be captured, which a slot knows from its first frame on."""
    share_kernels(monkeypatch)
    driver = HostDriver()
    monkeypatch.setitem(sys.modules, "onnxruntime", CudaOnnxRuntime(driver))  # type: ignore[arg-type]
    monkeypatch.setattr(onnxruntime_cuda, "_open_device", lambda: Device(driver=driver))
    folder = write_bundle(tmp_path / "ort.bundle", THINGS)
    model = open_model(BenchRequest(folder, num_threads=1), "onnxruntime-cuda", None)
    assert (model.document()["backend"], model.document()["postprocessing"]) == ("onnxruntime-cuda", "gpu")
    timer = model.timer(3)
    for _ in range(3):
        times = timer.time(FRAME)
        assert times.num_instances == 3
        assert all(times.stage_ms[name] == 1 for name in DEVICE_STAGES)
    model.close()
    assert driver.leaks() == []
    monkeypatch.setattr(onnxruntime_cuda, "_open_device", no_device)
    model = open_model(BenchRequest(folder, num_threads=1), "onnxruntime-cuda", None)
    assert model.document()["postprocessing"] == "cpu"
    assert model.timer(3).time(FRAME).num_instances == 3
    model.close()


def no_device() -> Device:
    raise CudaUnavailableError("none")


@pytest.mark.parametrize("count", [0, 1, 7, 30])
def test_exactly_as_many_instances_as_asked_for(bundle: Path, count: int) -> None:
    with DeviceModel(Segmenter.open(bundle, options=PICTURES)) as model:
        timer = model.timer(count)
        assert [timer.time(FRAME).num_instances for _ in range(4)] == [count] * 4
        # The engine itself finds what it found before.
        assert model.timer().time(FRAME).num_instances == 2


def test_the_mask_iou_network_has_a_stage_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many instances as asked for, too."""
    share_kernels(monkeypatch)
    prototype = np.kron(DEFAULT_PROTOTYPE, np.ones((1, 8, 8), np.float32))
    network = mask_iou_network_model(3, prototype.shape[1:])
    bundle = add_engine(write_bundle(tmp_path / "plus.bundle", THINGS, mask_iou=network)).parent
    with host_gpu() as device:
        outputs = raw_outputs(small_manifest(), THINGS, prototype)
        put_in_place(
            monkeypatch, FakeTensorRt(device, tensor_specs(small_manifest(), prototype.shape), replay([outputs]))
        )
        with DeviceModel(Segmenter.open(bundle, options=PICTURES)) as model:
            for timer, count in ((model.timer(), 2), (model.timer(5), 5)):
                times = timer.time(FRAME)
                assert (times.num_instances, times.stage_ms["mask iou"]) == (count, 1)
                names = [stage.name for stage in timer.stages if stage.clock == "device"]
                assert names == [*DEVICE_STAGES[:-1], "mask iou", "download"]
                assert timer.segmenter(FRAME).mask_confidence is not None


def test_more_instances_than_the_model_has(bundle: Path) -> None:
    with DeviceModel(Segmenter.open(bundle, options=PICTURES)) as model, pytest.raises(UsageError, match="0 to 30"):
        model.timer(31)


def test_post_processing_on_the_cpu_has_no_stages_on_the_gpu() -> None:
    segmenter, _ = fake_segmenter([THINGS], PICTURES)
    with pytest.raises(UsageError, match="fake has its post-processing on the CPU"):
        DeviceTimer(segmenter)
    with pytest.raises(UsageError, match="does not keep its outputs on the GPU"):
        DeviceModel(segmenter)


def test_an_engine_is_opened_by_its_file_and_by_its_bundle(bundle: Path) -> None:
    for path in (bundle, bundle / "model.fp16.plan"):
        model = open_model(BenchRequest(path), "auto", None)
        assert (model.backend, model.precision, model.file.name) == ("tensorrt", "fp16", "model.fp16.plan")
        assert model.document()["size_bytes"] == model.file.stat().st_size
        model.close()


def test_all_precisions_are_those_of_the_engines(bundle: Path) -> None:
    add_engine(bundle, precision="int8")
    add_engine(bundle, "rtx", "fp32")
    assert choose_precisions(bundle, ["all"], "tensorrt") == (["fp16", "int8"], [])
    assert choose_precisions(bundle, ["all"], "tensorrt-rtx") == (["fp32"], [])


LAYERS: list[dict[str, Any]] = [
    {
        "Name": "conv1",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "a", "Dimensions": [1, 8, 4, 4], "Format/Datatype": "Thirty-two wide channel Int8 format"}],
        "Outputs": [{"Name": "b", "Dimensions": [1, 8, 4, 4], "Format/Datatype": "Row major Half format"}],
        "Metadata": "[ONNX Layer: backbone.layers.2.0.conv1]\x1f[ONNX Layer: backbone.layers.2.0.relu]",
        "ms": 3.0,
    },
    {
        "Name": "reformat1",
        "LayerType": "Reformat",
        "Inputs": [{"Name": "b", "Dimensions": [1, 8], "Datatype": "Half"}],
        "Outputs": [],
        "Metadata": "",
        "ms": 1.0,
    },
    {"Name": "proto_net.0 + proto_net.1", "LayerType": "correlation", "ms": 4.0},
]


# Without a network's file, and with its parts: of the first node of a layer that the file knows.
@pytest.mark.parametrize("parts", [None, {"backbone.layers.2.0.relu": "res4", "proto_net.0": "protonet"}])
def test_layers_go_to_parts_of_the_model(bundle: Path, engine: FakeTensorRt, parts: Mapping[str, str] | None) -> None:
    engine.layers = LAYERS
    with TensorRtBackend(bundle / "model.fp16.plan") as backend:
        kernels = profile_engine(backend, {"backbone.layers.2.0.conv1": 5000, "somewhere.else": 70}, parts)
        # A context that is not profiled tells nothing and is not slowed down.
        assert backend.infer(np.zeros((1, 3, 32, 48), np.float32))
    assert [(kernel.block, kernel.ms, kernel.precision, kernel.bytes) for kernel in kernels] == [
        ("res4", 3.0, "int8", 8 * 16 + 2 * 8 * 16),
        (CONVERSIONS, 1.0, "float16", 16),
        ("protonet", 4.0, "", 0),
    ]
    assert [kernel.operations for kernel in kernels] == [5000, None, None]
    document = profile_document(kernels)
    assert document["conversion_share"] == 0.125
    assert [block["share"] for block in document["blocks"]] == [0.375, 0.125, 0.5]


def test_an_engine_without_details_has_names_only() -> None:
    assert read_layers('{"Layers": ["conv1", "conv2"], "I/O Tensors": ["image"]}') == {}


def test_an_engine_that_tells_nothing(bundle: Path) -> None:
    plan = bundle / "model.fp16.plan"
    with TensorRtBackend(plan) as backend, pytest.raises(BackendError, match="tensorrt profiled no layer"):
        profile_engine(backend)


def test_peers_of_an_engine_run_its_network(bundle: Path) -> None:
    def ours_again(network: Bundle, count: int | None, options: SegmenterOptions) -> Segmenter:
        assert network.network.path.name == "model.fp32.onnx"
        assert count == 3
        return Segmenter.open(network, "onnxruntime-cpu", options)

    def missing(*_: object) -> Segmenter:
        raise PeerMissingError("not here")

    watch = MachineWatch()
    with DeviceModel(Segmenter.open(bundle, options=PICTURES)) as model:
        frames = FrameSet("40x30", "a test", (np.full_like(FRAME, 255),))
        peers = [Peer("again", ours_again), Peer("other", missing)]
        network = open_bundle(bundle, "fp32")
        plan = Plan(duration_s=0.01, warm_up_s=0)
        found = measure_peers({"fp16": model}, network, peers, frames, 3, PICTURES, plan, watch)
    assert [(row["name"], row["over"], row["found"]) for row in found["rows"]] == [("again", "fp16", 2)]
    assert found["missing"] == [{"name": "other", "why": "not here"}]


def test_the_command(
    bundle: Path,
    engine: FakeTensorRt,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolact_benchmarks.measure.gpu_stages._COPY_BYTES", 1 << 16)
    engine.layers = [*LAYERS, {"Name": "class_logit", "LayerType": "gemm", "ms": 2.0}]
    words = ["--layers", "--instances", "1,5", "--size", "96x64", "--duration", "0.01", "--warm-up", "0"]
    words += ["--stream", "0.01", "--processes", "1"]
    record = tmp_path / "record.json"
    plan = str(bundle / "model.fp16.plan")
    assert bench_cli.main([plan, *words, "--cold-starts", "0", "--json", str(record)]) == 0
    results = json.loads(record.read_bytes())["results"]
    assert [case["instances"] for case in results["cases"]] == [1, 5]
    clocks = {stage["name"]: stage["clock"] for stage in results["cases"][0]["stages"]}
    assert [name for name, clock in clocks.items() if clock == "device"] == DEVICE_STAGES
    assert results["models"][0]["backend"] == "tensorrt"
    assert results["layers"]["fp16"]["memory_gb_per_s"] > 0
    shown = capsys.readouterr().out
    assert "upload" in shown
    assert "class head" in shown, "a tensor of the bundle's network"
    assert max(map(len, shown.splitlines())) <= 80
