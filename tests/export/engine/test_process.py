"""Builds in a process of their own: cancelled, out of memory, crashed. TensorRT-RTX does the real work."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.engine_graphs import small_graph, small_model
from support.recorder import Recorder
from support.scenes import small_manifest
from yolact_export.engine import memory as engine_memory
from yolact_export.engine import process as engine_process
from yolact_export.engine.build import build_engine
from yolact_export.engine.memory import MemoryWatch, available_bytes, default_limit, ladder
from yolact_export.engine.messages import read_message, write_message
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.process import build_in_process
from yolact_export.errors import EngineBuildError, EngineMemoryError, UsageError

MANIFEST = small_manifest().to_json()
RTX = EngineOptions("rtx")


def children() -> set[int]:
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        found |= {int(word) for word in path.read_text().split()}
    return found


@pytest.fixture(autouse=True)
def _no_child_is_left():
    before = children()
    yield
    assert children() <= before


def the_child(before: set[int]) -> int:
    (pid,) = children() - before
    return pid


def test_the_engine_is_the_one_that_is_built_here() -> None:
    told = Recorder()
    built = build_in_process(small_model("int8"), MANIFEST, RTX, reporter=told)
    here = build_engine(small_model("int8"), MANIFEST, RTX)
    assert built.plan == here.plan
    assert built.layers == here.layers
    assert built.facts == here.facts
    assert built.timing_cache is None
    assert told.of("status")[:2] == ["building", "Building engine 0/6"]
    assert told.of("status")[-1] == ""
    assert not told.lines + told.warnings


@pytest.mark.parametrize(
    ("options", "model", "error", "message"),
    [
        (EngineOptions("rtx", compute_capabilities=("9.9",)), small_model("fp32"), UsageError, "compute capability 9"),
        (RTX, b"\x08\x08", EngineBuildError, "not an ONNX model"),
    ],
)
def test_errors_of_the_child_are_errors_here(
    options: EngineOptions, model: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        build_in_process(model, MANIFEST, options)
    assert type(raised.value) is error


# --- cancelling -------------------------------------------------------------------------------------------------------


class StopError(Exception):
    pass


@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt, SystemExit])
def test_what_progress_raises_cancels_the_build(error: type[BaseException]) -> None:
    started = 0.0

    def stop(text: str) -> None:
        nonlocal started
        if text != "building":
            started = time.monotonic()
            raise error

    with pytest.raises(error):
        build_in_process(small_model("fp32"), MANIFEST, RTX, reporter=Recorder(stop))
    assert time.monotonic() - started < engine_process._GRACE_S


def test_a_child_that_does_not_stop_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "_GRACE_S", 0.2)
    before = children()

    def freeze(text: str) -> None:
        if text != "building":
            os.kill(the_child(before), signal.SIGSTOP)
            raise StopError

    with pytest.raises(StopError):
        build_in_process(small_model("fp32"), MANIFEST, RTX, reporter=Recorder(freeze))


SCRIPT = """
import os, sys, signal
from pathlib import Path
from support.engine_graphs import small_model
from support.recorder import Recorder
from support.scenes import small_manifest
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.process import build_in_process
# A job in a shell's background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
def tell(text):
    if text != "building":
        print(*[path.read_text() for path in Path("/proc/self/task").glob("*/children")], flush=True)
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
build_in_process(small_model("fp32"), small_manifest().to_json(), EngineOptions("rtx"), reporter=Recorder(tell))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_parent_that_is_interrupted_or_killed_leaves_no_build_behind(name: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == -getattr(signal, name)
    (pid,) = {int(word) for word in done.stdout.split()}
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, "the build goes on without its parent"
        time.sleep(0.02)


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_crash_is_an_error_with_the_end_of_the_log(name: str) -> None:
    before = children()

    def crash(text: str) -> None:
        if text != "building":
            os.kill(the_child(before), getattr(signal, name))

    words = rf"(?s)crashed: it ended by {name}\. Another --builder-level.*last messages:\n.*\n  Fatal Python error: "
    with pytest.raises(EngineBuildError, match=words):
        build_in_process(small_model("fp32"), MANIFEST, RTX, reporter=Recorder(crash))


def test_a_killed_build_is_memory_that_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's way of saying so; it tries again with less."""
    before, attempts = children(), []

    def kill(text: str) -> None:
        if text.startswith("building"):
            attempts.append(text)
        elif len(attempts) == 1:
            os.kill(the_child(before), signal.SIGKILL)

    built = build_in_process(small_model("fp32"), MANIFEST, RTX, reporter=Recorder(kill))
    assert attempts == ["building", "building with 1074 MB workspace, level 3"]
    assert built.facts["workspace_bytes"] == str(1 << 30)


def test_a_build_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "_BOOT", "raise SystemExit('no luck')")
    with pytest.raises(EngineBuildError, match=r"(?s)ended with status 1.*no luck"):
        build_in_process(small_model("fp32"), MANIFEST, RTX)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_too_little_memory_is_tried_with_less_and_less_and_then_explained() -> None:
    told = Recorder()
    options = EngineOptions("rtx", memory_limit_bytes=20 << 20)
    with pytest.raises(EngineMemoryError) as raised:
        build_in_process(small_model("fp32"), MANIFEST, options, reporter=told)
    assert raised.value.exit_status == 6
    assert sum(text.startswith("building") for text in told.of("status")) == 4
    text = str(raised.value)
    assert text.startswith("building the engine needs more memory than is available:\n  with default workspace")
    assert text.count("but only 21 MB are allowed") == 4
    assert "allow more with --memory-limit" in text


