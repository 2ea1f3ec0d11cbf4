"""Tests with real components, each in an environment of its own: other Pythons, other libraries, Debian packages.

For each integration, this script creates ``out/integrations/<name>``, installs the packages of the integration, and
runs its tests there. Tests may only be skipped for reasons that the integration allows. An integration that cannot be
installed is listed with the reason; it is a failure in CI (``CI`` is set) or if it was named.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "integrations"
LIMIT_S = 900
_GRACE_S = 5.0
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Integration:
    """Packages to install, and the tests to run with them.

    Attributes:
        name: Name for the command line, and of the environment's folder.
        python: Version of the interpreter, such as ``"3.10"``.
        project: Arguments that install the project with pip: ``".[extra]"``, or with ``--editable`` before it.
        tests: Arguments of pytest.
        allowed_skips: Patterns; a skipped test whose reason matches none of them is a failure.
        pins: Further arguments for pip.
        groups: Dependency groups of ``pyproject.toml`` to install as well.
        debian: Debian packages that must be installed.
        default: Whether it is run if none is named.
        other_pythons: Python versions that its tests look for in addition.
        script: Script and its options, run in place of pytest; it takes ``--name`` and ``--results`` and writes a
            record with the same counts.
    """

    name: str
    python: str
    project: tuple[str, ...]
    tests: tuple[str, ...]
    allowed_skips: tuple[str, ...]
    pins: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("robot-tests",)
    debian: tuple[str, ...] = ()
    default: bool = True
    other_pythons: tuple[str, ...] = ()
    script: tuple[str, ...] = ()


class NotInstallableError(Exception):
    """A requirement of an integration cannot be installed on this machine; the message says what to do."""


# The tests of what runs on a robot, without those that compare with PyTorch, quantise, or look at documents.
_DESK = ("layers/test_layer_profile.py", "peers", "studies/test_quantisers.py", "studies/test_tables.py")
_ROBOT = (
    *("-n", "2", "--dist", "worksteal"),
    *(f"--ignore=tests/benchmarks/{name}" for name in _DESK),
    # Its networks are exported, which takes PyTorch.
    "--ignore=tests/runtime/model/test_network_parts.py",
    *("tests/plugins", "tests/runtime", "tests/benchmarks", "tests/packaging/test_imports.py"),
)
# The wheel has no studies, and those of a GPU day open the GPU for these two.
_DAY = ("tests/plugins/simulated/test_on_device.py", "tests/runtime/cuda/test_on_a_gpu.py")
_WHEEL = tuple(f"--ignore={path}" for path in ("tests/benchmarks/studies", *_DAY))
# It exports checkpoints, which takes PyTorch, and a robot has none.
_NO_STORM = ("--ignore=tests/benchmarks/studies/storm",)
_NO_MOUNT = r"mounting takes root|there is no program mount"
_ROBOT_SKIPS = (
    r"there is no NVIDIA driver here",
    r"could not import 'torch'",
    r"mypy is not installed",
    r"NumPy exchanges DLPack 1\.0 from version 2\.1 on",
    r"needs Chromium: ",
    r"needs ffmpeg",
    r"needs NVIDIA's disassembler",
    r"root may write everywhere",
    r"the data sets are not beside this repository",
    _NO_MOUNT,
)
# Of the matrices in .github/workflows.
_PYTHONS = ("3.10", "3.11", "3.12", "3.13")
_ACTION = r"^needs GitHub: "
_JETPACK_6 = ".[jetpack6,bench,sign,rtx-cuda12]"
_JETPACK_7 = ".[cuda,bench,sign,rtx]"


def _robot_wheel(python: str, numpy: str, project: str = _JETPACK_7, default: bool = False) -> Integration:
    """Return the robot's tests against the wheel, with a version of Python and one of NumPy: ``("3.13", "2")``."""
    name = f"python{python}-numpy{numpy}".replace(".", "")
    return Integration(
        name, python, (project,), (*_WHEEL, *_ROBOT), _ROBOT_SKIPS, pins=(f"numpy=={numpy}.*",), default=default
    )


