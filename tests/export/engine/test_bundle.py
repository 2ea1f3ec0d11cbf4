"""Engines are built into bundles, with NumPy and TensorRT alone."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.engine_graphs import CONVOLUTIONS, small_model, write_engine_bundle
from support.precompiled import with_kernels
from support.recorder import Recorder
from support.staged import TOKEN
from yolact_export import bundle_writer
from yolact_export.bundle_writer import carry_over, check_destination
from yolact_export.engine import bundle as engine_bundle
from yolact_export.engine.build import BuiltEngine
from yolact_export.engine.bundle import build_engines, engine_precisions
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.process import build_in_process
from yolact_export.errors import EngineBuildError, UsageError
from yolact_plugins.compile import manifest_entry
from yolact_plugins.compile.manifest_entry import KERNELS_ARTEFACT
from yolact_plugins.files import write_atomically
from yolact_runtime.backends.engine_file import find_engine, read_engine
from yolact_runtime.errors import BundleError, SelfTestError
from yolact_runtime.model.bundle import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    SIGNATURE_RECORD_NAME,
    file_sha256,
    open_bundle,
    read_manifest,
)
from yolact_runtime.model.kernel_folder import bundle_kernels
from yolact_runtime.model.manifest import Artefact, NetworkDtypes
from yolact_runtime.model.manifest_signature import encode_record

RTX = EngineOptions("rtx")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_precision_gets_its_engine(tmp_path: Path) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32", "fp16", "int8", "int8-cpu"))
    before = names(bundle)
    told = Recorder()
    written = build_engines(bundle, None, RTX, reporter=told)
    assert names(bundle) == sorted([*before, *(f"model.{p}.rtx.plan" for p in ("fp16", "fp32", "int8"))])
    assert [engine.arithmetic() for engine in written] == [{"Float": 3}, {"Half": 3}, {"Int8": 3}]
    assert {engine.num_convolutions for engine in written} == {len(CONVOLUTIONS)}
    for engine in written:
        found = find_engine(bundle, engine.precision, "rtx")
        assert found.artefact == engine.artefact == read_manifest(bundle).artefacts[engine.path.name]
        assert found.artefact.sha256 == file_sha256(engine.path)
        assert found.artefact.build["onnx_sha256"] == file_sha256(bundle / f"model.{engine.precision}.onnx")
        assert found.artefact.dtypes == read_manifest(bundle).artefacts[f"model.{engine.precision}.onnx"].dtypes
        assert found.artefact.dtypes is not None
        assert len(read_engine(found)) == found.artefact.size_bytes
        assert not engine.built.plan
    assert "model.int8.rtx.plan: " in told.lines[-1]
    assert told.lines[-1].endswith("convolutions: 3 Int8")
    # It is still a bundle for ONNX Runtime, and may be replaced by an export.
    assert open_bundle(bundle).network.path.name == "model.int8-cpu.onnx"
    check_destination(bundle)


def test_a_second_build_replaces_the_first_and_removes_a_signature(tmp_path: Path) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    first = build_engines(bundle, ["fp32"], RTX)
    (bundle / SIGNATURE_NAME).write_bytes(bytes(64))
    (bundle / SIGNATURE_RECORD_NAME).write_bytes(encode_record("SHA256:0", (bundle / MANIFEST_NAME).read_bytes()))
    check_destination(bundle)
    changes = []
    options = EngineOptions("rtx", compute_capabilities=("8.6",))
    second = build_engines(bundle, ["fp32"], options, seal=lambda *change: changes.append(change))
    assert first[0].artefact.sha256 != second[0].artefact.sha256
    assert read_manifest(bundle).artefacts["model.fp32.rtx.plan"].build["compute_capabilities"] == "8.6"
    assert not {SIGNATURE_NAME, SIGNATURE_RECORD_NAME} & set(names(bundle))
    ((before, after),) = changes
    assert before.artefacts["model.fp32.rtx.plan"] == first[0].artefact
    assert after == read_manifest(bundle)


def test_a_bundle_that_takes_no_files_is_found_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build takes up to an hour on a robot, whose models may well lie on a read-only disk."""

    def refuse(path: Path) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    before = names(bundle)
    monkeypatch.setattr(engine_bundle, "build_in_process", lambda *_: pytest.fail("built"))
    monkeypatch.setattr("yolact_plugins.staging._new_file", refuse)
    with pytest.raises(OSError, match=r"Read-only file system: '.*model\.fp32\.rtx\.plan'"):
        build_engines(bundle, None, RTX)
    assert names(bundle) == before


