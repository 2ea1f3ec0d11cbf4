"""Measurements of exported models: their accuracy, and their speed on this machine.

```python
import yolact_benchmarks

accuracy = yolact_benchmarks.evaluate("mine.bundle", "val/", annotations="val.json")
speed = yolact_benchmarks.benchmark("mine.bundle")
```

:func:`evaluate` does what ``yolact-eval`` does, and :func:`benchmark` what ``yolact-bench`` does. Modules are loaded
when a name of theirs is first used.
"""

import logging
from typing import TYPE_CHECKING

from yolact_calibration.errors import DatasetError
from yolact_plugins import __version__
from yolact_plugins.lazy_names import lazy_names
from yolact_runtime.errors import (
    BackendError,
    BundleError,
    MediaError,
    MissingDependencyError,
    NoNetworkError,
    SignatureError,
    UsageError,
    YolactError,
)

if TYPE_CHECKING:
    from yolact_benchmarks.facade.benchmark import Benchmark, benchmark
    from yolact_benchmarks.facade.evaluation import Evaluation, EvaluationOptions, evaluate
    from yolact_benchmarks.measure.measurement import Plan
    from yolact_benchmarks.measure.request import BenchmarkOptions
    from yolact_calibration.evaluation.accuracy import Accuracy
    from yolact_calibration.evaluation.agreement import Agreement, ImageAgreement
    from yolact_calibration.evaluation.bootstrap import Interval
    from yolact_calibration.labels.options import FileRules
    from yolact_runtime.reporter import LogReporter, Reporter

__all__ = [
    "Accuracy",
    "Agreement",
    "BackendError",
    "Benchmark",
    "BenchmarkOptions",
    "BundleError",
    "DatasetError",
    "Evaluation",
    "EvaluationOptions",
    "FileRules",
    "ImageAgreement",
    "Interval",
    "LogReporter",
    "MediaError",
    "MissingDependencyError",
    "NoNetworkError",
    "Plan",
    "Reporter",
    "SignatureError",
    "UsageError",
    "YolactError",
    "__version__",
    "benchmark",
    "evaluate",
]

# Where the names live that are loaded when they are first used: a program that only reads results needs no torch.
_LAZY = {
    "yolact_benchmarks.facade.benchmark": (
        "Benchmark",
        "benchmark",
    ),
    "yolact_benchmarks.facade.evaluation": (
        "Evaluation",
        "EvaluationOptions",
        "evaluate",
    ),
    "yolact_benchmarks.measure.measurement": ("Plan",),
    "yolact_benchmarks.measure.request": ("BenchmarkOptions",),
    "yolact_calibration.evaluation.accuracy": ("Accuracy",),
    "yolact_calibration.evaluation.agreement": (
        "Agreement",
        "ImageAgreement",
    ),
    "yolact_calibration.evaluation.bootstrap": ("Interval",),
    "yolact_calibration.labels.options": ("FileRules",),
    "yolact_runtime.reporter": (
        "LogReporter",
        "Reporter",
    ),
}

# A library leaves the handling of its log messages to the program.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if not TYPE_CHECKING:  # a type checker would accept any name
    __getattr__, __dir__ = lazy_names(__name__, _LAZY, globals(), "bench")