INTEGRATIONS = (
    _robot_wheel("3.10", "1.26", _JETPACK_6, default=True),
    _robot_wheel("3.10", "2"),
    _robot_wheel("3.11", "2"),
    _robot_wheel("3.12", "1.26"),
    _robot_wheel("3.12", "2"),
    # NumPy 1 has no wheels for it.
    _robot_wheel("3.13", "2"),
    # Videos as H.264, and healthy ones of all the containers that ffmpeg writes.
    Integration(
        "ffmpeg",
        "3.12",
        ("--editable", ".[ort,video,sign]"),
        ("-n", "2", "--dist", "worksteal", "tests/runtime/media", "tests/runtime/commands"),
        (_NO_MOUNT, r"root may write everywhere"),
        debian=("ffmpeg",),
    ),
    # Machine code as NVIDIA's disassembler lists it, executed and counted.
    Integration(
        "disassembler",
        "3.12",
        ("--editable", ".[cuda]"),
        ("tests/benchmarks/studies/instructions",),
        (),
        pins=("nvidia-cuda-nvdisasm",),
    ),
    # The documentation site, built strictly.
    Integration(
        "docs",
        "3.12",
        ("--editable", "."),
        ("tests/packaging/test_site.py",),
        (),
        groups=("robot-tests", "docs"),
    ),
    # From the checkout, so with the studies; what these cannot show is in docs/runtime.md.
    Integration(
        "jetpack6",
        "3.10",
        ("--editable", _JETPACK_6),
        (*_NO_STORM, *_ROBOT),
        _ROBOT_SKIPS,
        pins=("numpy==1.26.*",),
        default=False,
    ),
    Integration(
        "jetpack7",
        "3.12",
        ("--editable", _JETPACK_7),
        (*_NO_STORM, *_ROBOT),
        _ROBOT_SKIPS,
        default=False,
    ),
    # The run lines of .github/workflows, in fresh clones: the wheel's by default, all of them by name.
    Integration(
        "workflows",
        "3.12",
        ("--editable", "."),
        (),
        (_ACTION,),
        other_pythons=_PYTHONS,
        script=(".ci/workflows.py", "packages.wheel"),
    ),
    Integration(
        "all-workflows",
        "3.12",
        ("--editable", "."),
        (),
        (_ACTION,),
        default=False,
        other_pythons=_PYTHONS,
        script=(".ci/workflows.py",),
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where everything that could be installed has passed, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(one.name for one in INTEGRATIONS))
    parser.add_argument(
        "--debian", nargs="+", metavar="PACKAGE", default=(), help="install these packages of Debian's, and do no more"
    )
    parser.add_argument("--results", type=Path, help="folder to keep the record in, such as benchmarks/results")
    parser.add_argument(
        "--limit-s", type=_seconds, default=LIMIT_S, help=f"seconds for all together (default {LIMIT_S})"
    )
    options = parser.parse_args(arguments)
    known = {one.name: one for one in INTEGRATIONS}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[name] for name in options.names] or [one for one in INTEGRATIONS if one.default]
    deadline = time.monotonic() + options.limit_s
    if options.debian:
        return install_or_tell(tuple(options.debian), deadline)
    results = (options.results or OUT / "results").resolve()
    outcomes = {one.name: run_integration(one, results, deadline) for one in chosen}
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
    # An integration that cannot be installed is reported and skipped, unless it was named, or this is CI.
    bad = ("failed", "not installed") if options.names or in_ci() else ("failed",)
    return int(any(outcome.startswith(bad) for outcome in outcomes.values()))


