"""ONNX Runtime on CUDA: what is asked of it, which way a frame takes, what follows refusals. The package is the real
one, on a GPU that is none; see :mod:`support.cuda_onnxruntime`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import inspect
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from support.cuda_onnxruntime import CudaOnnxRuntime
from support.host_gpu import HostDriver, host_gpu, share_kernels
from support.properties import example_count
from support.random_network import random_network
from support.scenes import Thing, mask_iou_model, small_manifest, write_bundle
from support.tools import needs_tool
from yolact_plugins.driver.driver import Device, Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_plugins.errors import (
    CudaContextLostError,
    CudaError,
    CudaUnavailableError,
    KernelCompileError,
    MissingDependencyError,
    NoDriverError,
)
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.backends import DeviceBackend, create_backend
from yolact_runtime.backends import onnxruntime as plain
from yolact_runtime.backends import onnxruntime_cuda as adapter
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend, open_on_cuda
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session, run_options
from yolact_runtime.errors import BackendError, BackendUnavailableError

THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]
PICTURES = SegmenterOptions(min_confidence=0.1, num_threads=1)
FRAME = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
MANIFEST = small_manifest()
ILLEGAL_ADDRESS = 700

needs_kernels = needs_tool("g++")


@pytest.fixture(autouse=True)
def kernel_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    share_kernels(monkeypatch)


@pytest.fixture
def device() -> Iterator[Device]:
    with host_gpu(strict_free=True) as device:
        yield device


def driver_of(device: Device) -> HostDriver:
    assert isinstance(device.driver, HostDriver)
    return device.driver


@pytest.fixture
def ort(device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaOnnxRuntime]:
    """In place of the package, with a GPU. At the end no session is left, and none outlived its stream."""
    package = CudaOnnxRuntime(driver_of(device))
    monkeypatch.setitem(sys.modules, "onnxruntime", package)  # type: ignore[arg-type]  # it does what a module does
    monkeypatch.setattr(adapter, "_open_device", lambda: Device(driver=device.driver))
    yield package
    assert package.num_sessions == 0
    assert package.faults == []


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "m.bundle", THINGS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "random.onnx"
    path.write_bytes(random_network(MANIFEST, 1))
    return path


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_names_that_are_asked_for_are_those_of_onnx_runtime() -> None:
    """Parameters of the real package, which takes any names of a configuration, and returns what it was given."""
    bound = ["self", "name", "device_type", "device_id", "element_type", "shape", "buffer_ptr"]
    assert list(inspect.signature(onnxruntime.IOBinding.bind_input).parameters) == bound
    assert list(inspect.signature(onnxruntime.IOBinding.bind_output).parameters) == bound
    run = inspect.signature(onnxruntime.InferenceSession.run_with_iobinding).parameters
    assert list(run)[:3] == ["self", "iobinding", "run_options"]
    options = run_options({adapter._DO_NOT_WAIT: "1"})
    # onnxruntime_run_options_config_keys.h: kOrtRunOptionsConfigDisableSynchronizeExecutionProviders
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
    # onnxruntime_session_options_config_keys.h: kOrtSessionOptionsDisableCPUEPFallback. The CPU's provider knows it:
    with pytest.raises(Exception, match=r"explicitly added the CPU EP .* but also disabled fallback to the CPU EP"):
        open_cpu_session(random_network(MANIFEST, 1), SessionSettings(config={adapter._NO_CPU_NODES: "1"}))


def test_the_session_runs_in_a_stream_of_ours(ort: CudaOnnxRuntime, model: Path) -> None:
    backend = open_on_cuda(model, 1)
    assert isinstance(backend, OnnxRuntimeCudaBackend)
    assert isinstance(backend, DeviceBackend)
    # cuda_execution_provider_info.cc reads the stream as a decimal number; pull request 19229
    assert ort.asked == [{"device_id": "0", "user_compute_stream": str(backend.stream.handle)}]
    assert backend.stream.handle > 2  # none of the default streams
    backend.close()
    backend.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("batch", [1, "batch"])
def test_tensors_are_bound_as_the_model_declares_them(
    ort: CudaOnnxRuntime, device: Device, tmp_path: Path, dtype: Any, batch: int | str
) -> None:
    path = tmp_path / "random.onnx"
    path.write_bytes(random_network(MANIFEST, 1, batch=batch, dtype=dtype, extra=True))
    shapes = {
        "image": (1, 3, 32, 48),
        "box_regression": (1, 90, 4),
        "class_logit": (1, 90, 4),
        "mask_coefficient": (1, 90, 3),
        "prototype": (1, 3, 8, 12),
    }
    with DeviceBuffer(device, 1 << 20) as memory:
        backend = open_on_cuda(path, 1)
        assert isinstance(backend, OnnxRuntimeCudaBackend)
        # The output of whole numbers is nobody's business: it is not computed.
        assert {tensor.name: tensor.shape for tensor in backend.tensors} == shapes
        context = backend.new_context()
        for i, name in enumerate(shapes):
            context.bind(name, memory.pointer + 4096 * i)
        places = enumerate(shapes.items())
        assert ort.bound == [(name, memory.pointer + 4096 * i, shape, np.dtype(dtype)) for i, (name, shape) in places]
        context.close()
        context.close()
        backend.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_run_is_between_what_was_enqueued_before_and_after(
    model: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two contexts in streams of their own, many runs, in any order that events allow: outputs are those of the real
    session for the input that was there in its turn.
    """
    with host_gpu(order=seed) as device:
        package, rng = CudaOnnxRuntime(driver_of(device)), np.random.default_rng(seed)
        monkeypatch.setitem(sys.modules, "onnxruntime", package)  # type: ignore[arg-type]
        backend = OnnxRuntimeCudaBackend(model, Device(driver=device.driver), 1)
        driver, frames, seen = driver_of(device), rng.normal(0, 1, (12, 1, 3, 32, 48)).astype(np.float32), {}
        streams, buffers, contexts = [Stream(device) for _ in range(2)], [], []
        for _ in streams:
            places = {tensor.name: DeviceBuffer(device, 4 * int(np.prod(tensor.shape))) for tensor in backend.tensors}
            contexts.append(backend.new_context())
            for name, buffer in places.items():
                contexts[-1].bind(name, buffer.pointer)
            buffers.append({t.name: places[t.name].array(t.shape, t.dtype) for t in backend.tensors})

        def view(i: int, name: str) -> Any:
            array = buffers[i % 2][name]
            return driver.view(array.pointer, array.shape, array.dtype)

        def write(i: int) -> None:
            view(i, "image")[...] = frames[i]

        def read(i: int) -> None:
            seen[i] = {name: view(i, name).copy() for name in backend.outputs}

        for i in range(len(frames)):
            stream = streams[i % 2]
            driver.enqueue(stream.handle, lambda i=i: write(i))
            contexts[i % 2].enqueue(stream)
            driver.enqueue(stream.handle, lambda i=i: read(i))
        for stream in streams:
            stream.synchronize()
        for i, frame in enumerate(frames):
            expected = backend.infer(frame)
            assert {name: array.tobytes() for name, array in seen[i].items()} == {
                name: array.tobytes() for name, array in expected.items()
            }
        for closing in (*contexts, backend, *streams, *(a.owner for each in buffers for a in each.values())):
            closing.close()
        assert package.num_sessions == 0


