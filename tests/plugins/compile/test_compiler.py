"""NVRTC itself compiles here: it needs neither a GPU nor a driver."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from support.kernels import ARCHS, SAMPLE, write_headers
from yolact_plugins.compile import compiler, cuda_headers
from yolact_plugins.compile.compiler import compile_cubin, nvrtc_version, supported_archs
from yolact_plugins.compile.sources import KernelSource, families, read_source
from yolact_plugins.driver.cubin import Parameter, arch_name, kernel_parameters
from yolact_plugins.errors import KernelCompileError, MissingDependencyError

# NVRTC 12.6 knows no Blackwell, and NVRTC 13 nothing older than Turing.
KNOWN_ARCHS = [arch for arch in ARCHS if arch in supported_archs()]


@pytest.mark.parametrize("arch", KNOWN_ARCHS)
def test_parameters_and_figures_are_read_from_what_is_compiled(arch: str) -> None:
    cubin = compile_cubin(SAMPLE, arch)
    assert cubin.code.startswith(b"\x7fELF")
    assert cubin.warnings == ""
    assert (cubin.family, cubin.arch, cubin.source_digest) == ("sample", arch, SAMPLE.digest)
    assert cubin.parameters == {
        "scale": (Parameter(0, 8), Parameter(8, 4), Parameter(12, 4)),
        "mixed": (
            Parameter(0, 8),
            Parameter(8, 1),
            Parameter(10, 2),
            Parameter(16, 8),
            Parameter(32, 32),
            Parameter(64, 4),
        ),
        "nothing": (),
        "product_and_sum": (Parameter(0, 8),),
    }
    assert set(cubin.figures) == set(cubin.parameters)
    mixed = cubin.figures["mixed"]
    assert (mixed.shared_bytes, mixed.stack_bytes, mixed.spill_store_bytes, mixed.barriers) == (128, 0, 0, 1)
    assert 0 < mixed.registers < 256


def test_spills_and_stack_are_reported() -> None:
    """64 values that live across a barrier, an array that is indexed by a variable, and 64 registers for both."""
    loads = "".join(f"r[{i}] = v[{i} * n];" for i in range(64))
    text = (
        'extern "C" __global__ void __launch_bounds__(1024) full(float* v, int n) { float r[64];'
        f"{loads} __syncthreads(); float s = 0; for (int i = 0; i < 64; i++) s += r[i] * v[i]; v[0] = s + r[n]; }}"
    )
    figures = compile_cubin(KernelSource("full", text), "sm_87").figures["full"]
    assert figures.registers == 64
    assert figures.stack_bytes >= 64 * 4
    assert figures.spill_store_bytes > 0
    assert figures.spill_load_bytes > 0


def test_products_and_sums_stay_apart() -> None:
    """Results shall be those of NumPy; the same source with contraction allowed has another machine code."""
    assert "--fmad=false" in compiler.OPTIONS
    text = 'extern "C" __global__ void f(float* v) { v[0] = v[1] * v[2] + v[3]; }'
    apart = compile_cubin(KernelSource("f", text), "sm_87").code
    same = compile_cubin(
        KernelSource("f", text.replace("v[1] * v[2] + v[3]", "__fadd_rn(__fmul_rn(v[1], v[2]), v[3])")), "sm_87"
    ).code
    fused = compile_cubin(KernelSource("f", text.replace("v[1] * v[2] + v[3]", "fmaf(v[1], v[2], v[3])")), "sm_87").code
    assert _instructions(apart) == _instructions(same)
    assert _instructions(apart) != _instructions(fused)


def _instructions(code: bytes) -> bytes:
    from yolact_plugins.driver.cubin import _sections

    return dict(_sections(code))[b".text.f"]


def test_the_log_is_in_the_error() -> None:
    with pytest.raises(KernelCompileError) as caught:
        compile_cubin(KernelSource("broken", "__global__ void f() { missing = 1; }"), "sm_87")
    assert str(caught.value).startswith(f"NVRTC {nvrtc_version()} cannot compile broken.cu for sm_87 (NVRTC_ERROR_COMP")
    assert 'broken.cu(1): error: identifier "missing" is undefined' in str(caught.value)


def test_warnings_are_kept() -> None:
    text = 'extern "C" __global__ void f(int* v) { int unused; v[0] = 1; }'
    assert "declared but never referenced" in compile_cubin(KernelSource("f", text), "sm_87").warnings


def test_an_architecture_that_this_nvrtc_does_not_know_is_answered_with_those_it_does() -> None:
    assert "sm_87" in supported_archs()
    with pytest.raises(
        KernelCompileError, match=rf"NVRTC {nvrtc_version()} cannot compile for sm_20, only for .*sm_75, .*sm_87"
    ):
        compile_cubin(SAMPLE, "sm_20")


@pytest.mark.parametrize("arch", ["87", "sm_8.7", "compute_87", "sm_87 --x", ""])
def test_what_is_no_architecture_is_not_given_to_the_compiler(arch: str) -> None:
    with pytest.raises(KernelCompileError, match="is not a GPU architecture; write it as sm_87"):
        compile_cubin(SAMPLE, arch)


def test_names_of_architectures() -> None:
    assert [arch_name((8, 7)), arch_name((12, 0))] == ["sm_87", "sm_120"]


def test_bytes_that_are_no_cubin() -> None:
    code = compile_cubin(SAMPLE, "sm_87").code
    for damaged in (b"", b"ELF", code[:100], code[: len(code) // 2]):
        with pytest.raises(KernelCompileError, match="are not a cubin, or are damaged"):
            kernel_parameters(damaged)


def test_a_missing_binding_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    with pytest.raises(MissingDependencyError, match=r'"cuda-bindings", which is not installed: .*\[cuda\]'):
        compile_cubin(SAMPLE, "sm_87")


def test_a_missing_compiler_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the binding does where its finder finds no libnvrtc, which on this machine it does."""
    nvrtc = importlib.import_module("cuda.bindings.nvrtc")
    error = importlib.import_module("cuda.pathfinder").DynamicLibNotFoundError

    def not_found() -> None:
        raise error("libnvrtc.so.13")

    monkeypatch.setattr(nvrtc, "nvrtcVersion", not_found)
    with pytest.raises(MissingDependencyError, match=r'"nvidia-cuda-nvrtc", which is not installed: .*\[cuda\]'):
        compile_cubin(SAMPLE, "sm_87")
    monkeypatch.setattr(compiler, "cuda_extra", lambda: "cuda12")
    with pytest.raises(MissingDependencyError, match=r'"nvidia-cuda-nvrtc-cu12", which is not .*\[cuda12\]'):
        compile_cubin(SAMPLE, "sm_87")


def test_headers_of_another_cuda_are_not_given_to_the_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_headers(tmp_path, 11080)
    monkeypatch.setattr(cuda_headers, "_candidates", lambda version: iter([tmp_path]))
    with pytest.raises(MissingDependencyError, match=f"{tmp_path} is of CUDA 11.8"):
        compile_cubin(SAMPLE, "sm_87")


@pytest.mark.parametrize("arch", KNOWN_ARCHS)
@pytest.mark.parametrize("family", families())
def test_every_family_compiles_for_every_architecture(family: str, arch: str) -> None:
    cubin = compile_cubin(read_source(family), arch)
    assert cubin.warnings == ""
    assert cubin.figures
    for name, figures in cubin.figures.items():
        assert figures.spill_store_bytes == figures.spill_load_bytes == 0, name
