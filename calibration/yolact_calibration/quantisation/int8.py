"""Conversion of a float network with histograms of its activations to an INT8 network within an accuracy limit."""

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
    """Options of the conversion to INT8.

    Attributes:
        dialect: Runtime for which the rounding is written.
        method: Method that chooses ranges from histograms.
        max_drop: Points of AP, or of agreement AP, that may be lost; None uses the judge's default limit.
        everything: If True, every convolution is INT8, without a search; the limit is still checked.
        num_threads: Number of CPU threads for timing; 0 leaves the choice to ONNX Runtime.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    dialect: Dialect
    method: RangeMethod = RangeMethod.MSE
    max_drop: float | None = None
    everything: bool = False
    num_threads: int = 0

    def __post_init__(self) -> None:
        # max_drop has no upper limit: infinity is allowed.
        keep_between(self, {"num_threads": (0, MAX_THREADS)}, {"max_drop": (0, math.inf)})


@dataclasses.dataclass(frozen=True)
class Int8Model:
    """INT8 network, with the search that led to it.

    Attributes:
        model: INT8 graph; the parts that are not INT8 are float32.
        dialect: Runtime for which it is written.
        ranges: Range of every tensor that a plan may round.
        search: Chosen plan, and all plans that were tried.
        sensitivity: Sensitivity of each part; empty if all parts were requested in INT8.
        cost: Cost of each part.
        max_drop: Limit of the points that may be lost.
        group_sizes: Number of convolutions by group.
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
        """Number of convolutions in the network."""
        return sum(self.group_sizes.values())

    @property
    def num_int8(self) -> int:
        """Number of convolutions in INT8."""
        return self.count(self.search.int8)

    def count(self, groups: Sequence[str]) -> int:
        """Count the convolutions of some groups."""
        return sum(self.group_sizes[group] for group in groups)

    def kept_float(self) -> list[dict[str, Any]]:
        """Return the groups that are not in INT8 as JSON objects, each with the reason."""
        return [
            {"group": group, "convolutions": self.group_sizes[group], "why": why}
            for group, why in self.search.kept_float.items()
        ]


def choose_ranges(histograms: Mapping[str, Histogram], method: RangeMethod, dialect: Dialect) -> dict[str, Range]:
    """Choose a range for each tensor of a calibration.

    Raises:
        CalibrationError: A tensor has no valid range; the message names it.
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
    """Quantise a network to INT8 within the accuracy limit.

    Args:
        model: Float network; not modified.
        histograms: Histograms of the tensors that
            :func:`~yolact_calibration.quantisation.qdq_placement.quantisable_tensors` names.
        options: Options of the conversion.
        trial: Images on which plans are judged.
        judge: Judge for these images.
        small_trial: A few images for ranking the parts of the network by sensitivity; None returns the parts that save
            least to float first.
        small_reference: Instances that the float network finds in those few images.
        class_names: Class names of the model by class id.
        finish: Conversion that the result will undergo later, such as float16 for the parts that are not INT8: plans
            are judged with it.
        reporter: Reporter that receives a line for each plan, and shows the progress of the trials.

    Raises:
        CalibrationError: No part of the network can be in INT8, or a histogram is missing.
    """
    graph = NetworkGraph(model)
    if missing := sorted(set(quantisable_tensors(graph)) - set(histograms)):
        raise CalibrationError(f"the calibration has no {', '.join(missing[:5])}: calibrate this network again")
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
    """Return the function with which the search judges plans."""

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
    """Return the groups that read or write values beyond the range of any INT8 scale, with the reasons."""
    found: dict[str, str] = {}
    for group, members in graph.groups.items():
        names = [convolution.name for convolution in members]
        if heavy := [name for name in names if not _weights_fit(graph, name, dialect)]:
            found[group] = f"a weight of {heavy[0]} exceeds every INT8 scale in float16; check the checkpoint"
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
    """Return the cost of each part: timed for ONNX Runtime; for TensorRT, which needs a GPU for timing, counted."""
    if options.dialect is Dialect.TENSORRT:
        work = {group: sum(c.macs for c in members) / 1e9 for group, members in graph.groups.items()}
        return {group: Cost(gmacs, gmacs / 2, "GMAC") for group, gmacs in work.items()}
    free = [group for group in graph.groups if group not in fixed]
    variants = {"float": graph.model, "int8": quantise(graph.model, ranges, _members(graph, free), options.dialect)}
    times = time_groups(graph, variants, options.num_threads)
    in_float, in_int8 = (times[name].group_ms for name in ("float", "int8"))
    return {group: Cost(in_float[group], in_int8[group], "ms") for group in graph.groups}
