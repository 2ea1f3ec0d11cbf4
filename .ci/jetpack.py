"""Run the tests of what runs on a robot with the Python, NumPy and CUDA of a JetPack, on any Linux machine.

Makes an environment of its own, ``out/jetpack6`` for JetPack 6, installs the project's extras for it and runs the tests
that need no PyTorch. What this cannot show is in docs/runtime.md.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# JetPack: its Python; extras; what else is installed so that versions are JetPack's.
JETPACKS = {
    "6": ("3.10", "jetpack6,bench,sign,rtx-cuda12", ["numpy==1.26.*"]),
    "7": ("3.12", "cuda,bench,sign,rtx", []),
}
TESTS = ("tests/plugins", "tests/runtime", "tests/benchmarks", "tests/packaging/test_imports.py")
# They compare with PyTorch, quantise, or look at documents, all of which is done at the desk.
DESK = ("layers/test_layer_profile.py", "peers", "studies/test_quantisers.py", "studies/test_tables.py")


def main() -> int:
    """Entry point; returns pytest's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jetpack", choices=sorted(JETPACKS))
    parser.add_argument("--python", help="interpreter (default: one of JetPack's version)")
    parser.add_argument("--results", help="folder for the record, such as benchmarks/results")
    options = parser.parse_args()
    version, extras, pins = JETPACKS[options.jetpack]
    python = options.python or find_python(version)
    if python is None:
        parser.error(f"there is no Python {version} here: install it, or give --python")
    folder = ROOT / "out" / f"jetpack{options.jetpack}"
    environment_python = str(folder / "bin" / "python")
    pip = [environment_python, "-m", "pip", "install", "--quiet"]
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    subprocess.run([*pip, "--editable", f".[{extras}]", "--group", "robot-tests", *pins], check=True, cwd=ROOT)
    record = ["--results", options.results] if options.results else []
    left_out = [f"--ignore=tests/benchmarks/{name}" for name in DESK]
    suite = [environment_python, "-m", "yolact_benchmarks.studies.suite", f"jetpack{options.jetpack}", *record, "--"]
    command = [*suite, "-q", "-n", "2", "--dist", "worksteal", *left_out, *TESTS]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode


def find_python(version: str) -> str | None:
    """An interpreter of this version that starts: on the path, or one of pyenv's."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    installed = sorted(pyenv.glob(f"{version}.*/bin/{name}"), reverse=True)
    for candidate in (shutil.which(name), *map(str, installed)):
        # On the path there may be a shim of pyenv's that only says what is not chosen.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


if __name__ == "__main__":
    sys.exit(main())
