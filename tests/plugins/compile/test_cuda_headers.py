"""NVRTC gets the headers of its own CUDA, whatever else is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.kernels import SAMPLE, write_headers
from yolact_plugins.compile import cuda_headers
from yolact_plugins.compile.compiler import nvrtc_version
from yolact_plugins.compile.cuda_headers import CudaHeaders, find_headers
from yolact_plugins.compile.sources import KernelSource
from yolact_plugins.errors import MissingDependencyError


class Machine:
    """A machine with nothing on it: no finder, no wheels, no toolkit, no variables."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wheels, self.toolkits = folder / "site-packages", folder / "local"
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(cuda_headers, "_TOOLKITS", self.toolkits)
        monkeypatch.setattr(sys, "path", [str(self.wheels)])
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
        for variable in ("CUDA_HOME", "CUDA_PATH"):
            monkeypatch.delenv(variable, raising=False)

    def toolkit(self, name: str, cudart_version: int | None) -> Path:
        return write_headers(self.toolkits / name / "include", cudart_version)

    def wheel(self, name: str, cudart_version: int | None) -> Path:
        return write_headers(self.wheels / "nvidia" / name / "include", cudart_version)

    def load_nvrtc(self, library: str, headers: Path | None = None) -> None:
        finder = SimpleNamespace(
            load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path=library),
            find_nvidia_header_directory=lambda name: None if headers is None else str(headers),
        )
        self._monkeypatch.setitem(sys.modules, "cuda.pathfinder", finder)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_wheel_of_nvrtc_and_a_toolkit_of_another_cuda(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: NVRTC 12.6 from a wheel got the headers of CUDA 13.0 from /usr/local/cuda."""
    toolkit = machine.toolkit("cuda", 13000)
    wheel = machine.wheel("cuda_runtime", 12060)
    monkeypatch.setenv("CUDA_HOME", str(toolkit.parent))
    machine.load_nvrtc(str(machine.wheels / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"), headers=toolkit)
    assert find_headers("12.6") == CudaHeaders(wheel, "12.6")
    assert find_headers("13.0") == CudaHeaders(toolkit, "13.0")


@pytest.mark.parametrize(
    "library",
    [
        "local/cuda-12.6/lib64/libnvrtc.so.12",
        "site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
        "libnvrtc.so.12",
        "",
    ],
)
def test_of_equal_versions_those_beside_the_library_are_taken(machine: Machine, tmp_path: Path, library: str) -> None:
    toolkit, wheel = machine.toolkit("cuda-12.6", 12060), machine.wheel("cuda_runtime", 12060)
    # What the loader found by its name alone has no folder.
    machine.load_nvrtc(str(tmp_path / library) if "/" in library else library)
    assert find_headers("12.6").folder == (toolkit if "local" in library else wheel)


@pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
def test_a_toolkit_that_a_variable_names(machine: Machine, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    headers = machine.toolkit("elsewhere", 12060)
    monkeypatch.setenv(variable, str(headers.parent))
    assert find_headers("12.6") == CudaHeaders(headers, "12.6")


def test_the_toolkit_of_the_version_beside_the_default_one(machine: Machine) -> None:
    machine.toolkit("cuda", 13000)
    headers = machine.toolkit("cuda-12.6", 12060)
    assert find_headers("12.6").folder == headers


@pytest.mark.parametrize(
    ("present", "taken"), [((12040, 12050, 12070), 12050), ((12080, 12070), 12070), ((12000, 13000), 12000)]
)
def test_another_minor_version_serves_and_an_older_one_is_better(
    machine: Machine, present: tuple[int, ...], taken: int
) -> None:
    for version in present:
        machine.wheel(f"cuda{version}", version)
    assert find_headers("12.6").folder.parent.name == f"cuda{taken}"
    assert find_headers("12.6").version == f"12.{taken % 1000 // 10}"


@pytest.mark.parametrize(
    ("nvrtc", "package", "extra"),
    [("12.6", "nvidia-cuda-runtime-cu12", "cuda12"), ("13.5", "nvidia-cuda-runtime", "cuda")],
)
def test_no_headers_name_the_package(machine: Machine, nvrtc: str, package: str, extra: str) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        find_headers(nvrtc)
    assert f'NVRTC {nvrtc} (the header cuda_fp16.h of the same CUDA major version) needs the package "{package}"' in (
        str(caught.value)
    )
    assert f'pip install ".[{extra}]"' in str(caught.value)


def test_headers_of_another_major_version_are_refused_and_named(machine: Machine) -> None:
    newer, unknown = machine.toolkit("cuda", 13000), machine.wheel("odd", None)
    with pytest.raises(MissingDependencyError) as caught:
        find_headers("12.6")
    assert f"{newer} is of CUDA 13.0" in str(caught.value)
    assert f"{unknown} is of an unknown CUDA" in str(caught.value)


def test_the_headers_of_this_environment_fit_its_nvrtc() -> None:
    headers = find_headers(nvrtc_version())
    assert headers.version == nvrtc_version()
    assert (headers.folder / "cuda_fp16.h").is_file()


def test_the_digest_is_of_the_headers_that_a_source_reaches(tmp_path: Path) -> None:
    def digest(name: str, fp16: str = '#include "cuda_fp16.hpp"\n', **texts: str) -> str:
        folder = write_headers(tmp_path / name, 12060, fp16)
        for file, text in texts.items():
            (folder / file.replace("_h", ".h")).write_text(text)
        return CudaHeaders(folder, "12.6").digest(SAMPLE)

    same = digest("a")
    assert digest("b", unreached_h="1") == same
    assert digest("c", fp16='#include "cuda_fp16.hpp"\n// patched\n') != same
    two = [digest(f"d{i}", fp16="#  include <reached.h>\n", reached_h=f"{i}") for i in range(2)]
    assert len({same, *two}) == 3
    # Headers that include each other end.
    assert digest("e", fp16='#include "reached.h"\n', reached_h='#include "cuda_fp16.h"\n')


def test_a_source_without_cuda_headers_owes_them_nothing(tmp_path: Path) -> None:
    source = KernelSource("plain", 'extern "C" __global__ void f() {}')
    digests = {
        CudaHeaders(write_headers(tmp_path / str(version), version, str(version)), "").digest(source)
        for version in (12060, 13000)
    }
    assert len(digests) == 1
