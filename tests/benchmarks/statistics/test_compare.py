from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.bench_records import bench_record, steady_ms
from yolact_benchmarks.commands.bench_cli import main
from yolact_benchmarks.statistics.compare import MachineMismatchError, Ratio, compare_records, compare_series

NAME = "fp32 1920x1080 100"


def of_processes(seed: int, median_ms: float = 20.0, num: int = 5, noise: float = 0.15) -> list[list[float]]:
    """As measured: each process has its own mood, and in each the neighbours lengthen another share of the frames."""
    random = np.random.default_rng(10_000 + seed)
    parts = []
    for i in range(num):
        frames = np.array(steady_ms(100 * seed + i, median_ms * np.exp(random.normal(0, 0.007)), count=90))
        longer = random.random(90) < random.uniform(0, 0.7)
        parts.append((frames * (1 + longer * random.gamma(2, noise / 2, 90))).tolist())
    return parts


def record(series: list[float], **fields: Any) -> dict[str, Any]:
    return bench_record({("fp32", 100): series}, **fields)


@pytest.mark.parametrize("num_processes", [1, 5])
@pytest.mark.parametrize("is_disturbed", [False, True])
def test_a_record_compared_with_itself_is_the_same(num_processes: int, is_disturbed: bool) -> None:
    noisy = np.concatenate(of_processes(1, noise=3.0)).tolist()
    one = record(noisy, num_processes=num_processes, is_disturbed=is_disturbed, reasons=["the clock moved"])
    comparison = compare_records(one, json.loads(json.dumps(one)), 0.001)
    (case,) = comparison.cases
    assert case.outcome == "same"
    assert case.median == case.fast == Ratio(1.0, 1.0, 1.0)
    assert case.old_ms == case.new_ms
    assert (comparison.regressions, comparison.doubts) == ((), ())
    assert any("one and the same run" in warning for warning in comparison.warnings)
    # The same frames of another run are no reason to say that.
    other = record(noisy, num_processes=num_processes, yardstick_ms=1.01)
    assert not any("one and the same run" in warning for warning in compare_records(one, other, 0.03).warnings)


def test_a_planted_regression_is_found_and_a_rerun_is_not() -> None:
    """20 repetitions each, of processes that scatter as real ones do, 3 % allowed, 5 % planted."""
    found = false_alarms = of_medians = 0
    for seed in range(20):
        old, again, slower = (of_processes(3 * seed + i, 20 * (1 + 0.05 * (i == 2))) for i in range(3))
        found += compare_series(NAME, old, slower, 0.03, is_stable=False).outcome == "slower"
        rerun = compare_series(NAME, old, again, 0.03, is_stable=False)
        false_alarms += rerun.outcome != "same"
        of_medians += rerun.median.judge(0.03) != "same"
    assert (found, false_alarms) == (20, 0)
    assert of_medians > 5, "the medians alone could not tell"


def test_ratio_and_interval() -> None:
    case = compare_series(NAME, of_processes(1), of_processes(2, 30.0), 0.03)
    for one in (case.median, case.fast):
        assert one.ratio == pytest.approx(1.5, abs=0.08)
        assert one.low < one.ratio < one.high
    assert case.fast.relative_half_width < case.median.relative_half_width
    assert (case.old_ms, case.new_ms) == (pytest.approx(20, abs=1.5), pytest.approx(30, abs=2))
    assert case.new_ms / case.old_ms == pytest.approx(case.median.ratio)
    assert case.processes == (5, 5)
    assert compare_series(NAME, of_processes(1, 30.0), of_processes(2), 0.03).outcome == "faster"


def test_one_process_of_each_is_not_enough_to_be_sure_of_five_per_cent() -> None:
    """Fresh processes differ by a few per cent, of which one process knows nothing."""
    series = {ms: compare_series(NAME, [steady_ms(1)], [steady_ms(2, ms)], 0.03) for ms in (19.0, 20.0, 21.0, 22.0)}
    assert [case.outcome for case in series.values()] == ["same", "doubtful", "doubtful", "slower"]
    assert series[21.0].median.low < 1 < series[21.0].median.high
    assert compare_series(NAME, [steady_ms(1)], [steady_ms(2)], 0.1).outcome == "same"
    warnings = compare_records(record(steady_ms(1)), record(steady_ms(2), num_processes=1), 0.03).warnings
    assert warnings[0].startswith("a measurement of one process does not show how the next one differs")
    assert not compare_records(record(steady_ms(1)), record(steady_ms(2)), 0.03).warnings