def test_a_run_neither_waits_nor_allocates(ort: CudaOnnxRuntime, bundle: Path, device: Device) -> None:
    with Segmenter.open(bundle, "onnxruntime-cuda", PICTURES) as segmenter:
        for _ in range(4):
            segmenter(FRAME)
        bound = len(ort.bound)
        with driver_of(device).recording() as calls:
            segmenter(FRAME)
    assert not [name for name in calls if "Alloc" in name or "Free" in name or "Create" in name]
    assert len([name for name in calls if "Synchronize" in name]) == 1
    # Of the frame: from its stream to the session's, and back, on the GPU.
    assert calls.count("cuStreamWaitEvent") == 2
    assert len(ort.bound) == bound


def test_what_pip_installed_of_cuda_is_loaded_where_it_is(
    ort: CudaOnnxRuntime, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(ort, "preload_dlls", lambda: loaded.append("cuda"), raising=False)
    monkeypatch.setattr(plain, "find_spec", lambda _: None)
    create_backend("onnxruntime-cuda", model, 1).close()
    assert loaded == []
    monkeypatch.setattr(plain, "find_spec", lambda name: name)
    create_backend("onnxruntime-cpu", model, 1).close()
    assert loaded == []
    create_backend("onnxruntime-cuda", model, 1).close()
    assert loaded == ["cuda"]


def test_what_loading_cuda_prints_is_not_among_the_results(
    ort: CudaOnnxRuntime,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As ONNX Runtime does beside a PyTorch for another CUDA; ``--jsonl -`` writes to stdout."""

    def load() -> None:
        sys.stdout.write("Failed to load libcublasLt.so.12\n")
        raise OSError("libcudart.so.12: cannot open")

    monkeypatch.setattr(ort, "preload_dlls", load, raising=False)
    monkeypatch.setattr(plain, "find_spec", lambda name: name)
    create_backend("onnxruntime-cuda", model, 1).close()
    assert capsys.readouterr() == ("", "Failed to load libcublasLt.so.12\n")
    assert warnings_of(caplog) == [
        "ONNX Runtime cannot load the CUDA and cuDNN that pip installed: libcudart.so.12: cannot open"
    ]


class FailingProvider(onnxruntime.InferenceSession):  # type: ignore[misc]  # the package has no types
    """What the real package does when a provider throws: it prints, and tries the CPU, which options may forbid.

    Attributes:
        fails: Whether it does, with the options that it is given.
    """

    fails: Callable[[dict[str, str]], bool] = lambda _: True

    def _create_inference_session(self, providers: list[Any], *others: Any) -> None:
        name, options = providers[0] if isinstance(providers[0], tuple) else (providers[0], {})
        self._fallback_providers = ["CPUExecutionProvider"]
        if name == "CUDAExecutionProvider" and type(self).fails(options):
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient")
        super()._create_inference_session(["CPUExecutionProvider"], *others)
        self._providers = [name]


def test_a_provider_that_throws_is_passed_over(
    ort: CudaOnnxRuntime, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ort, "InferenceSession", FailingProvider, raising=False)
    with Segmenter.open(bundle, options=PICTURES) as segmenter:
        assert segmenter.backend_name == "onnxruntime-cpu"
        assert len(segmenter(FRAME)) == 2
    with pytest.raises(BackendUnavailableError, match="CUDAExecutionProvider does not start on this machine"):
        Segmenter.open(bundle, "onnxruntime-cuda")
    said = capsys.readouterr()
    assert said.out == ""
    assert "CUDA driver version is insufficient" in said.err


def test_a_provider_that_does_not_know_the_stream_runs_without_it(
    ort: CudaOnnxRuntime, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FailingProvider, "fails", lambda options: "user_compute_stream" in options)
    monkeypatch.setattr(ort, "InferenceSession", FailingProvider, raising=False)
    with Segmenter.open(bundle, options=PICTURES) as segmenter:
        assert (segmenter.backend_name, segmenter.postprocessing) == ("onnxruntime-cuda", "cpu")
    (message,) = warnings_of(caplog)
    assert "masks made, on the CPU: onnxruntime-cuda: CUDAExecutionProvider does not start on this machine" in message


@pytest.mark.parametrize("backend", ["auto", "onnxruntime-cuda", "onnxruntime-cpu"])
def test_what_is_left_when_one_of_two_packages_was_removed(
    model: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share a folder; without ``__init__.py`` it is a package all the same, with nothing in it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(
        BackendUnavailableError, match=r"is incomplete: .* pip uninstall -y onnxruntime onnxruntime-gpu"
    ):
        create_backend(backend, model, 1)


# --- which way a frame takes ------------------------------------------------------------------------------------------


@needs_kernels
def test_frames_stay_on_the_gpu_and_it_is_said(
    ort: CudaOnnxRuntime, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ort.starts
    with caplog.at_level(logging.INFO, "yolact_runtime"), Segmenter.open(bundle, options=PICTURES) as segmenter:
        assert (segmenter.backend_name, segmenter.postprocessing) == ("onnxruntime-cuda", "gpu")
        assert repr(segmenter) == (
            "<Segmenter: small fp32 on onnxruntime-cuda, 48 x 32, 3 classes, post-processing on the gpu>"
        )
        for found in segmenter.stream([FRAME] * 6):
            assert found.class_id.tolist() == [0, 2]
    assert repr(segmenter) == "<Segmenter: small fp32 on onnxruntime-cuda, 48 x 32, 3 classes, closed>"
    assert warnings_of(caplog) == []
    assert caplog.text.count("onnxruntime-cuda: frames stay on the GPU, from pixels to masks") == 1
    # Two frames in flight, each with its own memory: it is true of both.
    assert caplog.text.count("onnxruntime-cuda: this network cannot be captured into a CUDA graph") == 1


def refuse(patch: pytest.MonkeyPatch, error: Exception) -> None:
    def open_device() -> Device:
        raise error

    patch.setattr(adapter, "_open_device", open_device)


def no_kernels(patch: pytest.MonkeyPatch, error: Exception) -> None:
    def kernels(*_: object, **_named: object) -> None:
        raise error

    patch.setattr("yolact_runtime.opening.DeviceKernels", kernels)


@pytest.mark.parametrize(
    ("obstacle", "options", "said"),
    [
        (
            lambda _, patch: refuse(patch, MissingDependencyError("cuda-bindings", "Computing on the GPU", "cuda")),
            PICTURES,
            r'needs the package "cuda-bindings".*pip install ".\[cuda\]"',
        ),
        (lambda _, patch: refuse(patch, CudaUnavailableError("does not load")), PICTURES, "does not load"),
        (lambda _, patch: refuse(patch, CudaError("cuInit failed")), PICTURES, "cuInit failed"),
        (
            lambda _, patch: no_kernels(patch, MissingDependencyError("NVRTC", "Compiling kernels", "cuda")),
            PICTURES,
            r'needs the package "NVRTC".*pip install ".\[cuda\]"',
        ),
        (lambda _, patch: no_kernels(patch, KernelCompileError("sm_60?")), PICTURES, r"sm_60\?"),
        (lambda ort, _: setattr(ort, "on_cpu", True), PICTURES, r"some nodes of .*model\.fp32\.onnx on the CPU"),
        (lambda ort, _: setattr(ort, "takes_stream", False), PICTURES, r"user_compute_stream = 0.*install -U"),
        (lambda *_: None, dataclasses.replace(PICTURES, nms="traditional"), "traditional NMS runs on the CPU only"),
        (lambda *_: None, dataclasses.replace(PICTURES, max_instances=300), "keeps up to 256 boxes"),
    ],
)
def test_what_keeps_frames_from_the_gpu_is_said_once(
    ort: CudaOnnxRuntime,
    bundle: Path,
    obstacle: Callable[[CudaOnnxRuntime, pytest.MonkeyPatch], None],
    options: SegmenterOptions,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Segmenter.open(bundle, "onnxruntime-cpu", options) as cpu:
        expected = cpu(FRAME)
    obstacle(ort, monkeypatch)
    with Segmenter.open(bundle, options=options) as segmenter:
        assert (segmenter.backend_name, segmenter.postprocessing) == ("onnxruntime-cuda", "cpu")
        assert "post-processing on the cpu" in repr(segmenter)
        assert ort.num_sessions == 1
        for found in segmenter.stream([FRAME] * 3):
            assert found.mask == expected.mask
    (message,) = warnings_of(caplog)
    assert message.startswith("onnxruntime-cuda: frames are prepared, and masks made, on the CPU: ")
    assert re.search(said, message)


def test_the_cpu_when_it_is_asked_for(ort: CudaOnnxRuntime, bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = dataclasses.replace(PICTURES, cpu_postprocessing=True)
    with Segmenter.open(bundle, "onnxruntime-cuda", options) as segmenter:
        assert segmenter.postprocessing == "cpu"
        assert [len(found) for found in segmenter.stream([FRAME] * 3)] == [2] * 3
    assert ["as requested" in text for text in warnings_of(caplog)] == [True]
    assert ort.asked[0].keys() == {"device_id", "user_compute_stream"}


def test_a_provider_that_finds_no_cuda_is_refused(
    ort: CudaOnnxRuntime, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It falls back to the CPU, and says so in a log of its own."""
    ort.starts = False
    with pytest.raises(BackendUnavailableError, match=r"does not start .*pip install \"onnxruntime-gpu\[cuda,cudnn\]"):
        Segmenter.open(bundle, "onnxruntime-cuda")
    assert warnings_of(caplog) == []
    with Segmenter.open(bundle) as segmenter:
        assert segmenter.backend_name == "onnxruntime-cpu"


def test_a_machine_without_a_driver_is_refused_without_a_word_about_kernels(
    ort: CudaOnnxRuntime, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ort.starts = False
    refuse(monkeypatch, NoDriverError("no driver"))
    with pytest.raises(BackendUnavailableError, match="does not start"):
        Segmenter.open(bundle, "onnxruntime-cuda")
    assert warnings_of(caplog) == []


def test_a_model_with_an_open_shape_runs_on_the_host_way(
    ort: CudaOnnxRuntime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "open.onnx"
    path.write_bytes(mask_iou_model([1, 2, 4]))
    backend = create_backend("onnxruntime-cuda", path, 1)
    assert not isinstance(backend, DeviceBackend)
    assert backend.infer(np.ones((5, 1, 3, 2), np.float32))["mask_iou"].tolist() == [[1, 2, 4]] * 5
    assert ort.num_sessions == 1
    assert "leaves the shape of mask open ((None, 1, None, None)): export it again" in caplog.text
    backend.close()


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"\x0a\x03abc" * 40])
def test_a_file_that_is_no_model(ort: CudaOnnxRuntime, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.onnx"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"onnxruntime-cuda: .*cannot load .*wrong\.onnx") as raised:
        open_on_cuda(path, 1)
    assert not isinstance(raised.value, BackendUnavailableError)
    assert ort.num_sessions == 0


@needs_kernels
def test_masks_are_scored_by_a_session_of_the_hosts(ort: CudaOnnxRuntime, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "pp.bundle", THINGS, mask_iou=[0.5, 0.25, 0.75])
    with Segmenter.open(bundle, "onnxruntime-cpu", PICTURES) as cpu:
        expected = cpu(FRAME)
    with Segmenter.open(bundle, "onnxruntime-cuda", PICTURES) as segmenter:
        assert segmenter.postprocessing == "gpu"
        # Only the network has a stream of ours: the number of masks, hence every shape, changes with the frame.
        assert ["user_compute_stream" in options for options in ort.asked] == [True, False]
        for found in segmenter.stream([FRAME] * 4):
            assert found.mask == expected.mask
            np.testing.assert_allclose(found.mask_confidence, expected.mask_confidence, rtol=1e-5)  # type: ignore[arg-type]
    with Segmenter.open(bundle, "onnxruntime-cuda", dataclasses.replace(PICTURES, mask_rescoring=False)) as segmenter:
        assert segmenter(FRAME).mask_confidence is None


# --- refusals ---------------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("CUDNN_STATUS_EXECUTION_FAILED"), r"cpu_postprocessing=True\), please report it$"),
        (
            RuntimeError("Failed to allocate memory for requested buffer of size 42"),
            "memory is exhausted: .* in flight$",
        ),
    ],
)
def test_a_run_that_fails_leaves_the_next_frame_alone(
    ort: CudaOnnxRuntime, bundle: Path, error: Exception, advice: str
) -> None:
    with Segmenter.open(bundle, "onnxruntime-cuda", PICTURES) as segmenter:
        for _ in range(2):
            assert len(segmenter(FRAME)) == 2
            ort.refuse = error
            with pytest.raises(
                BackendError, match=rf"^onnxruntime-cuda: the network failed: {error}.*{advice}"
            ) as kept:
                segmenter(FRAME)
            assert kept.value.__cause__ is error
            ort.refuse = None
        assert [len(found) for found in segmenter.stream([FRAME] * 5)] == [2] * 5
    # Whoever keeps the error does not keep the session.
    assert ort.num_sessions == 0


@needs_kernels
def test_work_that_a_failed_run_left_behind_keeps_the_memory(
    ort: CudaOnnxRuntime, bundle: Path, device: Device
) -> None:
    """Freeing memory that work refers to is an error on this GPU."""
    segmenter = Segmenter.open(bundle, "onnxruntime-cuda", dataclasses.replace(PICTURES, frames_in_flight=1))
    network = segmenter.network
    assert isinstance(network, OnnxRuntimeCudaBackend)

    def half_a_run() -> None:
        _, pointer, shape, dtype = ort.bound[-1]
        size = int(np.prod(shape)) * dtype.itemsize
        view = driver_of(device).view
        driver_of(device).enqueue(network.stream.handle, lambda: view(pointer, shape, dtype).fill(0), [(pointer, size)])

    ort.before_run, ort.refuse = half_a_run, RuntimeError("half way")
    with pytest.raises(BackendError, match="half way"):
        segmenter(FRAME)
    segmenter.close()


@needs_kernels
def test_the_loss_of_the_context_is_what_is_reported(ort: CudaOnnxRuntime, bundle: Path, device: Device) -> None:
    segmenter = Segmenter.open(bundle, "onnxruntime-cuda", PICTURES)
    assert len(segmenter(FRAME)) == 2
    ort.refuse = RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    def lose() -> None:
        driver_of(device).library.inject = lambda name: ILLEGAL_ADDRESS

    ort.before_run = lose
    with pytest.raises(CudaContextLostError, match="start the process again") as raised:
        segmenter(FRAME)
    assert "illegal memory access" in str(raised.value.__context__)
    with pytest.raises(CudaContextLostError):
        segmenter(FRAME)
    segmenter.close()
    driver_of(device).library.inject = lambda _: None
    # What went with the context was not given back; the fixtures are about those who can.
    assert ort.num_sessions == 0
    device.close()
    ort.faults.clear()
    driver_of(device).leaks = list  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (1, 90, 5)}, "invalid dimensions for output: box_regression"),
        ({"dtype": np.dtype(np.float16)}, "type|float16"),
        ({"name": "nothing"}, "nothing"),
    ],
)
def test_memory_of_another_shape_or_type_is_refused_by_onnx_runtime(
    ort: CudaOnnxRuntime, model: Path, device: Device, change: dict[str, Any], message: str
) -> None:
    """What the adapter binds is what the model declares; this is what happens if it were not."""
    backend = open_on_cuda(model, 1)
    assert isinstance(backend, OnnxRuntimeCudaBackend)
    backend.tensors = tuple(
        dataclasses.replace(tensor, **change) if tensor.name == "box_regression" else tensor
        for tensor in backend.tensors
    )
    ort.at_once = True
    with DeviceBuffer(device, 1 << 20) as memory, Stream(device) as stream:
        context = backend.new_context()

        def run() -> None:
            for i, tensor in enumerate(backend.tensors):
                context.bind(tensor.name, memory.pointer + 40960 * i)
            context.enqueue(stream)

        with pytest.raises(BackendError, match=f"(?s)onnxruntime-cuda.*({message})"):
            run()
        stream.synchronize()
        context.close()
    backend.close()


