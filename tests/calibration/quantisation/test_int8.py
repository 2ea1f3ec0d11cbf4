from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from support.precision_trials import MANIFEST, histograms, multiply_weight, trial_on
from support.quantised import float_network
from support.recorder import Recorder
from yolact_calibration.errors import CalibrationError
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_calibration.evaluation.judge import Judge, Judgement, Predictions
from yolact_calibration.quantisation import int8 as int8_module
from yolact_calibration.quantisation.histogram import Histogram
from yolact_calibration.quantisation.int8 import Int8Model, Int8Options, choose_ranges, make_int8
from yolact_calibration.quantisation.network_graph import FINAL_GROUPS, NetworkGraph
from yolact_calibration.quantisation.precision_search import Cost
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.ranges import RangeMethod

GROUPS = tuple(NetworkGraph(float_network()).groups)
BODY = tuple(group for group in GROUPS if group not in FINAL_GROUPS)
FEW = BootstrapSettings(num_resamples=20)
ALL = 100.0


def make(
    model: onnx.ModelProto | None = None,
    seen: Mapping[str, Histogram] | None = None,
    dialect: Dialect = Dialect.TENSORRT,
    **options: Any,
) -> Int8Model:
    """On one frame and one thread; nothing is looked at alone unless a small trial is given."""
    model = model or float_network()
    trial = trial_on(1)
    more = {name: options.pop(name) for name in ("reporter", "finish") if name in options}
    small = options.pop("small", None)
    return make_int8(
        model,
        seen or histograms(),
        Int8Options(dialect, num_threads=1, **{"max_drop": ALL, **options}),
        trial,
        Judge(trial.find(model), MANIFEST.class_names, settings=FEW),
        small,
        {} if small is None else small.find(model),
        MANIFEST.class_names,
        **more,
    )


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


# --- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", list(Dialect))
def test_everything_is_in_int8_where_it_was_asked_for(dialect: Dialect) -> None:
    found = make(dialect=dialect, everything=True)
    assert found.search.int8 == GROUPS
    assert found.num_int8 == found.num_convolutions == len(NetworkGraph(float_network()).convolutions)
    assert found.kept_float() == []
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds(found.model)


def test_the_graph_is_the_plan_that_the_search_returned() -> None:
    found = make(max_drop=1e-6)
    rounded = {node.input[0] for node in found.model.graph.node if node.op_type == "DequantizeLinear"}
    weights = {
        convolution.group
        for node in found.model.graph.node
        if node.op_type == "Conv" and node.input[1].endswith(".dequantized")
        for convolution in NetworkGraph(float_network()).convolutions
        if convolution.name == node.name
    }
    assert rounded
    assert weights == set(found.search.int8)
    assert not found.search.passed


def test_the_judges_own_limit_is_taken_where_none_is_given() -> None:
    assert make(everything=True, max_drop=None).max_drop == 8.0


def test_a_search_that_fails_gives_a_reason_for_every_group() -> None:
    found = make(max_drop=1e-6)
    assert {row["group"] for row in found.kept_float()} | set(found.search.int8) == set(GROUPS)
    assert sum(row["convolutions"] for row in found.kept_float()) + found.num_int8 == found.num_convolutions
    assert all(row["why"] for row in found.kept_float())


def test_plans_are_judged_as_they_will_be_written() -> None:
    """With whatever is done to the rest of the network: here, its class head is emptied."""

    def emptied(candidate: onnx.ModelProto) -> onnx.ModelProto:
        for tensor in candidate.graph.initializer:
            if tensor.name.startswith("prediction_layers.0.conf_layer."):
                values = np.zeros_like(onnx.numpy_helper.to_array(tensor))
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return candidate

    plain, broken = make(max_drop=1e-6), make(max_drop=1e-6, finish=emptied)
    assert plain.search.steps[0].judgement.worst < 70 < 95 < broken.search.steps[0].judgement.worst


def test_a_float_network_is_not_changed() -> None:
    model = float_network()
    before = model.SerializeToString(deterministic=True)
    make(model, everything=True)
    assert model.SerializeToString(deterministic=True) == before


# --- order, cost ------------------------------------------------------------------------------------------------------


def test_engines_are_counted_and_the_cpu_is_timed() -> None:
    tensorrt, cpu = make(everything=True), make(dialect=Dialect.CPU, everything=True)
    assert {cost.unit for cost in tensorrt.cost.values()} == {"GMAC"}
    assert {cost.unit for cost in cpu.cost.values()} == {"ms"}
    graph = NetworkGraph(float_network())
    for group, members in graph.groups.items():
        assert tensorrt.cost[group].in_float == pytest.approx(sum(c.macs for c in members) / 1e9)
        assert tensorrt.cost[group].saved == pytest.approx(tensorrt.cost[group].in_float / 2)


