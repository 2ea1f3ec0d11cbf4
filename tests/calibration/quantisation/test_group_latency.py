from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from support.quantised import float_network, observed_ranges
from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation import group_latency
from yolact_calibration.quantisation.group_latency import GroupTimes, time_groups
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq import quantise
from yolact_calibration.quantisation.qdq_placement import Dialect

GRAPH = NetworkGraph(float_network())
FIRST = {group: members[0].name for group, members in GRAPH.groups.items()}
NUM_RUNS = 18


def event(name: str, microseconds: float) -> dict[str, Any]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds}


def profile(durations: Sequence[float] = (100,) * NUM_RUNS, **others: float) -> list[dict[str, Any]]:
    """One kernel for each group, and whole runs of a millisecond."""
    events = [{"cat": "Session", "name": "model_run", "dur": 1000.0} for _ in range(NUM_RUNS)]
    events += [event(name, value) for name in FIRST.values() for value in durations]
    return events + [event(name, value) for name, value in others.items() for _ in range(NUM_RUNS)]


def times_of(events: list[dict[str, Any]]) -> GroupTimes:
    return group_latency._times(GRAPH, events)  # the profiler's events are the input that matters


def test_a_real_network_in_both_forms() -> None:
    model = GRAPH.model
    names = [convolution.name for convolution in GRAPH.convolutions]
    variants = {"float": model, "int8": quantise(model, observed_ranges(model), names, Dialect.CPU)}
    found = time_groups(GRAPH, variants, num_threads=1)
    assert list(found) == ["float", "int8"]
    for times in found.values():
        assert list(times.group_ms) == list(GRAPH.groups)
        assert all(value >= 0 for value in times.group_ms.values())
        assert times.total_ms > 0
        assert sum(times.group_ms.values()) > 0


def test_microseconds_become_milliseconds() -> None:
    found = times_of(profile())
    assert found.total_ms == 1.0
    assert set(found.group_ms.values()) == {0.1}


def test_the_first_runs_and_outliers_do_not_count() -> None:
    # Two turns to warm up; then the second run of each turn counts.
    found = times_of(profile([9000] * 4 + [700, 100] * 4 + [700, 300, 700, 300, 700, 50_000]))
    assert set(found.group_ms.values()) == {0.1}


def test_a_kernel_belongs_to_the_longest_name_that_it_begins_with() -> None:
    """``backbone.conv1``, the stem, begins the name of ``backbone.conv10``, which is another part."""
    model = float_network()
    next(node for node in model.graph.node if node.name == FIRST["res2"]).name = "backbone.conv10"
    graph = NetworkGraph(model)
    events = profile([])
    events += [event(members[0].name, 100) for members in graph.groups.values() for _ in range(NUM_RUNS)]
    found = group_latency._times(graph, events)
    assert "backbone.conv10" in {members[0].name for members in graph.groups.values()}
    assert set(found.group_ms.values()) == {0.1}


def test_kernels_behind_a_convolution_count_for_it_and_others_do_not() -> None:
    found = times_of(profile(**{"backbone.relu": 30.0, "image.quantize": 500.0, "ReorderInput": 500.0}))
    assert found.group_ms["stem"] == pytest.approx(0.13)
    assert sum(found.group_ms.values()) == pytest.approx(0.1 * len(FIRST) + 0.03)


def test_a_kernel_below_a_microsecond_is_no_error() -> None:
    assert set(times_of(profile([0] * NUM_RUNS)).group_ms.values()) == {0.0}


def test_a_silent_group_is_named() -> None:
    events = [one for one in profile() if not one["name"].startswith(FIRST["protonet"])]
    with pytest.raises(CalibrationError, match=r"18 runs of 18, no time for: protonet\); install another version"):
        times_of(events)


def test_a_profile_that_was_cut_short() -> None:
    with pytest.raises(CalibrationError, match=r"17 runs of 18, no time for: none"):
        times_of(profile()[1:])


def test_the_profiles_are_removed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    time_groups(GRAPH, {"float": GRAPH.model}, num_threads=1)
    assert list(tmp_path.iterdir()) == []
