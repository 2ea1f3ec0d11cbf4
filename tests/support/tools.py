"""Programs that tests need and no Python package brings.

A developer's machine may lack one: what needs it is skipped there, with a reason that pytest lists. In CI (``CI`` is
set, as ``.ci/run`` does) it is a failure, because nobody reads the list of a suite that is green.
"""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["PROGRAMS", "find_tool", "is_ci", "needs_tool", "require_tool", "tool_is_missing", "use_tool"]

PROGRAMS = {
    "bash": ("bash",),
    "C compiler": ("cc", "gcc"),
    "Chromium": ("chromium", "chromium-browser", "google-chrome"),
    "ffmpeg": ("ffmpeg",),
    "fish": ("fish",),
    "g++": ("g++",),
    "make": ("make",),
    "openssl": ("openssl",),
    "zsh": ("zsh",),
}
"""Name of a tool -> programs, of which any one will do."""


def is_ci() -> bool:
    """Whether this run has to show everything; false where ``CI`` is unset, empty, "0" or "false"."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def find_tool(name: str) -> str | None:
    """The path of a program of :data:`PROGRAMS`; None where this machine has none of them."""
    return next((path for program in PROGRAMS[name] if (path := shutil.which(program))), None)


def tool_is_missing(reason: str) -> None:
    """Skip the test that runs, or in CI let it fail; the reason begins with "needs"."""
    if is_ci():
        pytest.fail(f"{reason}; in CI no test is skipped for want of a program: .ci/run installs them", pytrace=False)
    pytest.skip(reason)


def require_tool(name: str) -> str:
    """The path of a program; a test, or a fixture, that calls this without it is skipped, and in CI fails."""
    path = find_tool(name)
    if path is None:
        tool_is_missing(f"needs {name}: there is no {' or '.join(PROGRAMS[name])} here")
    assert path is not None
    return path


def use_tool(name: str) -> str | None:
    """As :func:`find_tool`, for tests that do less without it; in CI, where they have to do everything, it fails."""
    return require_tool(name) if is_ci() else find_tool(name)


def needs_tool(name: str) -> pytest.MarkDecorator:
    """Mark tests, or by ``pytestmark`` a module, that cannot run without a program; ``conftest.py`` looks for it."""
    assert name in PROGRAMS, name
    return pytest.mark.needs_tool(name)