def test_without_a_look_at_the_parts_those_that_save_least_go_back_first() -> None:
    found = make(max_drop=1e-6)
    assert found.sensitivity == ()
    order = [step.action.removesuffix(" back to float") for step in found.search.steps[1:]]
    assert order == sorted(BODY, key=lambda group: found.cost[group].saved)[: len(order)]
    assert len(order) > 5


def test_that_order_does_not_depend_on_how_large_the_parts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that INT8 hardly speeds up is cheap to give back, whatever it takes in float."""
    times = {group: Cost(1.0, 0.9, "ms") for group in GROUPS} | {"res2": Cost(80.0, 79.0, "ms")}
    monkeypatch.setattr(int8_module, "_costs", lambda *_: times)
    assert make(max_drop=1e-6).search.steps[-1].int8 == ("res2",)


def test_plans_are_judged_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    original = Judge.judge

    def judge(self: Judge, candidate: Predictions, *, quickly: bool = False) -> Judgement:
        asked.append(quickly)
        return original(self, candidate, quickly=quickly)

    monkeypatch.setattr(Judge, "judge", judge)
    make(everything=True)
    # The original by itself, and the plan.
    assert asked == [False, True]


def test_the_sensitive_part_goes_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    original = int8_module.measure_sensitivity
    monkeypatch.setattr(
        int8_module,
        "measure_sensitivity",
        lambda *a: tuple(s for s in original(*a[:-2], [g for g in GROUPS if g not in {"res4", "stem"}], a[-1])),
    )
    told = Recorder()
    found = make(max_drop=1e-6, small=trial_on(1), reporter=told)
    assert [item.group for item in found.sensitivity] == ["stem", "res4"]
    ratio = {item.group: item.total_loss / found.cost[item.group].saved for item in found.sensitivity}
    assert found.search.steps[1].action == f"{max(ratio, key=lambda group: ratio[group])} back to float"
    assert ("status", "sensitivity 4/4") in told.told
    assert ("progress", "plan 1/1") in told.told


def test_everything_needs_no_look_at_the_parts() -> None:
    assert make(everything=True, small=trial_on(1)).sensitivity == ()


# --- ranges, and what no range holds ----------------------------------------------------------------------------------


def test_each_dialect_has_ranges_for_its_grid() -> None:
    """Symmetric int8 has one limit, uint8 two."""
    one_sided = Histogram()
    one_sided.add(np.random.default_rng(0).gamma(1.0, 1.0, 100_000).astype(np.float32))
    found = {d: choose_ranges({"x": one_sided}, RangeMethod.MSE, d)["x"] for d in Dialect}
    assert found[Dialect.CPU].high > found[Dialect.TENSORRT].high > 1
    assert {r.low for r in found.values()} == {0.0}


def test_values_that_are_no_numbers_name_their_tensor() -> None:
    broken = Histogram()
    broken.add(np.array([1.0, np.nan], np.float32))
    with pytest.raises(CalibrationError, match=r'^"fpn\.add\.P4": 1 of 2 values are infinite or NaN'):
        make(seen={**histograms(), "fpn.add.P4": broken})


def test_a_calibration_of_another_network_is_refused() -> None:
    seen = histograms()
    del seen["image"], seen["backbone.relu"]
    with pytest.raises(CalibrationError, match=r"the calibration has no backbone\.relu, image: calibrate"):
        make(seen=seen)


def huge(largest: float) -> Histogram:
    histogram = Histogram()
    histogram.add(np.array([0.0, largest], np.float32))
    return histogram


def test_activations_beyond_every_scale_keep_their_layers_in_float() -> None:
    """The scales of engines are float16 numbers."""
    name = NetworkGraph(float_network()).groups["protonet"][1].name
    read = next(node.input[0] for node in float_network().graph.node if node.name == name)
    found = make(seen={**histograms(), read: huge(1e9)})
    assert "reaches 1e+09, beyond every INT8 scale in float16" in found.search.kept_float["protonet"]
    assert "protonet" not in found.search.int8
    cpu = make(seen={**histograms(), read: huge(1e9)}, dialect=Dialect.CPU, everything=True)
    assert "protonet" in cpu.search.int8


def test_a_weight_beyond_every_scale_keeps_its_layer_in_float() -> None:
    """Its scale would be infinite, and every output NaN."""
    model = float_network()
    multiply_weight(model, "proto_net.2", 1e12)
    found = make(model, everything=True)
    assert found.search.kept_float["protonet"].startswith("a weight of proto_net.2 exceeds every INT8 scale")
    assert found.search.judgement.figures["bbox"] is not None


def test_no_part_that_fits_is_an_error_that_says_why() -> None:
    with pytest.raises(CalibrationError, match=r"no part of the network can compute in INT8: .*every INT8 scale"):
        make(seen=dict.fromkeys(histograms(), huge(1e9)))
