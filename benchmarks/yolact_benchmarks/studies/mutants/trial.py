"""One mutant in a copy of the repository: written, tried by the tests in a child process, and undone.

The child is forked from a process that has made the slow imports (pytest, NumPy, ONNX, PyTorch), so that a mutant costs
little more than its tests. The fault is in a file, so that processes started by a test have it, too.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Scratch", "preload"]

_SLOW_IMPORTS = (
    "pytest", "hypothesis", "numpy", "onnx", "onnx.helper", "onnxruntime", "torch", "cv2", "pycocotools.mask",
    "faster_coco_eval",
)  # fmt: skip
_ROOTS = ("benchmarks", "calibration", "export", "plugins", "runtime")
_WORDS = (
    *("-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "--hypothesis-seed=0"),
    *("-W", "ignore:Module already imported"),
)
_PASSED, _FAILED, _INTERRUPTED = 0, 1, 2


def preload() -> None:
    """Import what tests import and no mutant changes; missing packages are left to the tests."""
    for name in _SLOW_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _look_for_one_counterexample() -> None:
    """Let hypothesis stop at one counterexample: without shrinking it, and without those of earlier mutants."""
    from hypothesis import Phase, settings

    # The profiles of the tests inherit what is loaded when they are made.
    settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate), database=None)
    settings.load_profile("mutants")


class Scratch:
    """A copy of the repository's files, in which one file at a time has a fault.

    Args:
        root: Root of the repository.
        folder: Folder for the copy; it exists, and is empty.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self._clock = int(time.time())
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=root, check=True, capture_output=True).stdout.decode().split("\0")
        for name in filter(None, names):
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)

    @contextlib.contextmanager
    def changed(self, module: str, text: str) -> Iterator[None]:
        """Replace the content of a file while the block runs."""
        path = self.folder / module
        before = path.read_text(encoding="utf-8")
        try:
            self._write(path, text)
            yield
        finally:
            self._write(path, before)

    def _write(self, path: Path, text: str) -> None:
        # Python compares whole seconds to tell whether its compiled file is stale: each text gets a distinct one.
        self._clock += 1
        path.write_text(text, encoding="utf-8")
        os.utime(path, (self._clock, self._clock))

    def run_tests(self, tests: tuple[str, ...], limit_s: float) -> str:
        """Run tests in a child and return the outcome.

        It is ``"passed"``, ``"failed"``, ``"time"`` (the time limit was reached) or ``"broken"`` (no test was run, or
        pytest failed).
        """
        child = os.fork()
        if child == 0:
            self._be_the_tests(tests)
        deadline = time.monotonic() + limit_s
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "time"
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if os.WIFSIGNALED(status):
            return "failed"
        names = {_PASSED: "passed", _FAILED: "failed", _INTERRUPTED: "failed"}
        return names.get(os.WEXITSTATUS(status), "broken")

    def _be_the_tests(self, tests: tuple[str, ...]) -> None:
        """Run the tests in the child; this function does not return."""
        status = 99
        try:
            os.setpgid(0, 0)
            os.chdir(self.folder)
            roots = [str(self.folder / name) for name in _ROOTS]
            for name in [name for name in sys.modules if name.partition(".")[0].startswith("yolact_")]:
                del sys.modules[name]
            sys.path[:0] = roots
            os.environ["PYTHONPATH"] = os.pathsep.join(roots)
            log = os.open(self.folder / "tests.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            for stream in (1, 2):
                os.dup2(log, stream)
            _look_for_one_counterexample()
            import pytest

            status = int(pytest.main([*_WORDS, *tests]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