def in_ci() -> bool:
    """Return whether this is CI: ``CI`` is set, and neither to "0" nor to "false"."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds, found {text}")
    return seconds


def run_integration(integration: Integration, results: Path, deadline: float) -> str:
    """Set up and run one integration.

    Args:
        integration: Integration to run.
        results: Folder for the record, absolute.
        deadline: Deadline on the clock of :func:`time.monotonic`, seconds.

    Returns:
        Line that begins with ``passed: ``, ``failed: `` or ``not installed: ``.
    """
    started = time.monotonic()
    print(f"--- {integration.name}", flush=True)
    try:
        install_debian_packages(integration.debian, deadline)
        python = make_environment(integration, deadline)
        status, record = run_tests(integration, python, results, deadline)
    except NotInstallableError as error:
        return f"not installed: {error}"
    except subprocess.TimeoutExpired:
        return "failed: the time was over; --limit-s gives more"
    except subprocess.CalledProcessError as error:
        return f"failed: exit status {error.returncode} of {' '.join(map(str, error.cmd))}"
    seconds = round(time.monotonic() - started)
    counts = (
        f"{record['passed']} passed, {record['skipped']} skipped, {record['failed']} failed in {seconds} s with set-up"
    )
    if record["failed"] or not record["passed"]:
        return f"failed: {counts}"
    if status:
        return f"failed: {counts}, but the tests did not come to their end: exit status {status}"
    if surprising := surprising_skips(integration, record["skips"]):
        return f"failed: {counts}; skipped although all is installed: {'; '.join(surprising)}"
    return f"passed: {counts}"


def surprising_skips(integration: Integration, skips: dict[str, int]) -> list[str]:
    """Return the reasons for skips that the integration does not allow."""
    allowed = integration.allowed_skips
    return [reason for reason in skips if not any(re.search(pattern, reason) for pattern in allowed)]


def install_or_tell(packages: tuple[str, ...], deadline: float) -> int:
    """Install packages and return 0, or print why they cannot be installed and return 1."""
    try:
        install_debian_packages(packages, deadline)
    except NotInstallableError as error:
        print(f"not installed: {error}")
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        print(f"failed: {' '.join(map(str, error.cmd))}")
    else:
        return 0
    return 1


def install_debian_packages(packages: tuple[str, ...], deadline: float) -> None:
    """Install missing packages with apt.

    Raises:
        NotInstallableError: A package is missing, and this is not Debian, or not run as root and not in CI with sudo.
    """
    missing = [name for name in packages if not _has_debian_package(name)]
    if not missing:
        return
    install = ["apt-get", "--quiet", "install", "--yes", "--no-install-recommends", *missing]
    # Outside of CI, sudo is not used, even if it needs no password: it would change a developer's machine.
    sudo = ["sudo", "--non-interactive"] if os.geteuid() != 0 and in_ci() and shutil.which("sudo") else []
    if (os.geteuid() != 0 and not sudo) or shutil.which("apt-get") is None:
        raise NotInstallableError(f"as root on Debian or Ubuntu: {' '.join(install)}")
    run_limited([*sudo, "apt-get", "--quiet", "update"], deadline)
    run_limited([*sudo, *install], deadline)


def _has_debian_package(name: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    asked = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", name]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout == "installed"


def make_environment(integration: Integration, deadline: float) -> Path:
    """Make a virtual environment with the project as the integration wants it, and return its interpreter.

    Raises:
        NotInstallableError: There is no such Python, or one of the others is missing.
    """
    pythons = {version: find_python(version) for version in (integration.python, *integration.other_pythons)}
    for version, found in pythons.items():
        if found is None:
            raise NotInstallableError(f"there is no Python {version} here: install it, for example with pyenv")
    python = str(pythons[integration.python])
    folder = OUT / integration.name
    inside = folder / "bin" / "python"
    pip = [str(inside), "-m", "pip", "install", "--quiet"]
    if run_limited([python, "-m", "venv", "--clear", str(folder)], deadline, check=False):
        raise NotInstallableError(
            f"{python} -m venv fails; on Debian, as root: apt-get install python{integration.python}-venv"
        )
    run_limited([*pip, "--upgrade", "pip>=25.1"], deadline)
    groups = [word for group in integration.groups for word in ("--group", group)]
    run_limited([*pip, *integration.project, *groups, *integration.pins], deadline)
    if "--editable" not in integration.project:
        # The tests would pass with the checkout's files, too.
        is_installed = "import sys, yolact_runtime as r, yolact_benchmarks as b; "
        is_installed += "sys.exit(not all(module.__file__.startswith(sys.prefix) for module in (r, b)))"
        run_limited([str(inside), "-c", is_installed], deadline)
    return inside


def run_tests(integration: Integration, python: Path, results: Path, deadline: float) -> tuple[int, dict[str, object]]:
    """Run the tests and write the record; return their exit status, and what the record says of the outcomes."""
    kept = ["--results", str(results)]
    if integration.script:
        command = [str(python), *integration.script, "--name", f"suite-{integration.name}", *kept]
    else:
        suite = [str(python), "benchmarks/yolact_benchmarks/studies/suite.py", integration.name]
        command = [*suite, *kept, "--", "-q", *integration.tests]
    name = f"suite-{integration.name}.json"
    before = {path: path.stat().st_mtime_ns for path in results.rglob(name)}
    status = run_limited(command, deadline, check=False)
    written = [path for path in results.rglob(name) if before.get(path) != path.stat().st_mtime_ns]
    if not written:
        raise subprocess.CalledProcessError(status or 1, command)
    record: dict[str, object] = json.loads(written[0].read_text())["results"]
    return status, record


def run_limited(
    command: list[str],
    deadline: float,
    check: bool = True,
    folder: Path = ROOT,
    environment: dict[str, str] | None = None,
) -> int:
    """Run a command in the checkout, or another folder.

    When the time is over, or this process ends, it is ended with all that it has started.

    Returns:
        The exit status.

    Raises:
        subprocess.TimeoutExpired: The time is over.
        subprocess.CalledProcessError: It failed, and `check`.
    """
    if environment is None:
        # Settings of a developer's Python must not affect another one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"OMP_NUM_THREADS": "1", "DEBIAN_FRONTEND": "noninteractive"}
    # A signal during the start of the child is deferred until the child can be ended.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        child = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, preexec_fn=_hear_signals)
    except BaseException:
        _hear_signals()
        raise
    try:
        _hear_signals()
        status = child.wait(max(deadline - time.monotonic(), 0))
    except BaseException:
        _end(child)
        raise
    if status and check:
        raise subprocess.CalledProcessError(status, command)
    return status


def _hear_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started; it gets a moment to leave things in order."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def find_python(version: str) -> str | None:
    """Find an interpreter of this version that starts: on the path, or else the newest of pyenv's."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    installed = sorted(pyenv.glob(f"{version}.*/bin/{name}"), key=_version_number, reverse=True)
    # On the path there may be a shim of pyenv's that only says what is not chosen.
    return next((path for path in (shutil.which(name), *map(str, installed)) if path and _starts(path)), None)


def _version_number(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parents[1].name)]


def _starts(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    # Whatever ends this process ends what it has started.
    for ending in ENDINGS:
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
