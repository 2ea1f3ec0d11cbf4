"""TensorRT's packages are imported with a reason when it fails, and have one logger."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from yolact_runtime.backends import tensorrt_library
from yolact_runtime.backends.tensorrt_library import LogLine, load_tensorrt, module_name, version_numbers
from yolact_runtime.errors import BackendUnavailableError, MissingDependencyError, UsageError


def test_the_library_is_loaded_once() -> None:
    pytest.importorskip("tensorrt_rtx")
    library = load_tensorrt("rtx")
    assert library is load_tensorrt("rtx")
    assert library.module.__name__ == "tensorrt_rtx"
    assert library.version_numbers >= (1, 7)


def test_an_unknown_target() -> None:
    with pytest.raises(UsageError, match='no TensorRT target "trt"; there are tensorrt, rtx'):
        module_name("trt")


def test_versions() -> None:
    assert version_numbers("10.3.0") == (10, 3, 0)
    assert version_numbers("11.4.0.106") == (11, 4, 0)
    assert version_numbers("10.13.3.post1") < version_numbers("11.0")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a file as the package ``tensorrt``, which this machine has not."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tensorrt_library, "_loaded", {})
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    def write(text: str) -> None:
        (tmp_path / "tensorrt.py").write_text(text)

    yield write
    sys.modules.pop("tensorrt", None)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("raise OSError('libnvinfer.so.10: cannot open')", BackendUnavailableError, r"not load: libnvinfer\.so\.10"),
        ("raise ImportError('libnvdla_compiler.so')", BackendUnavailableError, "libnvdla_compiler.*On a Jetson all"),
        ("import not_there_at_all", BackendUnavailableError, "cannot be imported: No module named 'not_there_at_all'"),
        ("__version__ = '10.3.0'", BackendUnavailableError, "without its libraries: the module has no Builder"),
        ("__version__ = '8.6.1'\nBuilder = 1", BackendUnavailableError, r"tensorrt 8\.6\.1 is too old: 10\.3"),
        (
            "raise ModuleNotFoundError('No module', name='tensorrt')",
            MissingDependencyError,
            r"python3-libnvinfer.*yolact-deploy\[tensorrt\]",
        ),
    ],
)
def test_what_keeps_a_package_from_loading(package, text: str, error: type[Exception], message: str) -> None:
    package(text)
    with pytest.raises(error, match=message):
        load_tensorrt("tensorrt")


@pytest.mark.parametrize(("target", "name"), [("tensorrt", "tensorrt"), ("rtx", "tensorrt_rtx")])
def test_a_missing_package_names_the_extra_of_the_drivers_cuda(
    monkeypatch: pytest.MonkeyPatch, target: str, name: str
) -> None:
    monkeypatch.setattr(tensorrt_library, "_loaded", {})
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(tensorrt_library, "cuda_extra", lambda: "cuda12")
    with pytest.raises(MissingDependencyError, match=rf"yolact-deploy\[{target}-cuda12\]"):
        load_tensorrt(target)


def test_every_sink_hears_every_thread_while_it_listens() -> None:
    pytest.importorskip("tensorrt_rtx")
    library = load_tensorrt("rtx")
    one: list[LogLine] = []
    other: list[LogLine] = []
    severity = library.module.ILogger.Severity

    def speak(text: str) -> None:
        thread = threading.Thread(target=library.logger.log, args=(severity.INTERNAL_ERROR, text))
        thread.start()
        thread.join()

    speak("before")
    with library.listen(one.append):
        speak("first")
        with library.listen(other.append):
            speak("second")
        library.logger.log(severity.VERBOSE, "third")
    speak("after")
    assert [line.text for line in one] == ["first", "second", "third"]
    assert other == [LogLine("internal error", "second")]
    assert one[0].is_error
    assert not one[2].is_error


def test_a_log_of_calls_holds_what_its_own_thread_heard() -> None:
    library = load_tensorrt("rtx")
    severity = library.module.ILogger.Severity

    def speak(text: str, collects: bool) -> None:
        if collects:
            with library.collect():
                library.logger.log(severity.ERROR, text)
        else:
            library.logger.log(severity.WARNING, text)

    with library.collect() as log:
        assert log.tail() == "; it logged nothing"
        for arguments in (("of another caller", True), ("of a thread of TensorRT's", False)):
            thread = threading.Thread(target=speak, args=arguments)
            thread.start()
            thread.join()
        assert not log.has_errors
        library.logger.log(severity.INFO, "not a complaint")
        with library.collect() as inner:
            library.logger.log(severity.ERROR, "mine")
    library.logger.log(severity.ERROR, "later")
    assert inner.tail() == ":\n  mine"
    assert log.tail() == ":\n  of a thread of TensorRT's\n  mine"
    assert log.has_errors


def test_what_a_library_builds_for() -> None:
    assert load_tensorrt("rtx").compute_capabilities[:4] == ("7.5", "8.0", "8.6", "8.9")
    assert {"8.7", "9.0", "11.0"}.isdisjoint(load_tensorrt("rtx").compute_capabilities)


def test_tensorrt_itself_speaks_to_the_sinks() -> None:
    pytest.importorskip("tensorrt_rtx")
    library = load_tensorrt("rtx")
    lines: list[LogLine] = []
    with library.listen(lines.append):
        parser_network = library.module.Builder(library.logger).create_network(0)
        assert not library.module.OnnxParser(parser_network, library.logger).parse(b"no model")
    assert any(line.is_error for line in lines)
