"""One version, in one place, said by every command and every package."""

from __future__ import annotations

import importlib
import re

import pytest

from support.commands import COMMANDS, PROJECT, ROOT, entry_point

PACKAGES = ("yolact_plugins", "yolact_runtime", "yolact_calibration", "yolact_export", "yolact_benchmarks")


def test_the_build_takes_the_version_from_the_lowest_package() -> None:
    assert "version" not in PROJECT["project"]
    assert "version" in PROJECT["project"]["dynamic"]
    path = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    version = importlib.import_module("yolact_plugins").__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", version)
    assert re.findall(r'^__version__ = "(.*)"$', path.read_text(encoding="utf-8"), re.MULTILINE) == [version]


def test_every_package_says_the_same() -> None:
    versions = {name: importlib.import_module(name).__version__ for name in PACKAGES}
    assert len(set(versions.values())) == 1
    assert all("__version__" in importlib.import_module(name).__all__ for name in PACKAGES)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_says_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry_point(command)(["--version"]) == 0
    version = importlib.import_module("yolact_plugins").__version__
    assert capsys.readouterr().out == f"{command} {version}\n"