def test_records_of_before_there_were_processes_count_as_one() -> None:
    old, new = record(steady_ms(1)), record(steady_ms(2, 21.0))
    assert compare_records(old, new, 0.03).cases[0].outcome == "slower"
    for case in (old["results"]["cases"][0], new["results"]["cases"][0]):
        del case["processes"]
    assert compare_records(old, new, 0.03).cases[0].outcome == "doubtful"


def test_a_machine_that_became_slower_is_not_the_models_fault() -> None:
    comparison = compare_records(record(steady_ms(1)), record(steady_ms(2, 22.0), yardstick_ms=1.1), 0.03)
    assert comparison.cases[0].outcome == "same"
    assert "the machine itself was 10.0% slower in the newer run" in comparison.warnings[0]
    # A machine that became faster hides nothing, and excuses nothing.
    faster = compare_records(record(steady_ms(1)), record(steady_ms(2), yardstick_ms=0.9), 0.03)
    assert faster.cases[0].outcome == "same"


def test_cores_that_share_one_of_the_hosts_make_it_another_machine() -> None:
    """As seen: two threads took 19 % longer, evenly, and the work of one core as long as ever."""
    old, slower = record(steady_ms(1)), record(steady_ms(2, 23.8), parallel_ms=1.42)
    comparison = compare_records(old, slower, 0.03)
    assert comparison.cases[0].outcome == "doubtful"
    assert "all cores at once were 42% slower in the newer run" in comparison.warnings[0]
    # The other way round it may hide a regression.
    assert compare_records(slower, record(steady_ms(3, 23.8)), 0.03).cases[0].outcome == "doubtful"
    assert compare_records(slower, record(steady_ms(3, 30.0)), 0.03).cases[0].outcome == "slower"
    for one in (old, slower):
        one["settings"]["threads"] = 1
    assert compare_records(old, slower, 0.03).cases[0].outcome == "slower", "one thread has a core of its own"


def test_a_disturbed_measurement_is_doubtful() -> None:
    comparison = compare_records(record(steady_ms(1)), record(steady_ms(2, 30.0), is_disturbed=True), 0.03)
    assert [case.outcome for case in comparison.cases] == ["doubtful"]
    assert (comparison.regressions, len(comparison.doubts)) == ((), 1)
    assert comparison.document()["regressions"] == []


def test_other_unsteadiness_is_in_the_scatter_of_processes() -> None:
    comparison = compare_records(record(steady_ms(1)), record(steady_ms(2, 30.0), reasons=["the clock moved"]), 0.03)
    assert (comparison.cases[0].outcome, comparison.cases[0].is_stable) == ("slower", False)
    assert comparison.warnings == (f"{NAME}: one of the measurements was unstable",)


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [
        (Ratio(1.05, 1.03, 1.07), "slower"),
        (Ratio(1.05, 0.99, 1.11), "doubtful"),
        (Ratio(1.00, 0.99, 1.01), "same"),
        (Ratio(1.00, 0.95, 1.05), "doubtful"),
        (Ratio(0.90, 0.88, 0.92), "faster"),
        (Ratio(0.90, 0.79, 1.02), "same"),
        (Ratio(0.90, 0.75, 1.08), "doubtful"),
        (Ratio(1.05, 1.03, 1.07, 1.04), "same"),
        (Ratio(1.05, 1.03, 1.08, 1.04), "doubtful"),
    ],
)
def test_what_a_ratio_says_with_three_per_cent_allowed(ratio: Ratio, outcome: str) -> None:
    assert ratio.judge(0.03) == outcome


def test_a_regression_in_the_longer_frames_only() -> None:
    """The fastest tenth does not show it. On a steady machine the median is believed, elsewhere it is doubtful."""
    old = [steady_ms(i) for i in range(5)]
    slower = [[ms * (1.1 if i % 4 else 1.0) for i, ms in enumerate(steady_ms(5 + k))] for k in range(5)]
    outcomes = {
        is_stable: compare_series(NAME, old, slower, 0.03, is_stable=is_stable).outcome for is_stable in (True, False)
    }
    assert outcomes == {True: "slower", False: "doubtful"}


