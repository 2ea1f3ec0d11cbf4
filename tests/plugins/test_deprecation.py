"""Deprecated names warn where they are used, and are gone in the version that the warning names."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

import pytest

from yolact_plugins import __version__
from yolact_plugins.deprecation import warn_deprecated

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for package in ("plugins", "runtime", "calibration", "export", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
]


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [node for node in nodes if name in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))]


def removals(path: Path) -> list[str]:
    """The versions that a source file names."""
    found = []
    for call in calls(ast.parse(path.read_text(encoding="utf-8")), "warn_deprecated"):
        (value,) = [word.value for word in call.keywords if word.arg == "removed_in"]
        assert isinstance(value, ast.Constant), f"{path}:{call.lineno}: removed_in has to be readable without running"
        found.append(value.value)
    return found


def test_the_warning_names_what_to_use_and_points_at_the_caller() -> None:
    def former_function() -> None:
        warn_deprecated("former_function", "use the_function", removed_in="0.2")

    text = "former_function is deprecated and will be removed in version 0.2: use the_function"
    with pytest.warns(DeprecationWarning, match=f"^{re.escape(text)}$") as raised:
        former_function()
    assert raised[0].filename == __file__


def test_the_caller_may_be_further_away() -> None:
    def outer() -> None:
        def inner() -> None:
            warn_deprecated("x", "use y", removed_in="0.2", stacklevel=2)

        inner()

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        outer()
        line = outer.__code__.co_firstlineno
    assert found[0].lineno > line + 4


def test_nothing_outlives_the_version_that_its_warning_names() -> None:
    found = {path: removals(path) for path in SOURCES}
    named = {text for texts in found.values() for text in texts}
    assert named, "nothing is deprecated any more: remove yolact_plugins.deprecation too, or this line"
    for path, texts in found.items():
        for text in texts:
            assert re.fullmatch(r"\d+\.\d+", text), f"{path}: {text} is not a minor version such as 0.2"
            assert version(text) > version(__version__)[:2], f"{path}: was to be removed in {text}"


def test_every_deprecation_goes_through_one_function() -> None:
    for path in SOURCES:
        if path.name != "deprecation.py":
            assert "DeprecationWarning" not in path.read_text(encoding="utf-8"), path
