from __future__ import annotations

import re
from pathlib import Path

import pytest

from yolact_plugins.compile.sources import KernelSource, families, read_source
from yolact_plugins.errors import KernelCompileError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b.cu").write_text('#include <cuda_fp16.h>\n #  include "one.cuh"\n#include "shim_of_the_tests.h"\n')
    (tmp_path / "a.cu").write_text("// no header\n")
    (tmp_path / "one.cuh").write_text('#include "two.h"\n')
    (tmp_path / "two.h").write_text('#include "one.cuh"\n')
    (tmp_path / "unused.h").write_text("")
    return tmp_path


def test_families_are_the_cu_files(folder: Path) -> None:
    assert families(folder) == ("a", "b")
    assert families(folder / "missing") == ()


def test_headers_are_followed_and_only_the_needed_ones_are_read(folder: Path) -> None:
    assert read_source("a", folder).headers == {}
    assert set(read_source("b", folder).headers) == {"one.cuh", "two.h"}


def test_an_unknown_family_is_answered_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(KernelCompileError, match=r'no family of kernels "c"; there are: a, b$'):
        read_source("c", folder)


def test_the_digest_changes_with_everything_the_compiler_reads(folder: Path) -> None:
    before = read_source("b", folder).digest
    (folder / "unused.h").write_text("changed")
    (folder / "a.cu").write_text("changed")
    assert read_source("b", folder).digest == before
    (folder / "two.h").write_text("changed")
    assert read_source("b", folder).digest != before


def test_moving_text_between_a_source_and_its_header_changes_the_digest() -> None:
    assert KernelSource("x", "ab", {"h": "c"}).digest != KernelSource("x", "a", {"h": "bc"}).digest


@pytest.mark.parametrize("family", families())
def test_no_lambda_of_a_kernel_is_generic(family: str) -> None:
    """NVRTC 12, which JetPack 6 has, takes one for a function of the host, and refuses it; NVRTC 13 does not."""
    source = read_source(family)
    for text in (source.text, *source.headers.values()):
        assert not re.search(r"\[[&=\w, ]*\]\s*\([^)]*\bauto\b", text)
