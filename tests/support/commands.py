"""Every command of the project: how people call it, and its entry point as ``module:function``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    # Of pytest.
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMMANDS: dict[str, str] = {
    **PROJECT["project"]["scripts"],
    "python -m yolact_calibration.shapes": "yolact_calibration.shapes:main",
    "python -m yolact_plugins.compile": "yolact_plugins.compile.precompile:main",
}


def entry_point(command: str) -> Callable[[list[str]], int]:
    """The function behind one of :data:`COMMANDS`."""
    module, _, function = COMMANDS[command].partition(":")
    entry: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    return entry
