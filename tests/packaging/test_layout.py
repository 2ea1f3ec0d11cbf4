"""The rules of the house that a machine can hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    # Of pytest.
    import tomli as tomllib

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


def rooms_of(package: Path) -> set[str]:
    """Folders of a package, with a slash, and modules that lie in it directly."""
    # Git leaves the caches of folders that are gone.
    folders = {f"{path.name}/" for path in package.iterdir() if any(path.glob("*.py")) or any(path.glob("*.cu"))}
    return folders | {path.stem for path in package.glob("*.py")} - {"__init__"}


def test_the_map_of_the_house_is_the_tree() -> None:
    """CONTRIBUTING.md lists every room of every package, once, and none that is not there."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\n(benchmarks/yolact_benchmarks/.*?)```", text, re.DOTALL)
    package, drawn = "", dict[str, list[str]]()
    for line in block.splitlines():
        name = line.split()[0]
        if line.startswith(" "):
            drawn[package].append(name)
        else:
            package = name.rstrip("/")
            drawn[package] = []
    assert set(drawn) == {str(folder.relative_to(ROOT)) for folder in PACKAGES}
    for package, rooms in drawn.items():
        assert len(rooms) == len(set(rooms))
        assert set(rooms) == rooms_of(ROOT / package), package
        # From top to bottom, as the import contract has it; kernels/ has no Python.
        layers = layers_of(package.partition("/")[2])
        order = [
            next(i for i, layer in enumerate(layers) if room.strip("/") in layer)
            for room in rooms
            if room != "kernels/"
        ]
        assert order == sorted(order), package


def layers_of(package: str) -> list[list[str]]:
    """The layers of a package's import contract, highest first."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = document["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract.get("containers") == [package])
    return [layer.split(" | ") for layer in contract["layers"]]


def test_names_are_plain() -> None:
    """Git quotes all others: those are what a test wrote into the repository, not files of it."""
    assert not [name for name in tracked_files() if name.startswith('"') or not name.isprintable()]


def test_no_folder_is_a_heap() -> None:
    """At most 20 files, but for what tests are given, and records: a folder for each machine, a file for each study."""
    counts = Counter(Path(name).parent for name in tracked_files())
    assert counts[Path("runtime/yolact_runtime")] > 5
    fixtures = Path("tests/support"), Path("tests/goldens"), Path("benchmarks/results")
    full = {str(folder): count for folder, count in counts.items() if count > 20}
    assert not {folder for folder in full if not any(Path(folder).is_relative_to(fixture) for fixture in fixtures)}


def tracked_files() -> list[str]:
    """Files that are tracked or about to be; those that are there, where this is no checkout."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return done.stdout.splitlines()
    return [str(path.relative_to(ROOT)) for folder in (*PACKAGES, ROOT / "tests") for path in folder.rglob("*.*")]


def test_import_contracts_see_every_folder() -> None:
    """Without an __init__.py import-linter passes a folder by."""
    folders = {path.parent for package in PACKAGES for path in package.rglob("*.py")}
    assert len(folders) > 30
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_tests_mirror_the_packages() -> None:
    """A folder of tests is a room of its package; beside those stand the tests of the simulated GPU."""
    for package in PACKAGES:
        mirrored = {path.name for path in (ROOT / "tests" / package.parent.name).iterdir() if any(path.glob("*.py"))}
        assert {f"{name}/" for name in mirrored - {"simulated"}} <= rooms_of(package)
