"""Programs that tests need and no Python package provides.

A developer's machine may lack one: tests that need it are skipped there, with a reason that pytest lists. In CI (``CI``
is set, as ``.ci/run`` does) they fail, because the list of skips is not read if the suite passes.
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
    """Return whether this run must execute everything; False if ``CI`` is unset, empty, "0" or "false"."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def find_tool(name: str) -> str | None:
    """Return the path of a program of :data:`PROGRAMS`, or None if this machine does not have it."""
    return next((path for program in PROGRAMS[name] if (path := shutil.which(program))), None)


def tool_is_missing(reason: str) -> None:
    """Skip the running test, or fail it in CI; the reason begins with "needs"."""
    if is_ci():
        pytest.fail(f"{reason}; in CI no test is skipped for want of a program: .ci/run installs them", pytrace=False)
    pytest.skip(reason)


def require_tool(name: str) -> str:
    """Return the path of a program; without it, the calling test or fixture is skipped, or fails in CI."""
    path = find_tool(name)
    if path is None:
        tool_is_missing(f"needs {name}: there is no {' or '.join(PROGRAMS[name])} here")
    assert path is not None
    return path


def use_tool(name: str) -> str | None:
    """Return the path of a program for tests that do less without it; in CI, they fail without it."""
    return require_tool(name) if is_ci() else find_tool(name)


def needs_tool(name: str) -> pytest.MarkDecorator:
    """Mark tests, or by ``pytestmark`` a module, that cannot run without a program; ``conftest.py`` looks for it."""
    assert name in PROGRAMS, name
    return pytest.mark.needs_tool(name)
