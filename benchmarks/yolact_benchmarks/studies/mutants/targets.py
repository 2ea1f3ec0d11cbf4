"""The modules in which faults would give wrong results, and the tests that must notice."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """A module, and its tests.

    Attributes:
        name: Short name, also for the command line.
        module: Path of the module in the repository.
        tests: Files of its tests; the first test that fails is enough.
    """

    name: str
    module: str
    tests: tuple[str, ...]

    def source(self, root: Path) -> str:
        """Read the module's source."""
        return (root / self.module).read_text(encoding="utf-8")

    def digests(self, root: Path) -> tuple[str, str]:
        """Return the SHA-256 digests of the module and of its tests, for which an outcome is valid."""
        tests = b"".join((root / name).read_bytes() for name in self.tests)
        return hashlib.sha256(self.source(root).encode()).hexdigest(), hashlib.sha256(tests).hexdigest()


def _calibration(name: str) -> str:
    return f"calibration/yolact_calibration/{name}.py"


def _plugins(name: str) -> str:
    return f"plugins/yolact_plugins/{name}.py"


def _runtime(name: str) -> str:
    return f"runtime/yolact_runtime/{name}.py"


_SIGNED = "tests/runtime/test_signed_opening.py"
_BUNDLE_SIGNATURE = "tests/runtime/model/test_bundle_signature.py"
TARGETS = (
    Target("verify", "export/yolact_export/verify.py", ("tests/export/test_verify.py",)),
    Target("guard", _calibration("evaluation/judge"), ("tests/calibration/evaluation/test_judge.py",)),
    Target("nms", _runtime("cpu/nms"), ("tests/runtime/cpu/test_nms.py",)),
    Target("mask-assembly", _runtime("cpu/mask_assembly"), ("tests/runtime/cpu/test_mask_assembly.py",)),
    Target("qdq", _calibration("quantisation/qdq"), ("tests/calibration/quantisation/test_qdq.py",)),
    Target(
        "qdq-placement",
        _calibration("quantisation/qdq_placement"),
        ("tests/calibration/quantisation/test_qdq_placement.py",),
    ),
    Target("engine-file", _runtime("backends/engine_file"), ("tests/runtime/backends/test_engine_file.py", _SIGNED)),
    Target(
        "bundle",
        _runtime("model/bundle"),
        ("tests/runtime/model/test_bundle.py", "tests/runtime/test_opening.py", _SIGNED),
    ),
    Target("bundle-folder", _runtime("model/bundle_folder"), ("tests/runtime/model/test_bundle.py", _BUNDLE_SIGNATURE)),
    Target("bundle-exchange", _runtime("model/bundle_exchange"), ("tests/runtime/model/test_bundle_exchange.py",)),
    Target("signature", _runtime("model/bundle_signature"), (_BUNDLE_SIGNATURE,)),
    Target("manifest-signature", _runtime("model/manifest_signature"), (_BUNDLE_SIGNATURE,)),
    Target("trusted-files", _plugins("trusted_files"), ("tests/plugins/test_trusted_files.py",)),
    Target("staging", _plugins("staging"), ("tests/plugins/test_staging.py",)),
    Target("leftovers", _plugins("leftovers"), ("tests/plugins/test_leftovers.py", "tests/plugins/test_staging.py")),
    Target("locks", _plugins("locks"), ("tests/plugins/test_locks.py",)),
)
