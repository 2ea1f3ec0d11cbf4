"""What users install is the wheel: its contents. `make integrations` runs the robot's tests against it."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.commands import PROJECT
from yolact_plugins import __version__
from yolact_plugins.compile.sources import families as kernel_families

pytestmark = pytest.mark.checks
ROOT = Path(__file__).parents[2]
STUDIES = "yolact_benchmarks/studies/"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("source")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / path.name.removesuffix(".tar.gz")


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


def test_the_source_distribution_is_the_repository(source: Path) -> None:
    """All that is tracked, or about to be: the demo, the tests and the checks are the same there."""
    packed = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert packed - {"PKG-INFO"} == files_of_the_repository() - {"PKG-INFO"}
    # What it makes of itself is the same package.
    code = "import yolact_plugins, examples.demo; print(yolact_plugins.__version__)"
    folders = [str(source / name) for name in ("benchmarks", "calibration", "export", "plugins", "runtime")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), *folders])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == __version__, done.stderr


def files_of_the_repository() -> set[str]:
    """What Git would commit; in an unpacked source distribution, all files but those that are made there."""
    if (ROOT / ".git").exists():
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}
    made = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}
    return {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if path.is_file() and not made & set(path.relative_to(ROOT).parts)
    }


def test_the_metadata_says_who_which_and_where_and_links_to_nothing_that_is_not_there(
    wheel: Path, source: Path
) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == __version__
    assert metadata["Author"] == "The yolact-deploy developers"
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)} <= set(
        metadata.get_all("Classifier", [])
    )
    readme = str(metadata.get_payload())
    assert metadata["Description-Content-Type"] == "text/markdown"
    links = re.findall(r"\]\(([^)]*)\)", readme)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert links
    # Where the files beside it have no address.
    if not PROJECT["tool"]["yolact-deploy"]["publisher"]["home"]:
        assert readme.startswith("# yolact-deploy\n\n*Files that are named here")
        assert "Project-URL" not in metadata
        named = re.findall(r"`((?:docs|examples)/[^`]*)`", readme)
        assert len(named) > 10
        assert [path for path in named if not (source / path).exists()] == []


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
assert all(read_source(name).text for name in families()) and len(families()) == {len(kernel_families())}
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
        done = subprocess.run(
            [*typed[:2], "--version"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == f"{command_name} {__version__}\n"
