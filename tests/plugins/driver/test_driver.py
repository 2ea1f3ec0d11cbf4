"""The face over the driver: what it says where there is none, and all of it over a driver without a GPU.

No GPU is needed and none is proven to work. ``support/fake_driver`` is a libcuda in C whose device memory is host
memory; NVIDIA's own binding runs on it in a process of its own. That shows that every call is made with arguments that
the binding accepts, in an order and on a thread that the driver would accept, that errors carry the driver's words, and
that everything is given back. It shows nothing about timing, asynchrony, or kernels.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.kernels import SAMPLE
from support.tools import require_tool
from yolact_plugins.compile.compiler import compile_cubin
from yolact_plugins.compile.cubin_folder import write_cubins
from yolact_plugins.driver.driver import load_driver
from yolact_plugins.errors import CudaUnavailableError

FAKE = Path(__file__).parents[2] / "support" / "fake_driver"


def test_no_driver_is_an_error_before_anything_is_imported() -> None:
    code = (
        "import sys\nfrom yolact_plugins.driver.driver import load_driver\n"
        "from yolact_plugins.errors import YolactError\n"
        "try: load_driver('libnothere.so.1')\n"
        "except YolactError as error: print(type(error).__name__, error.exit_status, error)\n"
        "assert 'cuda.bindings.driver' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("NoDriverError 5 there is no NVIDIA driver here (libnothere.so.1: ")


def test_a_failure_is_not_remembered() -> None:
    for _ in range(2):
        with pytest.raises(CudaUnavailableError):
            load_driver("libnothere.so.1")


@pytest.fixture(scope="module")
def driver_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = require_tool("C compiler")
    folder = tmp_path_factory.mktemp("driver")
    library, source = str(folder / "libcuda.so.1"), str(FAKE / "libcuda.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", library, source, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    write_cubins(folder / "cubins", [compile_cubin(SAMPLE, "sm_87")])
    return folder


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment |= {"LD_LIBRARY_PATH": path, "CUBINS_OF_THE_TEST": str(folder / "cubins")}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300)


def test_everything_over_a_driver_without_a_gpu(driver_folder: Path) -> None:
    done = _run(driver_folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FAKE / "driver_cases.py"))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_a_missing_binding_names_the_extra(driver_folder: Path) -> None:
    code = (
        "import sys; sys.modules['cuda'] = None\nfrom yolact_plugins.driver.driver import load_driver\n"
        "try: load_driver()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    done = _run(driver_folder, "-c", code)
    assert done.stdout.startswith('MissingDependencyError Computing on the GPU needs the package "cuda-bindings"')
    assert 'pip install "yolact-deploy[cuda]"' in done.stdout


def test_a_missing_binding_for_a_driver_of_cuda_12_names_its_extra(driver_folder: Path) -> None:
    code = (
        "import sys; sys.modules['cuda'] = None\n"
        "from yolact_plugins.driver import driver\nfrom yolact_plugins.driver.gpu import Gpu\n"
        "driver.find_gpu = lambda library: Gpu('Orin', '8.7', '12.6')\n"
        "try: driver.load_driver()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    assert 'pip install "yolact-deploy[cuda12]"' in _run(driver_folder, "-c", code).stdout
