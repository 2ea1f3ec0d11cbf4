"""What users install is the wheel: its contents, and the tests run against it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_source_file_and_nothing_else(wheel: Path) -> None:
    sources = {
        path.relative_to(folder.parent).as_posix()
        for folder in ROOT.glob("*/yolact_*")
        if (folder / "__init__.py").exists()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    studies = {name for name in sources if name.startswith("yolact_benchmarks/studies/")}
    assert names == sources - studies
    assert studies
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
    assert "yolact-run = yolact_runtime.cli:main" in entries


def test_the_tests_pass_against_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """The runtime's and the references' tests, with the installed files in place of the source tree."""
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*command, str(wheel)], check=True, timeout=120)
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    # Of this run's own parallel workers.
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_XDIST")}
    where = "import yolact_runtime, yolact_export, yolact_plugins as p; print(yolact_runtime.__file__, p.__file__)"
    found = subprocess.run([sys.executable, "-c", where], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(site / f"yolact_{name}" / "__init__.py") for name in ("runtime", "plugins")]
    # Kernels are the same files wherever they lie; what they compute was tested beside this.
    names = (
        "runtime",
        *(
            f"plugins/{name}.py"
            for name in ("test_reference", "compile/test_sources", "compile/test_precompile", "test_errors")
        ),
    )
    tests = [*(str(ROOT / "tests" / name) for name in names), "--ignore-glob=*/runtime/cuda/*"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
