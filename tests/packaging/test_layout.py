"""The rules of the house that a machine can hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [folder for folder in ROOT.glob("*/yolact_*") if folder.is_dir() and (folder / "__init__.py").exists()]
MODULES = sorted(path for folder in PACKAGES for path in folder.rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "core", "manager"}


def test_the_packages_are_found() -> None:
    assert {folder.name for folder in PACKAGES} >= {"yolact_export", "yolact_runtime", "yolact_plugins"}


def test_no_module_lies_directly_in_a_source_root() -> None:
    for name in ("export", "runtime", "plugins", "calibration", "benchmarks"):
        assert not list((ROOT / name).glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_has_one_noun_an_explicit_face_and_a_bearable_length(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.stem not in FORBIDDEN_NAMES
    assert len(text.splitlines()) <= 500
    if not text.strip():
        return
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    assert "__all__" in names or path.name == "__main__.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno
            documented = len((ast.get_docstring(node) or "").splitlines())
            assert length - documented <= 60, f"{node.name} is {length - documented} lines long"


@pytest.mark.parametrize(
    "command",
    [["ruff", "format", "--check", "."], ["ruff", "check", "."], ["mypy"], ["lint-imports", "--no-cache"]],
    ids=["format", "lint", "types", "import contracts"],
)
def test_make_check_is_green(command: list[str]) -> None:
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