def test_builders_of_one_bundle_lose_nothing_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has read the manifest and is about to write it waits for another who has read it, too: there is none."""
    bundle = write_engine_bundle(tmp_path / "b", ("fp32", "fp16"))
    built, meeting = threading.Barrier(3), threading.Barrier(2)

    def build(*arguments: Any) -> BuiltEngine:
        engine = build_in_process(*arguments)
        built.wait(60)
        return engine

    def write(path: Path, content: bytes) -> None:
        if path.name == MANIFEST_NAME:
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(1)
        write_atomically(path, content)

    monkeypatch.setattr(engine_bundle, "build_in_process", build)
    for module in (bundle_writer, manifest_entry):
        monkeypatch.setattr(module, "write_atomically", write)

    def compile_kernels() -> None:
        built.wait(60)
        with_kernels(bundle, "sm_87")

    builders = [functools.partial(build_engines, bundle, [precision], RTX) for precision in ("fp32", "fp16")]
    threads = [threading.Thread(target=work) for work in (*builders, compile_kernels)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meeting.broken
    engines = {"model.fp32.rtx.plan", "model.fp16.rtx.plan"}
    assert {*engines, KERNELS_ARTEFACT} <= set(read_manifest(bundle).artefacts)
    for precision in ("fp32", "fp16"):
        assert read_engine(find_engine(bundle, precision, "rtx"))
    assert bundle_kernels(bundle, read_manifest(bundle))


def test_only_the_engine_that_failed_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another builder may have put a better one there meanwhile."""
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    another: list[Artefact] = []

    def fail_late(folder: Path, *_: object) -> None:
        monkeypatch.setattr(engine_bundle, "try_engine", lambda *_: None)
        options = EngineOptions("rtx", compute_capabilities=("8.6",))
        another.append(build_engines(folder, None, options)[0].artefact)
        raise SelfTestError("it differs")

    monkeypatch.setattr(engine_bundle, "try_engine", fail_late)
    with pytest.raises(SelfTestError, match="it differs"):
        build_engines(bundle, None, RTX)
    assert read_manifest(bundle).artefacts["model.fp32.rtx.plan"] == another[0]
    assert read_engine(find_engine(bundle, "fp32", "rtx"))


def test_what_a_killed_builder_has_left(tmp_path: Path) -> None:
    """The beginning of a plan under its hidden name, or a whole one that is not listed: an export may replace it."""
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    left = [f".model.fp32.rtx.plan.{TOKEN}.tmp", f".manifest.json.{TOKEN}.tmp", "model.fp16.rtx.plan"]
    for name in left:
        (bundle / name).touch()
    check_destination(bundle)
    copy = tmp_path / "copy"
    copy.mkdir()
    carry_over(bundle, copy)
    assert not [name for name in names(copy) if name.startswith(".")]
    build_engines(bundle, None, RTX)
    assert not [name for name in names(bundle) if name.startswith(".")]


def test_an_engine_that_cannot_be_tried_here_says_where_it_can(tmp_path: Path) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    told = Recorder()
    build_engines(bundle, None, RTX, reporter=told)
    (line,) = (line for line in told.lines if "not tested" in line)
    assert line.startswith("model.fp32.rtx.plan: not tested, because ")
    assert line.endswith(f". On the robot: yolact-run {bundle} --self-test")


def test_an_engine_that_fails_its_self_test_is_kept_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32", "fp16"))
    tried: list[tuple[str, str, str]] = []

    def fail_the_second(folder: Path, name: str, precision: str, target: str, reporter: object) -> None:
        # It is listed when it is tried: it is opened as a robot opens it.
        assert name in read_manifest(folder).artefacts
        tried.append((name, precision, target))
        if len(tried) == 2:
            raise SelfTestError("it differs")

    monkeypatch.setattr(engine_bundle, "try_engine", fail_the_second)
    told = Recorder()
    with pytest.raises(SelfTestError, match="it differs"):
        build_engines(bundle, None, RTX, reporter=told)
    assert tried == [("model.fp32.rtx.plan", "fp32", "rtx"), ("model.fp16.rtx.plan", "fp16", "rtx")]
    assert told.lines[-1] == "model.fp16.rtx.plan is not used; it is kept as model.fp16.rtx.plan.rejected"
    assert "model.fp16.rtx.plan" not in names(bundle)
    assert list(read_manifest(bundle).artefacts) == ["model.fp32.onnx", "model.fp16.onnx", "model.fp32.rtx.plan"]
    # It is nobody's file: an export over the bundle removes it.
    check_destination(bundle)