def test_a_step_with_too_little_workspace_ends_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_memory, "_SMALLEST_WORKSPACE", 1)
    monkeypatch.setattr(engine_memory, "_FIRST_WORKSPACE", 1)
    before, attempts = children(), []

    def kill_the_first(text: str) -> None:
        if text.startswith("building"):
            attempts.append(text)
        elif len(attempts) == 1:
            os.kill(the_child(before), signal.SIGKILL)

    with pytest.raises(EngineMemoryError, match=r"with 0 MB workspace, level 3: tensorrt_rtx \S+ did not build"):
        build_in_process(small_model("fp32"), MANIFEST, RTX, reporter=Recorder(kill_the_first))
    assert len(attempts) == 2


def test_the_ladder_goes_down() -> None:
    steps = [(step.workspace_bytes, step.optimisation_level) for step in ladder(EngineOptions("rtx", 1 << 30, 4))]
    assert steps == [(1 << 30, 4), (1 << 28, 4), (1 << 26, 1), (1 << 26, 0)]
    assert [step.workspace_bytes for step in ladder(EngineOptions("rtx", 1 << 20, 0))] == [1 << 20]


def test_the_watch_sees_a_process_and_its_limit() -> None:
    watch = MemoryWatch(os.getpid(), None)
    assert watch.excess() is None
    assert watch.peak_bytes > 10 << 20
    assert (
        MemoryWatch(os.getpid(), 1 << 20).excess()
        == f"it used {watch.peak_bytes / 1e6:.0f} MB, but only 1 MB are allowed"
    )
    assert MemoryWatch(2**30, 1).excess() is None


def test_a_machine_without_memory_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_memory, "_RESERVE_BYTES", 1 << 60)
    excess = MemoryWatch(os.getpid(), None).excess()
    assert excess is not None
    assert excess.startswith("this machine had only ")


def test_free_memory_is_found_out() -> None:
    free, limit = available_bytes(), default_limit()
    assert free is not None
    assert limit is not None
    assert 0 < limit < free < 1 << 50


# --- messages ---------------------------------------------------------------------------------------------------------


def test_messages_arrive_and_a_cut_one_is_the_end() -> None:
    stream = io.BytesIO()
    write_message(stream, {"type": "a"}, b"payload")
    write_message(stream, {"type": "ü"})
    content = stream.getvalue()
    stream = io.BytesIO(content)
    assert [read_message(stream) for _ in range(3)] == [({"type": "a"}, b"payload"), ({"type": "ü"}, b""), None]
    for length in range(len(content)):
        stream = io.BytesIO(content[:length])
        while (message := read_message(stream)) is not None:
            assert message == ({"type": "a"}, b"payload")


def test_external_data_never_reaches_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    monkeypatch.chdir(tmp_path)
    model = small_graph("fp32")
    onnx.save(model, "model.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    with pytest.raises(EngineBuildError, match="6 tensors in other files"):
        build_in_process(Path("model.onnx").read_bytes(), MANIFEST, RTX)
