"""Engines on the machine that runs them: verified and compared before TensorRT sees a byte."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.fake_tensorrt import FakeTensorRt, ILogger, put_in_place
from support.scenes import small_manifest
from yolact_runtime.backends import engine_file
from yolact_runtime.backends.cuda_driver import Gpu, find_gpu
from yolact_runtime.backends.engine_file import (
    EngineFile,
    check_engine,
    engine_file_name,
    find_engine,
    load_engine,
    machine_facts,
    read_engine,
)
from yolact_runtime.backends.tensorrt_library import TensorRtLibrary, load_tensorrt
from yolact_runtime.errors import BackendError, BackendUnavailableError, BundleError, EngineMismatchError
from yolact_runtime.model.bundle import MANIFEST_NAME, file_sha256
from yolact_runtime.model.manifest import Artefact

ORIN = Gpu("Orin", "8.7", "12.6")


def tensorrt(version: str, target: str = "tensorrt", capabilities: tuple[str, ...] = ()) -> Any:
    """An installed TensorRT package that is only asked for its version and for the GPUs that it builds for."""
    members = {f"SM{name.replace('.', '')}": index for index, name in enumerate(capabilities)}
    module = SimpleNamespace(
        __version__=version, ILogger=ILogger, ComputeCapability=SimpleNamespace(__members__={"NONE": 0} | members)
    )
    return TensorRtLibrary(target, module)


JETSON = {
    "target": "tensorrt",
    "library": "tensorrt",
    "library_version": "10.3.0",
    "os": "linux",
    "arch": "aarch64",
    "compute_capabilities": "8.7",
    "gpu": "Orin",
    "version_compatible": "no",
    "hardware_compatible": "no",
}


def write_engine(folder: Path, build: dict[str, str], content: bytes = b"plan", precision: str = "int8") -> EngineFile:
    folder.mkdir(exist_ok=True)
    target = build.get("target", "tensorrt")
    path = folder / engine_file_name(precision, target)
    path.write_bytes(content)
    artefact = Artefact("engine", precision, file_sha256(path), len(content), build)
    manifest = dataclasses.replace(small_manifest(), artefacts={path.name: artefact})
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return find_engine(folder, precision, target)


@pytest.fixture
def on_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_file, "machine_facts", lambda: {"os": "linux", "arch": "aarch64"})


def test_an_engine_is_found_by_its_folder_or_by_itself(tmp_path: Path) -> None:
    file = write_engine(tmp_path / "b", JETSON)
    assert file.path.name == "model.int8.plan"
    assert file.manifest.precision == "int8"
    assert find_engine(file.path, "whatever") == file
    assert read_engine(file) == b"plan"


def test_an_engine_that_is_not_there_comes_with_the_command_that_builds_it(tmp_path: Path) -> None:
    write_engine(tmp_path / "b", JETSON)
    message = (
        r"lists no engine model\.fp16\.rtx\.plan \(engines: model\.int8\.plan\); build it on this machine: "
        r"yolact-export .*/b --engine --target rtx$"
    )
    with pytest.raises(BundleError, match=message):
        find_engine(tmp_path / "b", "fp16", "rtx")


def test_a_bundle_without_an_engine_says_so(tmp_path: Path) -> None:
    write_engine(tmp_path / "b", JETSON)
    network = Artefact("network", "int8", "0" * 64, 4)
    manifest = dataclasses.replace(small_manifest(), artefacts={"model.int8.plan": network})
    (tmp_path / "b" / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    with pytest.raises(BundleError, match=r"lists no engine model\.int8\.plan \(engines: none\)"):
        find_engine(tmp_path / "b", "int8")


def test_the_facts_that_every_engine_holds() -> None:
    assert machine_facts() == {"os": platform.system().lower(), "arch": platform.machine()}
    # Engines of the first releases do not say their target.
    assert EngineFile(Path("b/model.int8.plan"), None, Artefact("engine", "int8", "0" * 64, 4)).target == "tensorrt"


def test_an_engine_without_its_bundle_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "alone.plan").write_bytes(b"plan")
    with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest\.json"):
        find_engine(tmp_path / "alone.plan", "fp32")


def test_an_engine_that_was_exchanged(tmp_path: Path) -> None:
    file = write_engine(tmp_path / "b", JETSON)
    file.path.write_bytes(b"evil")
    with pytest.raises(BundleError, match=r"is not the engine that the manifest lists.*It is not loaded, because"):
        read_engine(file)


def test_an_engine_or_a_folder_that_everybody_may_write(tmp_path: Path) -> None:
    file = write_engine(tmp_path / "b", JETSON)
    file.path.chmod(0o646)
    message = (
        r"int8\.plan belongs to .* written by every user.*an engine is executable code.*chmod go-w .*--verify-key KEY"
    )
    with pytest.raises(BundleError, match=message):
        read_engine(file)
    assert read_engine(file, signed=True) == b"plan"
    file.path.chmod(0o644)
    for mode in (0o757, 0o1777):
        file.path.parent.chmod(mode)
        with pytest.raises(
            BundleError, match=rf"/b belongs to .* has mode {mode:04o}: it can be written by every user"
        ):
            read_engine(file)
        assert read_engine(file, signed=True) == b"plan"
    file.path.parent.chmod(0o755)
    assert read_engine(file) == b"plan"


def test_a_verified_signature_needs_the_hash_all_the_same(tmp_path: Path) -> None:
    file = write_engine(tmp_path / "b", JETSON)
    file.path.write_bytes(b"evil")
    with pytest.raises(BundleError, match="is not the engine that the manifest lists"):
        read_engine(file, signed=True)


def test_an_engine_behind_a_link_or_in_a_pipe(tmp_path: Path) -> None:
    file = write_engine(tmp_path / "b", JETSON)
    elsewhere = file.path.rename(tmp_path / "elsewhere.plan")
    file.path.symlink_to(elsewhere)
    with pytest.raises(BundleError, match=r"int8\.plan is a link.*cp -r --remove-destination .*elsewhere\.plan"):
        read_engine(file)
    assert read_engine(file, signed=True) == b"plan"
    file.path.unlink()
    os.mkfifo(file.path)
    with pytest.raises(BundleError, match=r"int8\.plan is not a regular file"):
        read_engine(file)
    with pytest.raises(BundleError, match=r"int8\.plan: it is not a regular file"):
        read_engine(file, signed=True)


def test_a_lean_runtime_that_others_may_write_is_not_loaded(tmp_path: Path) -> None:
    file = write_engine(tmp_path / "b", JETSON)
    library = tmp_path / "lib" / "libnvinfer_lean.so.10"
    library.parent.mkdir()
    library.write_bytes(b"")
    library.chmod(0o666)
    with pytest.raises(
        BackendError, match=r"lean\.so\.10 belongs to .*the lean runtime is executable code.*chmod go-w"
    ):
        load_engine(file, library)
    with pytest.raises(BackendError, match=r"cannot read the lean runtime .*none: No such file"):
        load_engine(file, tmp_path / "none")


@pytest.mark.usefixtures("on_a_jetson")
def test_the_machine_it_was_built_on(tmp_path: Path) -> None:
    check_engine(write_engine(tmp_path / "b", JETSON), tensorrt("10.3.0"), ORIN)


@pytest.mark.usefixtures("on_a_jetson")
@pytest.mark.parametrize(
    ("build", "version", "gpu", "reason"),
    [
        ({"arch": "x86_64"}, "10.3.0", ORIN, "this machine is linux on aarch64"),
        ({"os": "windows"}, "10.3.0", ORIN, "this machine is linux on aarch64"),
        ({}, "10.16.2", ORIN, "tensorrt 10.16.2 is installed here, and engines fit one version only"),
        ({}, "10.3.0", Gpu("Thor", "11.0", "13.0"), "this machine has Thor (compute capability 11.0)"),
        ({"version_compatible": "yes"}, "10.2.0", ORIN, "tensorrt 10.2.0 is installed here, which is older"),
        ({"compute_capabilities": "8.0 and later"}, "10.3.0", Gpu("Xavier", "7.2", "11.4"), "this machine has Xavier"),
        ({"compute_capabilities": "8.6, 8.9"}, "10.3.0", ORIN, "this machine has Orin (compute capability 8.7)"),
    ],
)
def test_another_machine(tmp_path: Path, build: dict[str, str], version: str, gpu: Gpu, reason: str) -> None:
    file = write_engine(tmp_path / "b", JETSON | build)
    with pytest.raises(EngineMismatchError) as raised:
        check_engine(file, tensorrt(version), gpu)
    text = str(raised.value)
    assert raised.value.exit_status == 5
    assert reason in text
    assert text.endswith(f"Build it on this machine: yolact-export {tmp_path / 'b'} --engine")
    assert "was built for tensorrt 10.3.0, Orin (compute capability " in text


@pytest.mark.usefixtures("on_a_jetson")
@pytest.mark.parametrize(
    ("build", "version", "capability"),
    [
        ({"version_compatible": "yes"}, "11.4.1", "8.7"),
        ({"version_compatible": "yes"}, "10.3.0", "8.7"),
        ({"compute_capabilities": "8.0 and later", "hardware_compatible": "yes"}, "10.3.0", "12.0"),
        ({"compute_capabilities": "8.6, 8.9"}, "10.3.0", "8.9"),
    ],
)
def test_engines_for_more_than_one_machine(
    tmp_path: Path, build: dict[str, str], version: str, capability: str
) -> None:
    check_engine(write_engine(tmp_path / "b", JETSON | build), tensorrt(version), Gpu("Orin", capability, "13.0"))


@pytest.mark.usefixtures("on_a_jetson")
def test_an_engine_that_says_little_of_its_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_engine(tmp_path / "b", {})
    check_engine(file, tensorrt("10.3.0"), ORIN)
    assert not caplog.records
    file = write_engine(tmp_path / "b", {"library_version": "10.2.0"})
    with pytest.raises(EngineMismatchError, match=r"built for an unknown library 10\.2\.0, .*; TensorRT 10\.3\.0 is"):
        check_engine(file, tensorrt("10.3.0"), ORIN)


RTX_GPUS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
ANY_GPU = "8.0, 8.6, 8.9, 12.0, 12.1 and later"
RTX = {"target": "rtx", "library": "tensorrt_rtx", "library_version": "1.7.1", "os": "linux", "arch": "aarch64"}
FULL_TENSORRT = "This GPU needs full TensorRT; build on this machine: yolact-export {} --engine --target tensorrt"


@pytest.mark.usefixtures("on_a_jetson")
@pytest.mark.parametrize("listed", [ANY_GPU, "8.0 and later"])
@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "12.0", "12.1", "13.0"])
def test_an_rtx_engine_runs_on_what_it_was_built_for(tmp_path: Path, listed: str, capability: str) -> None:
    file = write_engine(tmp_path / "b", RTX | {"compute_capabilities": listed})
    check_engine(file, tensorrt("1.7.1", "rtx", RTX_GPUS), Gpu("RTX", capability, "13.0"))


@pytest.mark.usefixtures("on_a_jetson")
def test_an_rtx_engine_for_one_gpu_is_for_that_one(tmp_path: Path) -> None:
    file = write_engine(tmp_path / "b", RTX | {"compute_capabilities": "8.6"})
    check_engine(file, tensorrt("1.7.1", "rtx", RTX_GPUS), Gpu("RTX", "8.6", "13.0"))
    with pytest.raises(EngineMismatchError, match=r"this machine has RTX \(compute capability 8\.9\)"):
        check_engine(file, tensorrt("1.7.1", "rtx", RTX_GPUS), Gpu("RTX", "8.9", "13.0"))


@pytest.mark.usefixtures("on_a_jetson")
@pytest.mark.parametrize("listed", [ANY_GPU, "8.0 and later", "8.6"])
@pytest.mark.parametrize(
    ("capability", "advice"),
    [
        ("8.7", FULL_TENSORRT),
        ("9.0", FULL_TENSORRT),
        ("11.0", FULL_TENSORRT),
        ("7.2", FULL_TENSORRT),
        ("7.5", "Build it for this GPU: yolact-export {} --engine --target rtx --compute-capability 7.5"),
    ],
)
def test_a_gpu_that_rtx_does_not_know_is_refused_before_it_is_tried(
    tmp_path: Path, listed: str, capability: str, advice: str
) -> None:
    file = write_engine(tmp_path / "b", RTX | {"compute_capabilities": listed})
    with pytest.raises(EngineMismatchError, match=f"compute capability {capability}") as raised:
        check_engine(file, tensorrt("1.7.1", "rtx", RTX_GPUS), Gpu("Host", capability, "13.0"))
    assert str(raised.value).endswith(advice.format(tmp_path / "b"))
    assert raised.value.exit_status == 5


@pytest.mark.usefixtures("on_a_jetson")
def test_another_gpu_of_the_same_kind_is_worth_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_engine(write_engine(tmp_path / "b", JETSON), tensorrt("10.3.0"), Gpu("Orin NX", "8.7", "12.6"))
    assert "was built on Orin; this is Orin NX" in caplog.text
    caplog.clear()
    for build in ({"hardware_compatible": "yes"}, {"gpu": "Orin NX"}):
        check_engine(write_engine(tmp_path / "b", JETSON | build), tensorrt("10.3.0"), Gpu("Orin NX", "8.7", "12.6"))
    assert not caplog.records


# --- loading, with a TensorRT that notes what is asked of it ---------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """A TensorRT that nothing is computed with, so that it needs no device."""
    made = FakeTensorRt(SimpleNamespace(driver=None), (), lambda _: {})  # type: ignore[arg-type]
    return put_in_place(monkeypatch, made)


def loadable_engine(folder: Path) -> EngineFile:
    return write_engine(folder, JETSON | machine_facts())


def lean_library(folder: Path) -> Path:
    """A library that only its owner may write, under the name without a version that packages link to it."""
    folder.mkdir(mode=0o755)
    library = folder / "libnvinfer_lean.so.10"
    library.write_bytes(b"")
    library.chmod(0o644)
    link = folder / "lean.so"
    link.symlink_to(library.name)
    return link


@pytest.mark.parametrize("is_lean", [False, True])
def test_no_plan_may_run_code_on_the_host(tmp_path: Path, fake: FakeTensorRt, is_lean: bool) -> None:
    """Forbidden before TensorRT sees the plan, of the runtime that gets it: a lean one is another object."""
    lean_runtime = lean_library(tmp_path / "lib") if is_lean else None
    loaded = load_engine(loadable_engine(tmp_path / "b"), lean_runtime)
    assert fake.host_code_allowed == [False]
    assert loaded.runtime.engine_host_code_allowed is False
    # TensorRT opens it by its name: what was checked is named, not a link to it.
    assert fake.lean_runtimes == ([] if lean_runtime is None else [os.path.realpath(lean_runtime)])


def test_a_plan_that_is_not_the_listed_one_is_not_given_to_tensorrt(tmp_path: Path, fake: FakeTensorRt) -> None:
    file = loadable_engine(tmp_path / "b")
    file.path.write_bytes(b"evil")
    with pytest.raises(BundleError, match="is not the engine that the manifest lists"):
        load_engine(file)
    assert fake.host_code_allowed == []
    assert fake.logger is None


def test_a_plan_that_everybody_may_write_is_not_given_to_tensorrt(tmp_path: Path, fake: FakeTensorRt) -> None:
    file = loadable_engine(tmp_path / "b")
    file.path.chmod(0o666)
    with pytest.raises(BundleError, match="written by every user"):
        load_engine(file)
    assert fake.host_code_allowed == []
    loaded = load_engine(dataclasses.replace(file, signed=True))
    assert loaded.sha256 == file.artefact.sha256
    assert loaded.manifest == file.manifest


def test_a_plan_for_another_machine_is_not_given_to_tensorrt(tmp_path: Path, fake: FakeTensorRt) -> None:
    with pytest.raises(EngineMismatchError, match="engines fit one version only"):
        load_engine(write_engine(tmp_path / "b", JETSON | machine_facts() | {"library_version": "10.2.0"}))
    assert fake.host_code_allowed == []
    assert fake.logger is None


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("load_runtime", r"cannot load the lean runtime .*/lib/lean\.so:\n  .*load_runtime is refused"),
        ("deserialize", r"TensorRT 10\.3\.0 rejects .*int8\.plan on Host:\n  .*deserialize is refused"),
    ],
)
def test_what_tensorrt_says_is_in_the_error(tmp_path: Path, fake: FakeTensorRt, refused: str, message: str) -> None:
    fake.refuse.add(refused)
    with pytest.raises(BackendError, match=f"(?s){message}"):
        load_engine(loadable_engine(tmp_path / "b"), lean_library(tmp_path / "lib"))


# --- loading, with the real TensorRT-RTX ------------------------------------------------------------------------------


def rtx_facts() -> dict[str, str]:
    pytest.importorskip("tensorrt_rtx")
    library = load_tensorrt("rtx")
    facts = {"target": "rtx", "library": "tensorrt_rtx", "library_version": library.version}
    return facts | machine_facts() | {"compute_capabilities": "8.0 and later"}


def test_without_a_driver_tensorrt_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_engine(tmp_path / "b", rtx_facts())
    monkeypatch.setattr(engine_file, "find_gpu", lambda: find_gpu("libnothere.so.1"))
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver here"):
        load_engine(file)


def test_a_package_that_is_missing_makes_the_backend_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from yolact_runtime.backends import tensorrt_library

    monkeypatch.setattr(tensorrt_library, "_loaded", {})
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(engine_file, "find_gpu", lambda: ORIN)
    with pytest.raises(BackendUnavailableError, match="tensorrt"):
        load_engine(write_engine(tmp_path / "b", JETSON))


def test_what_tensorrt_says_of_a_plan_that_is_none_is_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_engine(tmp_path / "b", rtx_facts())
    monkeypatch.setattr(engine_file, "find_gpu", lambda: Gpu("RTX 4090", "8.9", "13.0"))
    with pytest.raises(BackendError, match=r"(?s)rejects .*model\.int8\.rtx\.plan on RTX 4090:\n  \S"):
        load_engine(file)
