"""Calibration, training and accuracy of models, which come in as arguments.

:func:`quantise` makes INT8 and float16 networks of an exported one, and :func:`prune` makes a model narrower. Modules
are loaded when a name of theirs is first used.
"""

import logging
from typing import TYPE_CHECKING

from yolact_calibration.errors import (
    CalibrationError,
    DatasetError,
    MediaError,
    MissingDependencyError,
    PruningError,
    ShapeError,
    TextError,
    TrainingError,
    UsageError,
    YolactError,
)
from yolact_plugins import __version__
from yolact_plugins.lazy_names import lazy_names

if TYPE_CHECKING:
    from yolact_calibration.labels.options import FileRules, Labels
    from yolact_calibration.precision.candidate import Candidate
    from yolact_calibration.precision.network_maker import QuantisedNetwork
    from yolact_calibration.precision.options import PrecisionOptions
    from yolact_calibration.precision.quantise import Quantised, quantise
    from yolact_calibration.pruning.channel_groups import WidthGrid
    from yolact_calibration.pruning.latency import LayerTimer
    from yolact_calibration.pruning.layer_shape import LayerShape
    from yolact_calibration.pruning.prune import GroupReport, Pruned, PruneOptions, PruneReport, prune
    from yolact_calibration.quantisation.ranges import RangeMethod
    from yolact_calibration.training.distill import DistillationOptions
    from yolact_calibration.training.pseudo_instances import PseudoInstanceOptions
    from yolact_runtime.reporter import LogReporter, Reporter

__all__ = [
    "CalibrationError",
    "Candidate",
    "DatasetError",
    "DistillationOptions",
    "FileRules",
    "GroupReport",
    "Labels",
    "LayerShape",
    "LayerTimer",
    "LogReporter",
    "MediaError",
    "MissingDependencyError",
    "PrecisionOptions",
    "PruneOptions",
    "PruneReport",
    "Pruned",
    "PruningError",
    "PseudoInstanceOptions",
    "Quantised",
    "QuantisedNetwork",
    "RangeMethod",
    "Reporter",
    "ShapeError",
    "TextError",
    "TrainingError",
    "UsageError",
    "WidthGrid",
    "YolactError",
    "__version__",
    "prune",
    "quantise",
]

# Where the names live that are loaded when they are first used: a program that only reads results needs no torch.
_LAZY = {
    "yolact_calibration.precision.candidate": ("Candidate",),
    "yolact_calibration.precision.network_maker": ("QuantisedNetwork",),
    "yolact_calibration.precision.options": ("PrecisionOptions",),
    "yolact_calibration.precision.quantise": ("Quantised", "quantise"),
    "yolact_calibration.quantisation.ranges": ("RangeMethod",),
    "yolact_calibration.labels.options": (
        "FileRules",
        "Labels",
    ),
    "yolact_calibration.pruning.channel_groups": ("WidthGrid",),
    "yolact_calibration.pruning.latency": ("LayerTimer",),
    "yolact_calibration.pruning.layer_shape": ("LayerShape",),
    "yolact_calibration.pruning.prune": (
        "GroupReport",
        "PruneOptions",
        "PruneReport",
        "Pruned",
        "prune",
    ),
    "yolact_calibration.training.distill": ("DistillationOptions",),
    "yolact_calibration.training.pseudo_instances": ("PseudoInstanceOptions",),
    "yolact_runtime.reporter": (
        "LogReporter",
        "Reporter",
    ),
}

# The embedding program decides whether and where messages are shown.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if not TYPE_CHECKING:  # a type checker would accept any name
    __getattr__, __dir__ = lazy_names(__name__, _LAZY, globals(), "train")