def test_a_disturbance_makes_slower_only() -> None:
    old, new, slower = [steady_ms(1)] * 5, [steady_ms(2)] * 5, [steady_ms(3, 22.0)] * 5
    for series, disturbed, outcome in (
        (new, (True, False), "doubtful"),
        (new, (False, True), "same"),
        (slower, (True, False), "slower"),
        (slower, (False, True), "doubtful"),
    ):
        assert compare_series(NAME, old, series, 0.03, is_disturbed=disturbed).outcome == outcome


def test_other_machines_settings_and_versions() -> None:
    old, new = record(steady_ms(1)), record(steady_ms(2), cpu="Another", cores=64)
    with pytest.raises(MachineMismatchError, match=r"cores .* and 64"):
        compare_records(old, new, 0.03)
    new["settings"]["threads"] = 4
    new["environment"]["packages"] = {**old["environment"]["packages"], "onnxruntime": "9.9"}
    warnings = compare_records(old, new, 0.03, any_machine=True).warnings
    assert any("and Another" in line for line in warnings)
    assert "settings differ: threads 0 and 4" in warnings
    assert any("onnxruntime" in line and "9.9" in line for line in warnings)


# --- the command ------------------------------------------------------------------------------------------------------


def written(tmp_path: Path, **records: dict[str, Any]) -> list[str]:
    for name, one in records.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(one))
    return [str(tmp_path / f"{name}.json") for name in records]


@pytest.mark.parametrize(
    ("new", "words", "status"),
    [
        (record(steady_ms(2)), [], 0),
        (record(steady_ms(2, 21.0)), [], 4),
        (record(steady_ms(2, 20.7), num_processes=1), [], 7),
        (record(steady_ms(2, 21.0)), ["--max-regress", "10%"], 0),
        (record(steady_ms(2, 21.0), is_disturbed=True), [], 7),
        (record(steady_ms(2), is_disturbed=True), [], 0),
        (record(steady_ms(2), reasons=["busy"]), ["--strict"], 7),
        (record(steady_ms(2), cpu="Another"), [], 5),
        (record(steady_ms(2)), ["--max-regress", "many"], 2),
    ],
)
def test_exit_statuses(new: dict[str, Any], words: list[str], status: int, tmp_path: Path) -> None:
    assert main(["compare", *written(tmp_path, old=record(steady_ms(1)), new=new), *words]) == status


def test_why_a_result_is_doubtful_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fields, why in (
        ({"num_processes": 1}, "the intervals are too wide"),
        ({"is_disturbed": True}, "a measurement was dist"),
    ):
        paths = written(tmp_path, old=record(steady_ms(1)), new=record(steady_ms(2, 20.7), **fields))
        assert main(["compare", *paths]) == 7
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: it cannot be told whether {NAME} became slower by more than 3.0%")
        assert why in error


def test_the_table_and_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = written(tmp_path, old=record(steady_ms(1)), new=record(steady_ms(2, 21.0)))
    out = tmp_path / "out.json"
    assert main(["compare", *paths, "--json", str(out)]) == 4
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[2].split()[:3] == ["fp32", "1920x1080", "100"]
    assert lines[2].endswith("slower")
    assert max(map(len, lines)) <= 80
    assert f"error: slower by more than 3.0%: {NAME}" in captured.err
    assert json.loads(out.read_text())["regressions"] == [NAME]
    assert main(["compare", *paths, "--json", "-"]) == 4
    assert json.loads(capsys.readouterr().out)["cases"][0]["outcome"] == "slower"


def test_files_that_are_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good,) = written(tmp_path, good=record(steady_ms(1)))
    (other,) = written(tmp_path, other=bench_record({("int8-cpu", 1): steady_ms(2)}))
    (tmp_path / "bad.json").write_text('{"benchmark": "startup"}')
    for path, message in (
        (tmp_path / "none.json", "yolact-bench MODEL --json"),
        (tmp_path / "bad.json", "is not a record of yolact-bench with schema 1 (found something else)"),
        (other, "no configuration in common"),
    ):
        assert main(["compare", good, str(path)]) == 1
        assert message in capsys.readouterr().err
