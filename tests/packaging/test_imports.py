"""The robot's packages import with NumPy alone, and the commands explain themselves without their extras."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "onnx", "cv2", "tensorrt", "tensorrt_rtx", "onnxruntime", "cuda", "PIL")
COMMANDS = {
    "yolact-bench": "yolact_benchmarks.commands.bench_cli",
    "yolact-eval": "yolact_benchmarks.commands.eval_cli",
    "yolact-export": "yolact_export.commands.cli",
    "yolact-finetune": "yolact_export.commands.finetune_cli",
    "yolact-run": "yolact_runtime.commands.run_cli",
}

# Blocks the import of packages, as if they were not installed.
BLOCK = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def __init__(self, allows): self.allows = allows
    def find_spec(self, name, path=None, target=None):
        if not self.allows(name.partition(".")[0]):
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)
"""
BLOCK_HEAVY = BLOCK + f"sys.meta_path.insert(0, Block(lambda name: name not in {HEAVY!r}))\n"
# The standard library, NumPy and the project itself: what `pip install yolact-deploy` gives.
BLOCK_ALL = (
    BLOCK + "sys.meta_path.insert(0, Block(lambda name: name in sys.stdlib_module_names "
    "or name == 'numpy' or name.startswith('yolact_')))\n"
)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


def modules_of(package: str) -> list[str]:
    folder = ROOT / package / f"yolact_{package}"
    paths = [path.relative_to(folder.parent).with_suffix("") for path in folder.rglob("*.py")]
    # Importing __main__ runs a command.
    paths = [path for path in paths if path.name != "__main__"]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


@pytest.mark.parametrize("package", ["runtime", "plugins"])
def test_every_module_imports_without_the_heavy_packages(package: str) -> None:
    modules = modules_of(package)
    assert len(modules) > 1
    code = BLOCK_HEAVY + f"import importlib\nfor name in {modules!r}: importlib.import_module(name)"
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_blocking_works() -> None:
    assert "blocked" in run(BLOCK_HEAVY + "import onnxruntime").stderr
    assert "blocked" in run(BLOCK_ALL + "import hypothesis").stderr


def test_importing_the_runtime_loads_no_third_party_module_but_numpy() -> None:
    code = (
        "import sys, json, yolact_runtime\nfor name in yolact_runtime.__all__: getattr(yolact_runtime, name)\n"
        "print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    # -S leaves out site-packages' start-up files, which may import what they like.
    paths = [str(ROOT / name) for name in ("runtime", "plugins")]
    import numpy

    code = f"import sys; sys.path[:0] = {[*paths, str(Path(numpy.__file__).parents[1])]!r}\n{code}"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(json.loads(done.stdout))
    foreign = {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")}
    # A name that NumPy 1 registers for its own compiled code; there is no such package.
    assert foreign - {"cython_runtime"} == {"numpy", "yolact_runtime", "yolact_plugins"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_works_with_nothing_but_numpy(command: str) -> None:
    done = run(BLOCK_ALL + f"from {COMMANDS[command]} import main\nsys.exit(main(['--help']))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {command}")


def test_a_missing_export_extra_is_one_line_that_names_it(tmp_path: Path) -> None:
    checkpoint = tmp_path / "yolact_base_54_800000.pth"
    checkpoint.write_bytes(b"")
    code = BLOCK_ALL + "from yolact_export.commands.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = run(code, str(checkpoint))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert 'pip install "yolact-deploy[export]"' in done.stderr
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_missing_inference_library_is_one_line_that_names_its_extra(tmp_path: Path) -> None:
    manifest = {
        "schema_version": 2,
        "name": "tiny",
        "class_names": ["thing"],
        "input": {
            "height": 8,
            "width": 8,
            "mean_bgr": [0, 0, 0],
            "std_bgr": [1, 1, 1],
            "channel_order": "RGB",
            "resize": "stretch",
        },
        "priors": {
            "feature_sizes": [[1, 1]],
            "scales_px": [[4]],
            "aspect_ratios": [1],
            "square": True,
            "variances": [0.1, 0.2],
        },
        "detection": {"score_threshold": 0.05, "iou_threshold": 0.5, "top_k": 200, "max_instances": 100},
        "mask_rescoring": False,
        "precision": "fp32",
        "provenance": {},
        "artefacts": {
            "model.fp32.onnx": {
                "role": "network",
                "precision": "fp32",
                "sha256": hashlib.sha256(b"").hexdigest(),
                "size_bytes": 0,
                "build": {},
            }
        },
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "model.fp32.onnx").touch()
    done = run(
        BLOCK_ALL + "from yolact_runtime.commands.run_cli import main\nsys.exit(main(sys.argv[1:]))",
        str(tmp_path),
        "a.png",
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert 'pip install "yolact-deploy[ort]"' in done.stderr


def test_the_kernels_compiler_explains_itself_and_names_its_extra() -> None:
    code = BLOCK_ALL + "from yolact_plugins.compile.precompile import main\nsys.exit(main(sys.argv[1:]))"
    explained = run(code, "--help")
    assert explained.returncode == 0, explained.stderr
    assert explained.stdout.startswith("usage: python -m yolact_plugins.compile --arch sm_XY... ")
    done = run(code, "--arch", "sm_87")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert 'pip install "yolact-deploy[cuda]"' in done.stderr


def test_importing_the_kernels_modules_loads_no_cuda_package() -> None:
    """They may be there: importing must not depend on it, nor cost anything."""
    modules = modules_of("plugins")
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += "assert not [n for n in sys.modules if n.startswith(('cuda.bindings', 'cuda.core', 'cuda.pathfinder'))]"
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_a_missing_video_extra_is_one_line_that_names_it() -> None:
    code = (
        BLOCK_ALL
        + "import pathlib\nfrom yolact_runtime.media.images import read_image\nread_image(pathlib.Path('a.png'))"
    )
    done = run(code)
    assert 'pip install "yolact-deploy[video]"' in done.stderr.strip().splitlines()[-1]


def test_copying_two_folders_is_enough_for_a_robot(tmp_path: Path) -> None:
    """No installation: the two source folders on PYTHONPATH, NumPy beside them."""
    import numpy

    paths = [str(ROOT / "runtime"), str(ROOT / "plugins"), str(Path(numpy.__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {paths!r}\n{BLOCK_ALL}import yolact_runtime; print(yolact_runtime.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == str(ROOT / "runtime" / "yolact_runtime" / "__init__.py")
