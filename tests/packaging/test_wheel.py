"""What users install is the wheel: its contents. `make integrations` runs the robot's tests against it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.checks
ROOT = Path(__file__).parents[2]
STUDIES = "yolact_benchmarks/studies/"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_source_file_but_the_studies_and_nothing_else(wheel: Path) -> None:
    sources = {
        path.relative_to(folder.parent).as_posix()
        for folder in ROOT.glob("*/yolact_*")
        if (folder / "__init__.py").exists()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    studies = {name for name in sources if name.startswith(STUDIES)}
    assert f"{STUDIES}tables.py" in studies
    assert names == sources - studies
    assert {"yolact_runtime/py.typed", "yolact_export/commands/cli.py", "yolact_plugins/reference.py"} <= names
    kernels = {name for name in names if name.startswith("yolact_plugins/kernels/")}
    assert {"yolact_plugins/kernels/preprocess.cu", "yolact_plugins/kernels/scalar.cuh"} <= kernels


def test_the_wheel_declares_its_commands_and_needs_numpy_only(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    (entries,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/entry_points.txt"))
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert required == ["Requires-Dist: numpy>=1.24"]
    assert "yolact-export = yolact_export.commands.cli:main" in entries
    assert "yolact-run = yolact_runtime.commands.run_cli:main" in entries


def test_every_module_of_the_wheel_imports_and_its_commands_answer(wheel: Path, tmp_path: Path) -> None:
    """From an installation without the checkout: a module that needs a study, or a file that is not packed, fails."""
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*command, str(wheel)], check=True, timeout=120)
    names = [name.removesuffix(".py").replace("/", ".") for name in zipfile.ZipFile(wheel).namelist() if ".py" in name]
    modules = sorted(name.removesuffix(".__init__") for name in names if not name.endswith((".__main__", ".typed")))
    assert len(modules) > 250
    code = f"""
import importlib, sys
sys.path.insert(0, {str(site)!r})
for name in {modules!r}:
    assert importlib.import_module(name).__file__.startswith({str(site)!r}), name
assert not [name for name in sys.modules if name.startswith("yolact_benchmarks.studies")]
from yolact_plugins.compile.sources import families, read_source
assert all(read_source(name).text for name in families()) and len(families()) == 4
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for command_name in ("yolact-bench", "yolact-eval", "yolact-export", "yolact-finetune", "yolact-run"):
        environment = os.environ | {"PYTHONPATH": str(site)}
        typed = [sys.executable, str(site / "bin" / command_name), "--help"]
        done = subprocess.run(
            typed, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.startswith(f"usage: {command_name}")