def test_what_is_closed_says_so(ort: CudaOnnxRuntime, model: Path, device: Device) -> None:
    backend = open_on_cuda(model, 1)
    assert isinstance(backend, OnnxRuntimeCudaBackend)
    context, late = backend.new_context(), backend.new_context()
    context.close()
    with Stream(device) as stream:
        for call in (lambda: context.bind("image", 1), lambda: context.enqueue(stream)):
            with pytest.raises(BackendError, match="context is closed; open the model again"):
                call()
        late.close()
        backend.close()
        for call in (backend.new_context, lambda: backend.infer(np.zeros((1, 3, 32, 48), np.float32))):
            with pytest.raises(BackendError, match="the backend was closed; open the model again"):
                call()
    assert ort.num_sessions == 0


def test_a_context_that_the_driver_refuses_leaks_nothing(ort: CudaOnnxRuntime, model: Path, device: Device) -> None:
    backend = open_on_cuda(model, 1)
    assert isinstance(backend, OnnxRuntimeCudaBackend)
    library, calls = driver_of(device).library, iter([None, 2])
    library.inject = lambda name: next(calls) if name == "cuEventCreate" else None
    with pytest.raises(CudaError):
        backend.new_context()
    library.inject = lambda _: None
    backend.close()
    assert ort.num_sessions == 0


