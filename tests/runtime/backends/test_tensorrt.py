"""The adapter to TensorRT, with a TensorRT and a GPU that are none: what is asked of it, and what follows refusals."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.device_network import replay, tensor_specs
from support.fake_tensorrt import FakeTensorRt, add_engine, put_in_place
from support.host_gpu import HostDriver, host_gpu, share_kernels
from support.mask_iou_models import mask_iou_network_model
from support.scenes import DEFAULT_PROTOTYPE, Thing, mask_iou_model, raw_outputs, small_manifest, write_bundle
from support.tools import needs_tool
from yolact_plugins import reference
from yolact_plugins.compile import precompile
from yolact_plugins.driver.driver import Device, Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_plugins.errors import CudaOutOfMemoryError, CudaUnavailableError, MissingCubinError
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.backends import engine_file
from yolact_runtime.backends import tensorrt as adapter
from yolact_runtime.backends.cuda_driver import Gpu
from yolact_runtime.backends.tensorrt import TensorRtBackend
from yolact_runtime.errors import (
    BackendError,
    BackendUnavailableError,
    BundleError,
    EngineMismatchError,
    NoEngineError,
    OutputError,
)
from yolact_runtime.model.engine_name import engine_name
from yolact_runtime.model.manifest import NetworkDtypes
from yolact_runtime.model.mask_iou_network import read_mask_iou
from yolact_runtime.model.model_file import ModelFile

THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]
PICTURES = SegmenterOptions(min_confidence=0.1)
FRAME = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
TENSORS = tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape)  # type: ignore[arg-type]  # three numbers
OUTPUTS = raw_outputs(small_manifest(), THINGS)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    share_kernels(monkeypatch)
    return folder


@pytest.fixture
def device() -> Iterator[Device]:
    with host_gpu() as device:
        yield device


@pytest.fixture
def install(device: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTensorRt]:
    """Puts a fake TensorRT in place of the real one, with a GPU."""

    def put(tensors: Any = TENSORS, function: Any = None, **changes: Any) -> FakeTensorRt:
        return put_in_place(monkeypatch, FakeTensorRt(device, tensors, function or replay([OUTPUTS]), **changes))

    return put


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "m.bundle", THINGS)


needs_kernels = needs_tool("g++")


# --- from a bundle to instances ---------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_a_bundle_with_an_engine_runs_on_it(
    bundle: Path, install: Callable[..., FakeTensorRt], rtx: bool, dynamic_batch: bool
) -> None:
    add_engine(bundle, "rtx" if rtx else "tensorrt")
    install(rtx=rtx, dynamic_batch=dynamic_batch)
    with Segmenter.open(bundle, "onnxruntime-cpu", PICTURES) as cpu:
        expected = cpu(FRAME)
    with Segmenter.open(bundle, options=PICTURES) as gpu:
        assert gpu.backend_name == ("tensorrt-rtx" if rtx else "tensorrt")
        assert (gpu.postprocessing, gpu.manifest.precision) == ("gpu", "fp16")
        for found in gpu.stream([FRAME] * 4):
            assert found.class_id.tolist() == expected.class_id.tolist()
            assert found.mask == expected.mask


HALF = NetworkDtypes("float16", "float16")


def half_engine(install: Callable[..., FakeTensorRt], inside: NetworkDtypes) -> FakeTensorRt:
    """An engine whose tensors are float16, and what it says of them."""
    document = dataclasses.replace(small_manifest(), precision="fp16", dtypes=inside).to_json()
    fake = install(name=engine_name(document))
    fake.tensors = tuple(dataclasses.replace(tensor, dtype=np.dtype(np.float16)) for tensor in fake.tensors)
    return fake


@needs_kernels
def test_an_engine_with_float16_inputs_and_outputs_finds_the_same(
    bundle: Path, install: Callable[..., FakeTensorRt]
) -> None:
    add_engine(bundle, dtypes=HALF)
    half_engine(install, HALF)
    found = []
    for on_cpu in (False, True):
        options = dataclasses.replace(PICTURES, cpu_postprocessing=on_cpu)
        with Segmenter.open(bundle, "tensorrt", options) as segmenter:
            assert segmenter.manifest.dtypes == HALF
            found.append(segmenter(FRAME))
    assert found[0].class_id.tolist() == found[1].class_id.tolist() == [0, 2]
    assert found[0].mask == found[1].mask


@pytest.mark.parametrize(
    ("listed", "inside", "message"),
    [
        (
            HALF,
            NetworkDtypes("float16", "float32"),
            "dtypes.outputs is float16 in the bundle's manifest, float32 in the",
        ),
        (None, HALF, "dtypes.input is float32 in the bundle's manifest, float16 in the engine itself"),
        (None, NetworkDtypes(), 'the input "image" is float16, and the manifest says float32'),
    ],
)
def test_dtypes_that_contradict_each_other_are_refused(
    bundle: Path,
    install: Callable[..., FakeTensorRt],
    listed: NetworkDtypes | None,
    inside: NetworkDtypes,
    message: str,
) -> None:
    add_engine(bundle, dtypes=listed)
    half_engine(install, inside)
    with pytest.raises((BundleError, OutputError), match=re.escape(message)):
        Segmenter.open(bundle, "tensorrt", PICTURES)


@needs_kernels
def test_a_robot_needs_no_compiler(
    bundle: Path, install: Callable[..., FakeTensorRt], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_engine(bundle)
    install()
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")
    monkeypatch.setattr("yolact_plugins.compile.cache.default_cache_folder", lambda: cache / "empty")
    with pytest.raises(MissingCubinError, match=rf"--arch sm_87 -o {bundle}"):
        Segmenter.open(bundle)
    assert precompile.main(["--arch", "sm_87", "-o", str(bundle)]) == 0
    monkeypatch.setattr("yolact_plugins.compile.compiler.compile_cubin", None)
    with Segmenter.open(bundle, options=PICTURES) as segmenter:
        assert len(segmenter(FRAME)) == 2


def test_with_post_processing_on_the_cpu(bundle: Path, install: Callable[..., FakeTensorRt]) -> None:
    add_engine(bundle)
    install()
    with Segmenter.open(bundle, "onnxruntime-cpu", PICTURES) as cpu:
        expected = cpu(FRAME)
    options = dataclasses.replace(PICTURES, cpu_postprocessing=True)
    with Segmenter.open(bundle, "tensorrt", options) as segmenter:
        for _ in range(2):
            assert segmenter(FRAME).mask == expected.mask


@pytest.mark.parametrize(
    ("precisions", "asked", "taken"),
    [(["fp32", "fp16", "int8"], None, "int8"), (["fp32", "fp16"], None, "fp16"), (["fp32", "int8"], "fp32", "fp32")],
)
def test_the_best_engine_or_the_one_asked_for(
    bundle: Path, install: Callable[..., FakeTensorRt], precisions: list[str], asked: str | None, taken: str
) -> None:
    for precision in precisions:
        add_engine(bundle, precision=precision)
    install()
    options = SegmenterOptions(cpu_postprocessing=True)
    with Segmenter.open(bundle, "auto", options, asked) as segmenter:
        assert segmenter.manifest.precision == taken
    with Segmenter.open(bundle / f"model.{taken}.plan", "auto", options) as segmenter:
        assert (segmenter.manifest.precision, segmenter.backend_name) == (taken, "tensorrt")


def test_an_engine_carries_its_own_manifest(bundle: Path, install: Callable[..., FakeTensorRt]) -> None:
    add_engine(bundle)
    manifest = small_manifest(name="from inside")
    install(name=engine_name(manifest.to_json()))
    with TensorRtBackend(bundle / "model.fp16.plan") as backend:
        assert backend.manifest.name == "from inside"


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_a_bundle_without_an_engine_says_how_to_build_one(bundle: Path) -> None:
    with pytest.raises(NoEngineError, match=r"m\.bundle has no engine for it; .*yolact-export .*m\.bundle --engine$"):
        Segmenter.open(bundle, "tensorrt")
    add_engine(bundle)
    with pytest.raises(NoEngineError, match=r"no engine for it; .* --engine --target rtx$"):
        Segmenter.open(bundle, "tensorrt-rtx")
    with pytest.raises(NoEngineError, match="no engine for it in fp32"):
        Segmenter.open(bundle, "tensorrt", precision="fp32")
    with pytest.raises(NoEngineError, match=r"model\.fp16\.plan was built for tensorrt"):
        Segmenter.open(bundle / "model.fp16.plan", "tensorrt-rtx")
    with pytest.raises(NoEngineError, match="engines are built into bundle folders"):
        Segmenter.open(bundle / "model.fp32.onnx", "tensorrt")


def test_an_engine_alone_does_not_run_in_onnx_runtime(bundle: Path) -> None:
    plan = add_engine(bundle)
    with pytest.raises(BackendUnavailableError, match="is an engine, which ONNX Runtime does not run"):
        Segmenter.open(plan, "onnxruntime-cpu")


def test_without_tensorrt_auto_goes_on_and_says_so(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_engine(bundle)
    with Segmenter.open(bundle) as segmenter:
        assert segmenter.backend_name == "onnxruntime-cpu"
    assert [r.levelname for r in caplog.records if "skipped" in r.getMessage()] == ["WARNING"]


def test_an_engine_of_another_machine_stops_auto_too(bundle: Path, install: Callable[..., FakeTensorRt]) -> None:
    add_engine(bundle, compute_capabilities="8.9")
    install()
    with pytest.raises(EngineMismatchError, match="Build it on this machine: yolact-export"):
        Segmenter.open(bundle)


def test_an_rtx_engine_is_not_tried_on_a_gpu_that_rtx_does_not_know(
    bundle: Path, install: Callable[..., FakeTensorRt], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_engine(bundle, "rtx", compute_capabilities="8.0 and later")
    install(rtx=True).refuse.add("deserialize")
    monkeypatch.setattr(engine_file, "find_gpu", lambda: Gpu("Orin", "8.7", "12.6"))
    with pytest.raises(EngineMismatchError, match=r"needs full TensorRT; .* --engine --target tensorrt$"):
        Segmenter.open(bundle)


def test_without_the_drivers_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Device:
        raise CudaUnavailableError("no driver")

    monkeypatch.setattr(adapter, "Device", refuse)
    with pytest.raises(BackendUnavailableError, match="tensorrt: no driver"):
        adapter._open_device("tensorrt")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("deserialize", r"(?s)rejects .*model\.fp16\.rtx\.plan on Host:\n  Error Code 9: deserialize is refused"),
        (
            "context",
            r"(?s)cannot create an execution context.* exhausted:\n  Error Code 9: context is refused",
        ),
        ("shape", r"(?s)rejects the shape \(1, 3, 32, 48\) for image:\n  Error Code 9"),
        ("memory", r"(?s)rejects 4096 bytes of memory to run in:\n  Error Code 9: memory is refused"),
        ("address", r"(?s)rejects memory at 0x.* for .*:\n  Error Code 9"),
        ("execute", r"(?s)cannot run the engine:\n  Error Code 9: execute is refused"),
    ],
)
def test_what_tensorrt_refuses_comes_with_its_log(
    bundle: Path, install: Callable[..., FakeTensorRt], what: str, message: str
) -> None:
    plan = add_engine(bundle, "rtx")
    install(rtx=True).refuse.add(what)
    with pytest.raises(BackendError, match=message), TensorRtBackend(plan, "tensorrt-rtx") as backend:
        backend.infer(np.zeros((1, 3, 32, 48), np.float32))


def test_each_thread_hears_what_tensorrt_says_of_its_own_calls(
    bundle: Path, install: Callable[..., FakeTensorRt]
) -> None:
    plan = add_engine(bundle)
    fake = install()
    together = threading.Barrier(2, timeout=60)
    errors: dict[str, str] = {}

    def complain(call: str) -> None:
        # Both threads are inside their calls before either complains, and until both have.
        together.wait()
        fake.complain(f"of {call} on {threading.current_thread().name}")
        together.wait()

    def fail(name: str, call: Callable[[], None]) -> None:
        with pytest.raises(BackendError) as raised:
            call()
        errors[name] = str(raised.value)

    with TensorRtBackend(plan) as backend, Stream(backend.device) as stream, DeviceBuffer(backend.device, 16) as memory:
        one, other = backend.new_context(), backend.new_context()
        fake.refuse |= {"address", "execute"}
        fake.before_call = complain
        calls = {"one": lambda: one.bind("image", memory.pointer), "other": lambda: other.enqueue(stream)}
        other._context._addresses = {spec.name: memory.pointer for spec in TENSORS}
        threads = [threading.Thread(target=fail, args=item, name=item[0]) for item in calls.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    said = {name: text.split("\n  ")[1:] for name, text in errors.items()}
    assert said == {
        "one": ["Error Code 9: of address on one", "Error Code 9: address is refused"],
        "other": ["Error Code 9: of execute on other", "Error Code 9: execute is refused"],
    }


def test_memory_is_not_freed_under_a_run_that_failed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = add_engine(bundle)
    with host_gpu(strict_free=True) as device:
        fake = put_in_place(monkeypatch, FakeTensorRt(device, TENSORS, replay([OUTPUTS])))
        backend = TensorRtBackend(plan)
        fake.refuse.add("execute")
        with pytest.raises(BackendError, match="cannot run the engine"):
            backend.infer(np.zeros((1, 3, 32, 48), np.float32))
        backend.close()


def test_an_input_of_another_shape(bundle: Path, install: Callable[..., FakeTensorRt]) -> None:
    plan = add_engine(bundle)
    install()
    with TensorRtBackend(plan) as backend:
        with pytest.raises(BackendError, match=r"takes image as \(1, 3, 32, 48\), not \(1, 3, 2, 2\)"):
            backend.infer(np.zeros((1, 3, 2, 2), np.float32))
        assert set(backend.infer(np.zeros((1, 3, 32, 48), np.float32))) == set(OUTPUTS)


def test_a_closed_backend_refuses(bundle: Path, install: Callable[..., FakeTensorRt]) -> None:
    plan = add_engine(bundle)
    install()
    backend = TensorRtBackend(plan)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed; open the model again"):
        backend.infer(np.zeros((1, 3, 32, 48), np.float32))
    with pytest.raises(BackendError, match="closed; open the model again"):
        backend.new_context()


def test_a_type_that_no_kernel_reads(
    bundle: Path, install: Callable[..., FakeTensorRt], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = add_engine(bundle)
    fake = install()
    monkeypatch.setattr(fake, "tensors", (*TENSORS[:-1], dataclasses.replace(TENSORS[-1], dtype=np.dtype(np.int8))))
    with pytest.raises(BackendError, match="the engine's tensor prototype is INT8"):
        TensorRtBackend(plan)


# --- memory of contexts -----------------------------------------------------------------------------------------------


def live(device: Device) -> int:
    """Allocations that were not given back."""
    assert isinstance(device.driver, HostDriver)
    return len(list(device.driver.library.memory.live()))


def test_contexts_of_rtx_get_memory_of_their_own_and_give_it_back(
    bundle: Path, install: Callable[..., FakeTensorRt], device: Device
) -> None:
    plan = add_engine(bundle, "rtx")
    fake = install(rtx=True)
    with TensorRtBackend(plan, "tensorrt-rtx") as backend:
        # The context that is only asked for shapes takes none.
        assert (fake.num_contexts, fake.contexts) == (1, [])
        before = live(device)
        one, other = backend.new_context(), backend.new_context()
        (first, size), (second, _) = (context.memory for context in fake.contexts)  # type: ignore[misc]
        assert size == fake.memory_bytes
        assert abs(first - second) >= size
        one.close()
        one.close()
        with pytest.raises(BackendError, match="the execution context is closed"):
            one.bind("image", first)
        other.close()
        assert live(device) == before


@pytest.mark.parametrize("what", ["shape", "memory"])
def test_a_context_that_is_refused_leaves_no_memory_behind(
    bundle: Path, install: Callable[..., FakeTensorRt], device: Device, what: str
) -> None:
    plan = add_engine(bundle, "rtx")
    fake = install(rtx=True)
    with TensorRtBackend(plan, "tensorrt-rtx") as backend:
        before = live(device)
        fake.refuse.add(what)
        with pytest.raises(BackendError):
            backend.new_context()
        assert live(device) == before


def test_a_gpu_without_room_for_another_context(
    bundle: Path, install: Callable[..., FakeTensorRt], device: Device
) -> None:
    plan = add_engine(bundle, "rtx")
    fake = install(rtx=True)
    with TensorRtBackend(plan, "tensorrt-rtx") as backend:
        fake.memory_bytes = 1 << 50
        before = live(device)
        with pytest.raises(CudaOutOfMemoryError):
            backend.new_context()
        assert live(device) == before
        fake.memory_bytes = 4096
        backend.new_context().close()


def test_an_engine_of_rtx_with_nothing_between_its_layers(bundle: Path, install: Callable[..., FakeTensorRt]) -> None:
    plan = add_engine(bundle, "rtx")
    install(rtx=True).memory_bytes = 0
    with TensorRtBackend(plan, "tensorrt-rtx") as backend:
        assert set(backend.infer(np.zeros((1, 3, 32, 48), np.float32))) == set(OUTPUTS)


def test_kernels_for_a_new_shape_are_compiled_before_they_are_captured(
    bundle: Path, install: Callable[..., FakeTensorRt]
) -> None:
    plan = add_engine(bundle, "rtx")
    fake = install(rtx=True)
    with TensorRtBackend(plan, "tensorrt-rtx") as backend:
        assert backend._cache is not None
        chosen = backend._cache.config.dynamic_shapes_kernel_specialization_strategy
        assert chosen is fake.module.DynamicShapesKernelSpecializationStrategy.EAGER


# --- what TensorRT-RTX compiled ---------------------------------------------------------------------------------------


def test_what_rtx_compiled_is_kept_for_the_next_start(
    bundle: Path, install: Callable[..., FakeTensorRt], cache: Path
) -> None:
    plan = add_engine(bundle, "rtx")
    fake = install(rtx=True)
    for _ in range(2):
        with TensorRtBackend(plan, "tensorrt-rtx") as backend:
            backend.infer(np.zeros((1, 3, 32, 48), np.float32))
    (file,) = (cache / "yolact-deploy" / "rtx").iterdir()
    assert file.read_bytes() == b"compiled"
    assert file.parent.stat().st_mode & 0o077 == 0
    assert fake.caches == [b"compiled"]


@pytest.mark.parametrize("content", [b"of another driver", b""])
def test_a_cache_of_another_machine_is_replaced(
    bundle: Path, install: Callable[..., FakeTensorRt], cache: Path, content: bytes
) -> None:
    plan = add_engine(bundle, "rtx")
    install(rtx=True)
    with TensorRtBackend(plan, "tensorrt-rtx") as backend:
        backend.infer(np.zeros((1, 3, 32, 48), np.float32))
    (file,) = (cache / "yolact-deploy" / "rtx").iterdir()
    file.write_bytes(content)
    with TensorRtBackend(plan, "tensorrt-rtx") as backend:
        backend.infer(np.zeros((1, 3, 32, 48), np.float32))
    assert file.read_bytes() == b"compiled"


def test_a_cache_that_others_may_write_is_not_read(
    bundle: Path, install: Callable[..., FakeTensorRt], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = add_engine(bundle, "rtx")
    fake = install(rtx=True)
    TensorRtBackend(plan, "tensorrt-rtx").close()
    (cache / "yolact-deploy" / "rtx").chmod(0o777)
    TensorRtBackend(plan, "tensorrt-rtx").close()
    assert fake.caches == []
    assert "the cache of TensorRT-RTX is not used: " in caplog.text
    assert "it can be written by every user of this machine" in caplog.text


def test_a_cache_that_others_may_write_is_not_written_either(
    bundle: Path, install: Callable[..., FakeTensorRt], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = add_engine(bundle, "rtx")
    install(rtx=True)
    folder = cache / "yolact-deploy" / "rtx"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with TensorRtBackend(plan, "tensorrt-rtx") as backend:
        backend.infer(np.zeros((1, 3, 32, 48), np.float32))
    assert not list(folder.iterdir())
    assert f"chmod go-w {folder}" in caplog.text


def test_a_cache_that_cannot_be_kept_is_only_said(
    bundle: Path, install: Callable[..., FakeTensorRt], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = add_engine(bundle, "rtx")
    install(rtx=True)
    (cache / "yolact-deploy").write_text("a file where a folder should be")
    with TensorRtBackend(plan, "tensorrt-rtx") as backend:
        backend.infer(np.zeros((1, 3, 32, 48), np.float32))
    assert "is not written, the next start compiles again" in caplog.text


# --- YOLACT++ ---------------------------------------------------------------------------------------------------------


@needs_kernels
def test_the_second_network_runs_among_the_kernels(
    tmp_path: Path, install: Callable[..., FakeTensorRt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A robot has an engine, the kernels, and no ONNX Runtime."""
    prototype = np.kron(DEFAULT_PROTOTYPE, np.ones((1, 8, 8), np.float32))
    bundle = write_bundle(tmp_path / "plus.bundle", THINGS, mask_iou=mask_iou_network_model(3, prototype.shape[1:]))
    add_engine(bundle)
    outputs = raw_outputs(small_manifest(), THINGS, prototype)
    install(tensors=tensor_specs(small_manifest(), prototype.shape), function=replay([outputs]))
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with Segmenter.open(bundle, "tensorrt", PICTURES) as segmenter:
        found = segmenter(FRAME)
    soft = reference.soft_masks(
        prototype, np.eye(3, dtype=np.float32)[:2], np.array([t.xyxy for t in THINGS], np.float32)
    )
    network = read_mask_iou(ModelFile.read(bundle / "mask_iou.fp32.onnx"))
    predicted = reference.mask_iou(soft, network.layers)[[0, 1], [0, 2]]
    assert found.mask_confidence is not None
    np.testing.assert_allclose(found.mask_confidence, found.confidence * predicted, rtol=1e-4)


def test_the_second_network_runs_in_onnx_runtime_where_masks_are_made_on_the_cpu(
    tmp_path: Path, install: Callable[..., FakeTensorRt], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_bundle(tmp_path / "plus.bundle", THINGS, mask_iou=[1, 2, 4])
    assert mask_iou_model([1, 2, 4])
    add_engine(bundle)
    install()
    options = dataclasses.replace(PICTURES, cpu_postprocessing=True)
    with Segmenter.open(bundle, "tensorrt", options) as segmenter:
        assert segmenter(FRAME).mask_confidence is not None
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match="SegmenterOptions\\(mask_rescoring=False\\)"):
        Segmenter.open(bundle, "tensorrt", options)
    with Segmenter.open(bundle, "tensorrt", dataclasses.replace(options, mask_rescoring=False)) as segmenter:
        assert segmenter(FRAME).mask_confidence is None
