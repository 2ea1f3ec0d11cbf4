"""Install PyTorch into the environment that runs this file, without CUDA builds on machines without CUDA.

On Linux the default package index serves CUDA builds of torch: several gigabytes that a machine without an NVIDIA
driver, or with a driver of an older CUDA, cannot use. This script therefore asks pip first what it would install, and
uses PyTorch's own index of CPU builds if CUDA packages are among it. To train on a GPU with a driver of CUDA 12,
install PyTorch's build for it first.
"""

import argparse
import ctypes.util
import importlib.metadata
import json
import subprocess
import sys

REQUIREMENT = "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# CUDA version of the builds on the default index.
CUDA_MAJOR = 13


def pip(*arguments: str, capture: bool = False) -> str:
    """Run pip of this environment; return its standard output if captured."""
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE if capture else None)
    return done.stdout or ""


def brings_cuda() -> bool:
    """Return whether the default index would install CUDA packages."""
    report = json.loads(
        pip("install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", REQUIREMENT, capture=True)
    )
    names = [item["metadata"]["name"].lower() for item in report["install"]]
    return any(name.startswith(("nvidia-", "cuda-")) for name in names)


def is_installed() -> bool:
    """Return whether this environment has torch."""
    try:
        importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    """Install PyTorch, unless it is installed already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cuda", type=int, default=CUDA_MAJOR, help="CUDA major version of the driver, if there is one"
    )
    options = parser.parse_args()
    if is_installed():
        return
    has_driver = ctypes.util.find_library("cuda") is not None and options.cuda >= CUDA_MAJOR
    if has_driver or not brings_cuda():
        pip("install", "--quiet", REQUIREMENT)
    else:
        pip("install", "--quiet", "--index-url", CPU_INDEX, REQUIREMENT)


if __name__ == "__main__":
    main()
