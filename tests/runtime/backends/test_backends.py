from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import yolact_runtime.backends.select as select_module
from support.scenes import mask_iou_model
from yolact_plugins.driver import gpu
from yolact_plugins.errors import CudaUnavailableError, NoDriverError
from yolact_runtime.backends import BACKENDS, FakeBackend, create_backend
from yolact_runtime.backends.base import Backend
from yolact_runtime.backends.cuda_driver import find_gpu
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend, float16_note
from yolact_runtime.errors import BackendError, BackendUnavailableError, NoEngineError, UsageError

MASKS = np.stack([np.full((1, 4, 6), 0.5), np.full((1, 4, 6), 1.0)]).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``mask (n, 1, Hp, Wp) -> mask_iou (n, 3)``: the mean of a mask times 1, 2, 4."""
    path = tmp_path / "mask_iou.onnx"
    path.write_bytes(mask_iou_model([1, 2, 4]))
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-cpu"])
def test_float16_on_a_cpu_needs_a_word(precision: str) -> None:
    holds_float16 = precision in {"fp16", "int8"}
    assert (float16_note("onnxruntime-cpu", precision) is not None) == holds_float16
    assert {float16_note(name, precision) for name in BACKENDS if name != "onnxruntime-cpu"} == {None}


# --- fake -------------------------------------------------------------------------------------------------------------


def test_fake_replays_in_turn_and_the_last_for_ever() -> None:
    backend = FakeBackend([{"y": np.array([1.0])}, {"y": np.array([2.0])}])
    tensor = np.zeros((1, 3, 2, 2), np.float32)
    assert [backend.infer(tensor)["y"].item() for _ in range(4)] == [1, 2, 2, 2]
    assert len(backend.tensors) == 4
    assert backend.tensors[0] is tensor


def test_fake_outputs_belong_to_the_caller() -> None:
    backend = FakeBackend([{"y": np.array([1.0])}])
    backend.infer(np.zeros(1, np.float32))["y"][:] = 9
    assert backend.infer(np.zeros(1, np.float32))["y"].item() == 1


def test_fake_needs_something_to_replay() -> None:
    with pytest.raises(BackendError, match="at least one set of outputs"):
        FakeBackend([])


def test_a_closed_fake_refuses() -> None:
    backend = FakeBackend([{"y": np.array([1.0])}])
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.infer(np.zeros(1, np.float32))


# --- ONNX Runtime -----------------------------------------------------------------------------------------------------


def test_runs_a_model_and_names_its_outputs(model: Path) -> None:
    backend = OnnxRuntimeBackend(model)
    outputs = backend.infer(MASKS)
    assert list(outputs) == ["mask_iou"]
    np.testing.assert_allclose(outputs["mask_iou"], [[0.5, 1, 2], [1, 2, 4]])
    assert backend.name == "onnxruntime-cpu"


def test_outputs_are_not_changed_by_a_later_call(model: Path) -> None:
    backend = OnnxRuntimeBackend(model)
    first = backend.infer(MASKS)["mask_iou"]
    kept = first.copy()
    backend.infer(MASKS * 3)
    assert (first == kept).all()
    first[:] = 0  # and they are the caller's to write
    assert (backend.infer(MASKS)["mask_iou"] == kept).all()


@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_any_number_of_threads(model: Path, num_threads: int) -> None:
    assert OnnxRuntimeBackend(model, num_threads=num_threads).infer(MASKS)["mask_iou"].shape == (2, 3)


def test_an_input_the_model_does_not_take(model: Path) -> None:
    with pytest.raises(BackendError, match=r"onnxruntime-cpu: the model failed on an input of shape \(2, 4\)"):
        OnnxRuntimeBackend(model).infer(np.zeros((2, 4), np.float32))


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"\x0a\x03abc" * 40])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.onnx"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"onnxruntime-cpu: .*cannot load .*wrong\.onnx") as raised:
        OnnxRuntimeBackend(path)
    assert not isinstance(raised.value, BackendUnavailableError)
    assert raised.value.__cause__ is not None


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"cannot load .*missing\.onnx"):
        OnnxRuntimeBackend(tmp_path / "missing.onnx")


def test_a_closed_backend_refuses(model: Path) -> None:
    backend = OnnxRuntimeBackend(model)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed; open the model again"):
        backend.infer(MASKS)


def test_cuda_without_the_provider_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        BackendUnavailableError,
        match=r"onnxruntime-cuda: this build of ONNX Runtime .* has no CUDAExecutionProvider; it has CPUExecution.*"
        r"pip install onnxruntime-gpu$",
    ):
        OnnxRuntimeBackend(model, "onnxruntime-cuda")
    assert create_backend("auto", model).name == "onnxruntime-cpu"


def test_without_onnxruntime_the_extra_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # type: ignore[arg-type]  # makes the import fail
    with pytest.raises(BackendUnavailableError, match=r"pip install \"yolact-deploy\[ort\]\""):
        OnnxRuntimeBackend(model)
    with pytest.raises(BackendUnavailableError, match="no backend can run this model here") as raised:
        create_backend("auto", model)
    assert str(raised.value).count("yolact-deploy[ort]") == 1


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="needs a machine where CUDA does not start"
)
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available")
def test_a_silent_fall_back_to_the_cpu_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    providers = ["CUDAExecutionProvider", *onnxruntime.get_available_providers()]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    with pytest.raises(BackendUnavailableError, match="does not start on this machine"):
        OnnxRuntimeBackend(model, "onnxruntime-cuda")


# --- choosing ---------------------------------------------------------------------------------------------------------


class _Factory:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[Path, int]] = []

    def __call__(self, model: Path, num_threads: int) -> FakeBackend:
        self.calls.append((model, num_threads))
        if self.error:
            raise self.error
        return FakeBackend([{"y": np.zeros(1)}])


def _factories(monkeypatch: pytest.MonkeyPatch, factories: Mapping[str, _Factory]) -> None:
    monkeypatch.setattr(select_module, "BACKENDS", factories)


def test_engines_come_first_and_the_cpu_last() -> None:
    assert list(BACKENDS) == ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu"]


def test_a_backend_by_name(model: Path) -> None:
    assert create_backend("onnxruntime-cpu", model, num_threads=1).name == "onnxruntime-cpu"


def test_a_name_that_is_not_known_lists_those_that_are(model: Path) -> None:
    with pytest.raises(UsageError, match='no backend "openvino"; there are auto, tensorrt, tensorrt-rtx, onnx'):
        create_backend("openvino", model)


def test_auto_takes_the_first_that_is_available_and_logs_why_not_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = _Factory(BackendUnavailableError("no driver")), _Factory(), _Factory()
    _factories(monkeypatch, {"a": first, "b": second, "c": third})
    with caplog.at_level(logging.INFO, "yolact_runtime"):
        create_backend("auto", Path("m.onnx"), 3)
    assert second.calls == [(Path("m.onnx"), 3)]
    assert third.calls == []
    assert [record.getMessage() for record in caplog.records] == ["skipped: no driver"]


def test_an_engine_that_does_not_run_is_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    none, broken = _Factory(NoEngineError("no engine")), _Factory(BackendUnavailableError("no GPU"))
    _factories(monkeypatch, {"tensorrt": none, "tensorrt-rtx": broken, "onnxruntime-cpu": _Factory()})
    with caplog.at_level(logging.INFO, "yolact_runtime"):
        create_backend("auto", Path("m.onnx"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "skipped: no engine"),
        ("WARNING", "skipped: no GPU"),
    ]


@pytest.mark.parametrize(("cause", "level"), [(NoDriverError, "INFO"), (CudaUnavailableError, "WARNING")])
def test_an_engine_on_a_machine_without_a_gpu_is_no_news(
    cause: type[CudaUnavailableError], level: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without_driver(library: str) -> None:
        raise cause("there is no NVIDIA driver here")

    def broken(model: Path, num_threads: int = 0) -> Backend:
        return find_gpu()  # type: ignore[return-value]

    monkeypatch.setattr(gpu, "find_gpu", without_driver)
    _factories(monkeypatch, {"tensorrt": broken, "onnxruntime-cpu": _Factory()})
    with caplog.at_level(logging.INFO, "yolact_runtime"):
        create_backend("auto", Path("m.onnx"))
    ((found, message),) = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert (found, message) == (level, "skipped: there is no NVIDIA driver here")
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver"):
        create_backend("tensorrt", Path("m.onnx"))


def test_auto_does_not_look_further_when_the_file_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    second = _Factory()
    _factories(monkeypatch, {"a": _Factory(BackendError("bad model")), "b": second})
    with pytest.raises(BackendError, match="bad model"):
        create_backend("auto", Path("m.onnx"))
    assert second.calls == []


def test_auto_gives_every_reason_once(monkeypatch: pytest.MonkeyPatch) -> None:
    same = BackendUnavailableError("no library")
    _factories(
        monkeypatch, {"a": _Factory(same), "b": _Factory(same), "c": _Factory(BackendUnavailableError("no driver"))}
    )
    with pytest.raises(BackendUnavailableError) as raised:
        create_backend("auto", Path("m.onnx"))
    assert str(raised.value) == "no backend can run this model here:\n  no library\n  no driver"


def test_a_named_backend_is_not_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    second = _Factory()
    _factories(monkeypatch, {"a": _Factory(BackendUnavailableError("no driver")), "b": second})
    with pytest.raises(BackendUnavailableError, match=r"^no driver$"):
        create_backend("a", Path("m.onnx"))
    assert second.calls == []
