"""From a float network and what it was seen to compute, the INT8 network that keeps its accuracy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from yolact_calibration.errors import CalibrationError
from yolact_calibration.evaluation.judge import Judge, Judgement, Predictions
from yolact_calibration.quantisation.group_latency import time_groups
from yolact_calibration.quantisation.histogram import Histogram
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.precision_search import Cost, SearchResult, search_precision
from yolact_calibration.quantisation.qdq import quantise, rounding_of, weight_scale
from yolact_calibration.quantisation.qdq_placement import Dialect, place, quantisable_tensors
from yolact_calibration.quantisation.ranges import Grid, Range, RangeMethod, choose_range
from yolact_calibration.quantisation.sensitivity import GroupSensitivity, measure_sensitivity
from yolact_calibration.quantisation.trial import Trial
from yolact_runtime.option_numbers import MAX_THREADS, keep_between
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["Int8Model", "Int8Options", "choose_ranges", "make_int8"]

_GRIDS = {Dialect.TENSORRT: Grid.INT8, Dialect.CPU: Grid.UINT8}


@dataclasses.dataclass(frozen=True)
class Int8Options:
    """How an INT8 network is made.

    Attributes:
        dialect: For whom.
        method: How ranges are chosen from histograms.
        max_drop: Points of AP, or of agreement AP, that may be lost; None takes the judge's own limit.
        everything: Every convolution in INT8, without a search; the limit is held all the same.
        num_threads: CPU threads of what is timed; 0 leaves the choice to ONNX Runtime.

    Raises:
        UsageError: A field is no number of its kind, or out of its range; the message names it.
    """

    dialect: Dialect
    method: RangeMethod = RangeMethod.MSE
    max_drop: float | None = None
    everything: bool = False
    num_threads: int = 0

    def __post_init__(self) -> None:
        # No limit but the judge's, with infinity.
        keep_between(self, {"num_threads": (0, MAX_THREADS)}, {"max_drop": (0, math.inf)})


@dataclasses.dataclass(frozen=True)
class Int8Model:
    """An INT8 network and how it came about.

    Attributes:
        model: The graph; what is not INT8 is float32.
        dialect: For whom it is.
        ranges: Of every tensor that a plan may round.
        search: The plan, and what was tried on the way.
        sensitivity: Of each part; empty where everything was asked for.
        cost: Of each part.
        max_drop: The limit that was held or not.
        group_sizes: Group -> its convolutions.
    """

    model: onnx.ModelProto
    dialect: Dialect
    ranges: Mapping[str, Range]
    search: SearchResult
    sensitivity: tuple[GroupSensitivity, ...]
    cost: Mapping[str, Cost]
    max_drop: float
    group_sizes: Mapping[str, int]

    @property
    def num_convolutions(self) -> int:
        """In all."""
        return sum(self.group_sizes.values())

    @property
    def num_int8(self) -> int:
        """In INT8."""
        return self.count(self.search.int8)

    def count(self, groups: Sequence[str]) -> int:
        """Convolutions of some groups."""
        return sum(self.group_sizes[group] for group in groups)

    def kept_float(self) -> list[dict[str, Any]]:
        """JSON: the groups that are not in INT8, with the reason."""
        return [
            {"group": group, "convolutions": self.group_sizes[group], "why": why}
            for group, why in self.search.kept_float.items()
        ]


def choose_ranges(histograms: Mapping[str, Histogram], method: RangeMethod, dialect: Dialect) -> dict[str, Range]:
    """A range for each tensor that a calibration saw.

    Raises:
        CalibrationError: A tensor has no range; the message names it.
    """
    ranges = {}
    for name, histogram in histograms.items():
        try:
            ranges[name] = choose_range(histogram, method, _GRIDS[dialect])
        except CalibrationError as error:
            raise CalibrationError(f'"{name}": {error}') from error
    return ranges


def make_int8(
    model: onnx.ModelProto,
    histograms: Mapping[str, Histogram],
    options: Int8Options,
    trial: Trial,
    judge: Judge,
    small_trial: Trial | None,
    small_reference: Predictions,
    class_names: Sequence[str],
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda candidate: candidate,
    reporter: Reporter = SILENT,
) -> Int8Model:
    """Make it.

    Args:
        model: The float network.
        histograms: Of the tensors that :func:`~yolact_calibration.quantisation.qdq_placement.quantisable_tensors`
            names.
        options: How.
        trial: The images that plans are judged on.
        judge: Of these images.
        small_trial: A few images, to put the parts of the network in order; None: those that save least go back first.
        small_reference: What the float network finds in them.
        class_names: Of the model.
        finish: What will become of the result, such as float16 where it is not INT8: plans are judged with it.
        reporter: Gets a line for each plan, and shows how far the trials are.

    Raises:
        CalibrationError: No part of the network can be in INT8, or a histogram is missing.
    """
    graph = NetworkGraph(model)
    if missing := sorted(set(quantisable_tensors(graph)) - set(histograms)):
        raise CalibrationError(f"the calibration saw nothing of {', '.join(missing[:5])}: calibrate this network again")
    ranges = choose_ranges(histograms, options.method, options.dialect)
    fixed = _unfit(graph, ranges, options.dialect)
    cost = _costs(graph, ranges, options, fixed)
    sensitivity: tuple[GroupSensitivity, ...] = ()
    if small_trial is not None and not options.everything:
        sensitivity = measure_sensitivity(
            model,
            ranges,
            options.dialect,
            small_trial,
            small_reference,
            class_names,
            fixed,
            reporter,
        )
    max_drop = judge.default_limit if options.max_drop is None else options.max_drop
    loss = {item.group: item.total_loss for item in sensitivity} or dict.fromkeys(cost, 1.0)
    search = search_precision(
        tuple(graph.groups),
        loss,
        cost,
        _plan_judge(graph, ranges, options.dialect, trial, judge, finish, reporter),
        max_drop,
        fixed_float=fixed,
        everything=options.everything,
        reporter=reporter,
    )
    result = quantise(model, ranges, _members(graph, search.int8), options.dialect)
    sizes = {group: len(members) for group, members in graph.groups.items()}
    return Int8Model(result, options.dialect, ranges, search, sensitivity, cost, max_drop, sizes)


def _plan_judge(
    graph: NetworkGraph,
    ranges: Mapping[str, Range],
    dialect: Dialect,
    trial: Trial,
    judge: Judge,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    reporter: Reporter,
) -> Callable[[tuple[str, ...]], Judgement]:
    """What the search tries plans with."""

    def judge_plan(groups: tuple[str, ...]) -> Judgement:
        candidate = finish(quantise(graph.model, ranges, _members(graph, groups), dialect))
        found = trial.find_if_sound(
            candidate,
            simulate=dialect is Dialect.TENSORRT,
            reporter=reporter,
            label="plan",
        )
        return judge.judge(found, quickly=True)

    return judge_plan


def _members(graph: NetworkGraph, groups: Sequence[str]) -> list[str]:
    return [convolution.name for group in groups for convolution in graph.groups[group]]


def _unfit(graph: NetworkGraph, ranges: Mapping[str, Range], dialect: Dialect) -> dict[str, str]:
    """Groups that read or write values which no INT8 scale can hold."""
    found: dict[str, str] = {}
    for group, members in graph.groups.items():
        names = [convolution.name for convolution in members]
        if heavy := [name for name in names if not _weights_fit(graph, name, dialect)]:
            found[group] = (
                f"a weight of {heavy[0]} is larger than any INT8 scale in float16 holds; look at the checkpoint"
            )
            continue
        for name in place(graph, names, dialect).tensors.values():
            try:
                rounding_of(name, ranges[name], dialect)
            except CalibrationError as error:
                found[group] = str(error)
    return found


def _weights_fit(graph: NetworkGraph, convolution: str, dialect: Dialect) -> bool:
    node = next(node for node in graph.nodes if node.name == convolution)
    with np.errstate(over="ignore"):
        return bool(np.isfinite(weight_scale(graph.constant(node.input[1]), dialect)).all())


def _costs(
    graph: NetworkGraph, ranges: Mapping[str, Range], options: Int8Options, fixed: Mapping[str, str]
) -> dict[str, Cost]:
    """What each part costs: timed for ONNX Runtime, counted for TensorRT, whose engines need a GPU to be timed."""
    if options.dialect is Dialect.TENSORRT:
        work = {group: sum(c.macs for c in members) / 1e9 for group, members in graph.groups.items()}
        return {group: Cost(gmacs, gmacs / 2, "GMAC") for group, gmacs in work.items()}
    free = [group for group in graph.groups if group not in fixed]
    variants = {"float": graph.model, "int8": quantise(graph.model, ranges, _members(graph, free), options.dialect)}
    times = time_groups(graph, variants, options.num_threads)
    in_float, in_int8 = (times[name].group_ms for name in ("float", "int8"))
    return {group: Cost(in_float[group], in_int8[group], "ms") for group in graph.groups}
