from __future__ import annotations

import functools
import json

import numpy as np
import onnx
import pytest

from support.precision_trials import MANIFEST, histograms, histograms_of, make_frames, multiply_weight, trial_on
from support.quantised import float_network
from support.recorder import Recorder
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq_placement import Dialect, place
from yolact_calibration.quantisation.ranges import Grid, Range, RangeMethod, choose_range
from yolact_calibration.quantisation.sensitivity import GroupSensitivity, measure_sensitivity
from yolact_calibration.quantisation.trial import Trial

GROUPS = tuple(NetworkGraph(float_network()).groups)
ONLY = ("protonet", "res3")
OTHERS = tuple(group for group in GROUPS if group not in ONLY)


@functools.cache
def ranges() -> dict[str, Range]:
    return {name: choose_range(found, RangeMethod.MINMAX, Grid.UINT8) for name, found in histograms().items()}


def measure(
    model: onnx.ModelProto, found: dict[str, Range], skipped: tuple[str, ...] = OTHERS, dialect: Dialect = Dialect.CPU
) -> dict[str, GroupSensitivity]:
    trial = trial_on(1)
    names = MANIFEST.class_names
    result = measure_sensitivity(model, found, dialect, trial, trial.find(model), names, skipped)
    return {item.group: item for item in result}


@pytest.fixture(scope="module")
def plain() -> dict[str, GroupSensitivity]:
    return measure(float_network(), ranges())


def test_groups_come_in_the_order_of_the_network_without_the_skipped_ones(plain: dict[str, GroupSensitivity]) -> None:
    assert list(plain) == [group for group in GROUPS if group in ONLY]


def test_the_size_of_a_group_is_counted(plain: dict[str, GroupSensitivity]) -> None:
    members = NetworkGraph(float_network()).groups["protonet"]
    assert plain["protonet"].num_convolutions == len(members)
    assert plain["protonet"].macs == sum(member.macs for member in members)


def test_weights_and_activations_are_looked_at_apart(plain: dict[str, GroupSensitivity]) -> None:
    """Ranges that clip hurt by the activations only, and the other groups not at all."""
    graph = NetworkGraph(float_network())
    clipped = dict(ranges())
    for name in place(graph, [c.name for c in graph.groups["res3"]], Dialect.CPU).tensors.values():
        clipped[name] = Range(clipped[name].low * 1e-3, clipped[name].high * 1e-3)
    found = measure(float_network(), clipped)
    assert found["res3"].loss["activations"] > 3 * max(found["res3"].loss["weights"], 1.0)
    assert found["res3"].loss["weights"] == pytest.approx(plain["res3"].loss["weights"])
    assert found["protonet"].loss == pytest.approx(plain["protonet"].loss)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_an_outlier_among_weights_shows_in_the_weights(dialect: Dialect) -> None:
    model = float_network()
    multiply_weight(model, "proto_net.0", 1e4)
    found = measure(
        model, {**ranges(), **_wide(model)}, tuple(group for group in GROUPS if group != "protonet"), dialect
    )
    assert found["protonet"].loss["weights"] > 1


def _wide(model: onnx.ModelProto) -> dict[str, Range]:
    return {name: choose_range(h, RangeMethod.MINMAX, Grid.UINT8) for name, h in histograms_of(model).items()}


def test_the_total_orders_the_groups(plain: dict[str, GroupSensitivity]) -> None:
    item = plain["protonet"]
    assert item.total_loss == item.loss["weights"] + item.loss["activations"]


def test_progress_counts_every_trial() -> None:
    told = Recorder()
    model, trial = float_network(), trial_on(1)
    measure_sensitivity(model, ranges(), Dialect.CPU, trial, trial.find(model), MANIFEST.class_names, OTHERS, told)
    assert told.told == [("status", f"sensitivity {done}/4") for done in range(1, 5)]


def test_images_without_anything_give_undefined_points_and_no_loss() -> None:
    frames = [(name, np.zeros_like(frame)) for name, frame in make_frames(1)]
    trial = Trial(MANIFEST, frames, num_threads=1)
    nothing = {name: found[:0] for name, found in trial.find(float_network()).items()}
    (item,) = measure_sensitivity(
        float_network(), ranges(), Dialect.CPU, trial, nothing, MANIFEST.class_names, [g for g in GROUPS if g != "res3"]
    )
    assert item.drop["weights"] == {"box": None, "mask": None}
    json.dumps(item.document(), allow_nan=False)


def test_the_document_is_json(plain: dict[str, GroupSensitivity]) -> None:
    document = json.loads(json.dumps(plain["res3"].document(), allow_nan=False))
    assert set(document) == {"group", "num_convolutions", "gmacs", "weights", "activations"}
    assert set(document["weights"]) == {"box", "mask", "overlap"}
    assert document["weights"]["overlap"] == pytest.approx(plain["res3"].loss["weights"], abs=1e-4)
