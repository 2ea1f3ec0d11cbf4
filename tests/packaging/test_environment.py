"""Packages of CUDA follow the CUDA of the driver, for users and for developers."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.ci_scripts import load_script
from support.tools import needs_tool

ROOT = Path(__file__).parents[2]


class _Driver:
    def __init__(self, version: int, status: int = 0) -> None:
        self.version, self.status = version, status

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return self.status


@pytest.mark.parametrize(
    ("version", "status", "major"),
    [(12060, 0, 12), (11040, 0, 12), (13000, 0, 13), (14010, 0, 13), (0, 3, 13)],
)
def test_the_major_version_of_the_driver(
    monkeypatch: pytest.MonkeyPatch, version: int, status: int, major: int
) -> None:
    script = load_script("cuda_major")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: _Driver(version, status))
    assert script.cuda_major() == major


def test_without_a_driver_the_newest() -> None:
    assert load_script("cuda_major").cuda_major("libnothere.so.1") == 13
    assert load_script("cuda_major").cuda_major("libc.so.6") == 13


def _plan(*words: str) -> subprocess.CompletedProcess[str]:
    """What `make test` would do."""
    # This process may itself be one of make's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-n", "test", f"PYTHON={sys.executable}", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


@needs_tool("make")
@pytest.mark.parametrize(
    ("words", "extras"),
    [
        (["CUDA=12"], "[all,cuda12,rtx-cuda12]"),
        (["CUDA=13"], "[all,cuda,rtx]"),
        (["CUDA=11"], "CUDA=11 is not supported: choose CUDA=12 or CUDA=13"),
    ],
)
def test_make_installs_the_extras_of_the_chosen_cuda(tmp_path: Path, words: list[str], extras: str) -> None:
    done = _plan(f"VENV={tmp_path / 'venv'}", *words)
    assert extras in done.stdout + done.stderr
    assert "rm -rf" not in done.stdout


@needs_tool("make")
@pytest.mark.parametrize("stamp", [".ready-cuda13", ".ready"])
def test_an_environment_of_the_other_cuda_is_made_anew(tmp_path: Path, stamp: str) -> None:
    (tmp_path / stamp).touch()
    first = _plan(f"VENV={tmp_path}", "CUDA=12").stdout.splitlines()[0]
    assert first == f'echo "{tmp_path} is not for CUDA 12: it is made anew"; rm -rf {tmp_path}'
    assert "rm -rf" not in _plan(f"VENV={tmp_path}", "CUDA=13").stdout


def test_a_python_that_does_not_start_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shim of pyenv's, which says that this version is not chosen, and a file that is no program; then the newest."""
    script = load_script("integrations")
    versions = {
        version: tmp_path / f"versions/{version}/bin/python3.10" for version in ("3.10.9", "3.10.12", "3.10.13")
    }
    shim = tmp_path / "shims/python3.10"
    starts, texts = "#!/bin/sh\nexit 0\n", {shim: "#!/bin/sh\nexit 127\n", versions["3.10.13"]: "\x7fELF"}
    for path in (shim, *versions.values()):
        path.parent.mkdir(parents=True)
        path.write_text(texts.get(path, starts))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert script.find_python("3.10") == str(versions["3.10.12"])
    assert script.find_python("3.9") is None