def test_one_run_at_a_time_is_asked_for(ort: CudaOnnxRuntime, model: Path) -> None:
    """A session has one stream, and what a frame puts there stays together."""
    backend = open_on_cuda(model, 1)
    together, met = threading.Barrier(2), []

    def wait() -> None:
        # Whoever is alone here for a while is alone.
        with contextlib.suppress(threading.BrokenBarrierError):
            met.append(together.wait(0.3))

    def run(context: adapter.OnnxRuntimeCudaContext | None) -> None:
        backend.device.make_current()  # type: ignore[attr-defined]
        if context is None:
            backend.infer(np.zeros((1, 3, 32, 48), np.float32))
        else:
            context.enqueue(streams[0])

    assert isinstance(backend, OnnxRuntimeCudaBackend)
    with DeviceBuffer(backend.device, 1 << 20) as memory, Stream(backend.device) as stream:
        streams, contexts = [stream], [backend.new_context() for _ in range(2)]
        for context in contexts:
            for tensor in backend.tensors:
                context.bind(tensor.name, memory.pointer)
        ort.before_run = wait
        for callers in (contexts, [contexts[0], None]):
            threads = [threading.Thread(target=run, args=(caller,)) for caller in callers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            together.reset()
        stream.synchronize()
        for context in contexts:
            context.close()
    assert met == []
    backend.close()


def test_closing_waits_for_what_is_in_the_sessions_stream(ort: CudaOnnxRuntime, model: Path, device: Device) -> None:
    backend = open_on_cuda(model, 1)
    assert isinstance(backend, OnnxRuntimeCudaBackend)
    done: list[int] = []
    driver_of(device).enqueue(backend.stream.handle, lambda: done.append(ort.num_sessions))
    backend.close()
    assert done == [1]


@needs_kernels
def test_closing_waits_for_a_run_that_another_thread_asks_for(
    ort: CudaOnnxRuntime, bundle: Path, device: Device
) -> None:
    segmenter = Segmenter.open(bundle, "onnxruntime-cuda", PICTURES)
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go_on.wait(60)

    ort.before_run = wait
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(segmenter(FRAME)))
    thread.start()
    assert inside.wait(60)
    closing = threading.Thread(target=segmenter.close)
    closing.start()
    go_on.set()
    thread.join(60)
    closing.join(60)
    assert [len(instances) for instances in found] == [2]
    assert ort.num_sessions == 0
    assert driver_of(device).live_memory() == {}