def test_building_engines_keeps_the_kernels_and_the_other_way_round(tmp_path: Path) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    with_kernels(bundle, "sm_87")
    entry = read_manifest(bundle).artefacts["cubins/cubins.json"]
    (engine,) = build_engines(bundle, None, RTX)
    assert list(read_manifest(bundle).artefacts) == ["model.fp32.onnx", "cubins/cubins.json", "model.fp32.rtx.plan"]
    assert read_manifest(bundle).artefacts["cubins/cubins.json"] == entry
    assert bundle_kernels(bundle, read_manifest(bundle))
    with_kernels(bundle, "sm_90")
    assert read_engine(find_engine(bundle, "fp32", "rtx"))
    assert read_manifest(bundle).artefacts[engine.path.name] == engine.artefact
    check_destination(bundle)


def test_an_interrupt_keeps_the_engines_before_it_and_nothing_else(tmp_path: Path) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32", "fp16"))
    attempts = []

    def stop(text: str) -> None:
        if text == "building":
            attempts.append(text)
        elif len(attempts) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle, None, RTX, reporter=Recorder(stop))
    assert names(bundle) == [MANIFEST_NAME, "model.fp16.onnx", "model.fp32.onnx", "model.fp32.rtx.plan"]
    assert "model.fp32.rtx.plan" in read_manifest(bundle).artefacts
    assert "model.fp16.rtx.plan" not in read_manifest(bundle).artefacts


@pytest.mark.parametrize(
    ("precisions", "error", "message"),
    [
        (["int8-cpu"], UsageError, "int8-cpu is for ONNX Runtime"),
        (["int4"], UsageError, 'engines cannot be built with precision "int4"; TensorRT accepts fp32, fp16, int8'),
        (["fp16"], BundleError, r"has no network of precision fp16 \(it has fp32\); export"),
    ],
)
def test_precisions_that_are_not_there(
    tmp_path: Path, precisions: list[str], error: type[Exception], message: str
) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32", "int8-cpu"))
    assert engine_precisions(bundle) == ("fp32",)
    with pytest.raises(error, match=message):
        build_engines(bundle, precisions, RTX)


def test_a_bundle_for_the_cpu_alone(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no network that TensorRT accepts"):
        build_engines(write_engine_bundle(tmp_path / "b", ("int8-cpu",)), None, RTX)


def test_a_network_that_was_exchanged_is_not_built(tmp_path: Path) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    (bundle / "model.fp32.onnx").write_bytes(small_model("fp32", side=16))
    with pytest.raises(BundleError, match="not the file the manifest describes"):
        build_engines(bundle, None, RTX)
    assert names(bundle) == [MANIFEST_NAME, "model.fp32.onnx"]


@pytest.mark.parametrize("listed", [NetworkDtypes("float16", "float16"), NetworkDtypes("float32", "float16")])
def test_no_engine_is_built_where_the_bundle_contradicts_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: NetworkDtypes
) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp16",))
    manifest, name = read_manifest(bundle), "model.fp16.onnx"
    entry = replace(manifest.artefacts[name], dtypes=listed)
    (bundle / MANIFEST_NAME).write_text(replace(manifest, artefacts={name: entry}).to_json(), encoding="utf-8")
    before = names(bundle)
    monkeypatch.setattr(engine_bundle, "build_in_process", lambda *_: pytest.fail("built"))
    message = (
        rf"input and outputs are {listed.input} and {listed.outputs} in the bundle's manifest, float32 and float32"
    )
    with pytest.raises(BundleError, match=message):
        build_engines(bundle, None, RTX)
    assert names(bundle) == before


def test_a_failed_build_leaves_the_bundle_as_it_was(tmp_path: Path) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    before = (bundle / MANIFEST_NAME).read_bytes()
    with pytest.raises(EngineBuildError, match="--workspace"):
        build_engines(bundle, None, EngineOptions("rtx", workspace_bytes=1))
    assert names(bundle) == [MANIFEST_NAME, "model.fp32.onnx"]
    assert (bundle / MANIFEST_NAME).read_bytes() == before


BLOCKED = """
import sys
from pathlib import Path
from yolact_export.engine.bundle import build_engines
from yolact_export.engine.options import EngineOptions
from yolact_export import errors
from yolact_export.commands import engine_cli
build_engines(Path(sys.argv[1]), None, EngineOptions("rtx"))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "onnx", "onnxruntime", "cv2"}))
"""


def test_a_robot_builds_without_torch_and_onnx(tmp_path: Path) -> None:
    """Packages that fail to import come first on the path of both processes, the command's and the build's."""
    bundle = write_engine_bundle(tmp_path / "b", ("int8",))
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for package in ("torch", "torchvision", "onnx", "onnxruntime", "cv2", "PIL"):
        (blocked / f"{package}.py").write_text(f"raise ImportError('{package} is not for robots')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(blocked), *sys.path])}
    command = [sys.executable, "-c", BLOCKED, str(bundle)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert json.loads((bundle / MANIFEST_NAME).read_text())["artefacts"]["model.int8.rtx.plan"]["role"] == "engine"
