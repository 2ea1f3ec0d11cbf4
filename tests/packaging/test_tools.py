"""A program that is missing is told on a developer's machine, and is a failure in CI, which installs them all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.ci_scripts import SCRIPTS, load_script
from support.tools import PROGRAMS, find_tool, is_ci, needs_tool, require_tool, use_tool

TESTS = Path(__file__).parents[1]
_TESTS_OF_A_TOOL = """
from support.tools import needs_tool, require_tool, use_tool

@needs_tool("make")
def test_marked(capsys): pass

def test_asks(): require_tool("make")

def test_does_less(): assert use_tool("make") is None
"""


@pytest.mark.parametrize(
    ("value", "expected"), [(None, False), ("", False), ("0", False), ("False", False), ("true", True), ("1", True)]
)
def test_what_counts_as_ci(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: bool) -> None:
    if value is None:
        monkeypatch.delenv("CI", raising=False)
    else:
        monkeypatch.setenv("CI", value)
    assert is_ci() == expected


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_any_one_of_a_tools_programs_will_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tool(name) is None
    last = tmp_path / PROGRAMS[name][-1]
    last.write_text("#!/bin/sh\n")
    last.chmod(0o755)
    for ci in ("", "true"):
        monkeypatch.setenv("CI", ci)
        assert find_tool(name) == require_tool(name) == use_tool(name) == str(last)


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 passed, 2 skipped"), ("true", "2 failed, 1 error")])
def test_a_missing_program_is_a_reason_here_and_a_failure_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    """By the mark, which is looked at before anything else, by a call, and where a test would do less."""
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_tool.py").write_text(_TESTS_OF_A_TOOL)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = needs_tool(name): a program\n")
    environment = os.environ | {"CI": ci, "PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:randomly", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert f"= {outcome} in" in done.stdout
    assert done.returncode == (1 if ci else 0)
    assert "needs make: there is no make here" in done.stdout
    assert ("in CI no test is skipped for want of a program" in done.stdout) == bool(ci)


def test_ci_says_that_it_is_ci_and_installs_what_tests_need() -> None:
    script = (SCRIPTS / "run").read_text(encoding="utf-8")
    assert re.search(r"^export CI=true$", script, re.MULTILINE)
    installed = re.search(r"--debian (.*)$", script, re.MULTILINE)
    assert installed is not None
    # The C compiler comes with g++.
    needed = {programs[0] for name, programs in PROGRAMS.items() if name != "C compiler"}
    assert set(installed[1].split()) == needed
    assert script.index("export CI") < script.index("--debian") < script.index("make test")


def test_a_mark_of_an_unknown_tool_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="hammer"):
        needs_tool("hammer")


def test_no_test_looks_for_a_tool_on_its_own() -> None:
    """A skip with a reason of its own would be a skip in CI."""
    skips = re.compile(r"skip(?:if)?\((?:[^()]|\([^()]*\))*\)")
    words = ("g++", "ffmpeg", "openssl", "hromium", "COMPILER", "make here")
    found = [
        f"{path.relative_to(TESTS)}: {skip}"
        for path in TESTS.rglob("*.py")
        if path.name not in {"tools.py", "test_tools.py"}
        for skip in skips.findall(path.read_text(encoding="utf-8"))
        if any(word in skip for word in words)
    ]
    assert found == []


@pytest.mark.parametrize("user", [0, 1000])
def test_packages_alone_can_be_installed(
    user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told"
    for name, line in {"dpkg-query": '[ "$3" = g++ ] && printf installed', "apt-get": f'echo "$@" >> {told}'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\nexit 0\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    script = load_script("integrations")
    monkeypatch.setattr(script, "INTEGRATIONS", ())
    assert script.main(["--debian", "g++"]) == 0
    assert not told.exists()
    command = "--quiet install --yes --no-install-recommends chromium"
    if user == 0:
        assert script.main(["--debian", "g++", "chromium"]) == 0
        assert told.read_text().splitlines() == ["--quiet update", command]
        (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 100\n")
        assert script.main(["--debian", "g++", "chromium"]) == 1
        assert capsys.readouterr().out == "failed: apt-get --quiet update\n"
    else:
        assert script.main(["--debian", "g++", "chromium"]) == 1
        assert capsys.readouterr().out == f"not installed: as root on Debian or Ubuntu: apt-get {command}\n"
        assert not told.exists()


@pytest.mark.parametrize("ci", ["", "true"])
def test_sudo_is_used_in_ci_only(
    ci: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GitHub's machines ask nobody; a developer's machine is not changed, even where sudo asks for no password."""
    told = tmp_path / "told"
    for name, line in {"dpkg-query": "exit 1", "apt-get": "exit 99", "sudo": f'echo "$@" >> {told}'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert load_script("integrations").main(["--debian", "g++"]) == (0 if ci else 1)
    install = "--non-interactive apt-get --quiet install --yes --no-install-recommends g++"
    if ci:
        assert told.read_text().splitlines() == ["--non-interactive apt-get --quiet update", install]
    else:
        assert not told.exists()
        assert "as root on Debian or Ubuntu" in capsys.readouterr().out