@needs_kernels
def test_every_call_of_the_driver_that_fails_once_leaks_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From opening to closing, with a stream that is stopped early; in a quick run some of them."""
    releases = {"cuMemFree", "cuMemFreeHost", "cuStreamDestroy", "cuEventDestroy", "cuModuleUnload"}
    releases |= {"cuDevicePrimaryCtxRelease", "cuCtxPushCurrent", "cuCtxPopCurrent"}
    number, met = 0, True
    while met:
        calls: list[str] = []

        def inject(name: str, number: int = number, calls: list[str] = calls) -> int | None:
            calls.append(name)
            if len(calls) - 1 == number:
                return 801
            return 0 if name == "cuLaunchKernel" else None

        driver = HostDriver()
        driver.library.inject = inject
        package = CudaOnnxRuntime(driver)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "onnxruntime", package)  # type: ignore[arg-type]
            patch.setattr(adapter, "_open_device", lambda driver=driver: Device(driver=driver))
            _day(model)
        met = len(calls) > number
        name = calls[number] if met else ""
        if package.num_sessions:
            gc.collect()
        assert package.num_sessions == 0, (number, name)
        assert driver.library.misuses == [], (number, name)
        assert len(driver.leaks()) <= (name in releases), (number, name, driver.leaks())
        number += max(5, 500 // example_count(100))


def _day(model: Path) -> None:
    options = dataclasses.replace(PICTURES, frames_in_flight=1)
    try:
        segmenter = Segmenter.open(model, "onnxruntime-cuda", options)
    except (CudaError, BackendError):
        return
    try:
        segmenter(FRAME)
        with segmenter.stream([FRAME] * 2) as results:
            next(results)
    except (CudaError, BackendError):
        pass
    finally:
        with contextlib.suppress(CudaError):
            segmenter.close()


# --- the host's face --------------------------------------------------------------------------------------------------


def test_the_hosts_face_and_frames_on_the_gpu_take_turns(ort: CudaOnnxRuntime, model: Path) -> None:
    frames = np.random.default_rng(3).normal(0, 1, (8, 1, 3, 32, 48)).astype(np.float32)
    reference = OnnxRuntimeBackend(model, num_threads=1)
    backend = create_backend("onnxruntime-cuda", model, 1)
    found: dict[int, Any] = {}

    def infer(i: int) -> None:
        found[i] = backend.infer(frames[i])

    threads = [threading.Thread(target=infer, args=(i,)) for i in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, frame in enumerate(frames):
        for name, array in reference.infer(frame).items():
            assert (found[i][name] == array).all()
    ort.refuse = RuntimeError("no")
    with pytest.raises(BackendError, match=r"onnxruntime-cuda: the model failed on an input of shape \(1, 3, 32, 48\)"):
        backend.infer(frames[0])
    backend.close()
