"""Every command of the project: its name for users, and its entry point as ``module:function``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolact_plugins.command_line import CommandParser

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

PARSERS = {
    "yolact-bench": "yolact_benchmarks.commands.bench_cli:_parser",
    "yolact-bench compare": "yolact_benchmarks.commands.compare_cli:compare_parser",
    "yolact-eval": "yolact_benchmarks.commands.eval_cli:_parser",
    "yolact-export": "yolact_export.commands.cli:_parser",
    "yolact-finetune": "yolact_export.commands.finetune_cli:_parser",
    "yolact-run": "yolact_runtime.commands.run_cli:_parser",
    "python -m yolact_calibration.shapes": "yolact_calibration.shapes.shapes:_parser",
    "python -m yolact_plugins.compile": "yolact_plugins.compile.precompile:_parser",
}


def parser_of(command: str) -> CommandParser:
    """Return the parser of one of :data:`PARSERS`."""
    module, _, function = PARSERS[command].partition(":")
    make: Callable[[], CommandParser] = getattr(importlib.import_module(module), function)
    return make()


def entry_point(command: str) -> Callable[[list[str]], int]:
    """Return the function behind one of :data:`COMMANDS`."""
    module, _, function = COMMANDS[command].partition(":")
    entry: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    return entry
