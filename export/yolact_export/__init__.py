"""Export of trained checkpoints: from a ``.pth`` file to a verified bundle that a robot can run.

```python
import yolact_export

result = yolact_export.export("best.pth", "mine.bundle")
print(result.manifest.name, result.verification.passed)
```

:func:`export` does what ``yolact-export CHECKPOINT`` does, :func:`add_networks` what ``yolact-export BUNDLE --int8``
does, and :func:`build_engine` what ``yolact-export BUNDLE --engine`` does. Modules are loaded when a name of theirs is
first used.
"""

import logging
from typing import TYPE_CHECKING

from yolact_calibration.errors import CalibrationError, DatasetError, PruningError, TrainingError
from yolact_export.errors import (
    CheckpointError,
    ConfigError,
    EngineBuildError,
    EngineMemoryError,
    ExportError,
    ManifestError,
    MissingDependencyError,
    ShapeError,
    UsageError,
    VerificationError,
    YolactError,
)
from yolact_plugins import __version__
from yolact_plugins.lazy_names import lazy_names
from yolact_runtime.errors import BackendError, BundleError, MediaError, SelfTestError, SignatureError

if TYPE_CHECKING:
    from yolact_calibration.labels.options import FileRules, Labels
    from yolact_calibration.precision.options import PrecisionOptions
    from yolact_calibration.quantisation.ranges import RangeMethod
    from yolact_export.checkpoint.checkpoint import CheckpointOptions
    from yolact_export.engine.build import BuiltEngine
    from yolact_export.engine.bundle import WrittenEngine
    from yolact_export.engine.layers import Convolution
    from yolact_export.engine.options import EngineOptions
    from yolact_export.facade.engines import EngineResult, build_engine
    from yolact_export.facade.export import export
    from yolact_export.facade.networks import NetworksResult, add_networks
    from yolact_export.graph.deformable import DeformConvForm
    from yolact_export.graph.export import ExportOptions
    from yolact_export.pipeline import ExportResult
    from yolact_export.precision.existing_bundle import ExtendedBundle
    from yolact_export.precision.precision import PrecisionResult, Variant
    from yolact_export.seal import SigningOptions
    from yolact_export.training.pruning import PrunedCheckpoint
    from yolact_export.training.pruning_options import PruningOptions
    from yolact_export.verify import Verification
    from yolact_runtime.reporter import LogReporter, Reporter

__all__ = [
    "BackendError",
    "BuiltEngine",
    "BundleError",
    "CalibrationError",
    "CheckpointError",
    "CheckpointOptions",
    "ConfigError",
    "Convolution",
    "DatasetError",
    "DeformConvForm",
    "EngineBuildError",
    "EngineMemoryError",
    "EngineOptions",
    "EngineResult",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "ExtendedBundle",
    "FileRules",
    "Labels",
    "LogReporter",
    "ManifestError",
    "MediaError",
    "MissingDependencyError",
    "NetworksResult",
    "PrecisionOptions",
    "PrecisionResult",
    "PrunedCheckpoint",
    "PruningError",
    "PruningOptions",
    "RangeMethod",
    "Reporter",
    "SelfTestError",
    "ShapeError",
    "SignatureError",
    "SigningOptions",
    "TrainingError",
    "UsageError",
    "Variant",
    "Verification",
    "VerificationError",
    "WrittenEngine",
    "YolactError",
    "__version__",
    "add_networks",
    "build_engine",
    "export",
]

# Where the names live that are loaded when they are first used: a program that only reads results needs no torch.
_LAZY = {
    "yolact_calibration.labels.options": (
        "FileRules",
        "Labels",
    ),
    "yolact_calibration.quantisation.ranges": ("RangeMethod",),
    "yolact_export.checkpoint.checkpoint": ("CheckpointOptions",),
    "yolact_export.engine.build": ("BuiltEngine",),
    "yolact_export.engine.bundle": ("WrittenEngine",),
    "yolact_export.engine.layers": ("Convolution",),
    "yolact_export.engine.options": ("EngineOptions",),
    "yolact_export.facade.engines": (
        "EngineResult",
        "build_engine",
    ),
    "yolact_export.facade.export": ("export",),
    "yolact_export.facade.networks": (
        "NetworksResult",
        "add_networks",
    ),
    "yolact_export.graph.deformable": ("DeformConvForm",),
    "yolact_export.graph.export": ("ExportOptions",),
    "yolact_export.pipeline": ("ExportResult",),
    "yolact_export.precision.existing_bundle": ("ExtendedBundle",),
    "yolact_calibration.precision.options": ("PrecisionOptions",),
    "yolact_export.precision.precision": (
        "PrecisionResult",
        "Variant",
    ),
    "yolact_export.seal": ("SigningOptions",),
    "yolact_export.training.pruning": ("PrunedCheckpoint",),
    "yolact_export.training.pruning_options": ("PruningOptions",),
    "yolact_export.verify": ("Verification",),
    "yolact_runtime.reporter": (
        "LogReporter",
        "Reporter",
    ),
}

# The embedding program decides whether and where messages are shown.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if not TYPE_CHECKING:  # a type checker would accept any name
    __getattr__, __dir__ = lazy_names(__name__, _LAZY, globals(), "export")
