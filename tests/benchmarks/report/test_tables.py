from __future__ import annotations

from support.bench_records import bench_record, steady_ms
from yolact_benchmarks.report.tables import bench_tables, render_markdown, render_text, unstable_lines

RECORD = bench_record(
    {("fp32", 1): steady_ms(1), ("fp32", 100): steady_ms(2, 123.4), ("int8-cpu", 100): steady_ms(3, 9.5, 12)},
    accuracy={"fp32": 0.415, "int8-cpu": 0.411},
    joules=0.25,
)


def test_the_tables_of_a_record() -> None:
    latency, stages, models, accuracy = bench_tables(RECORD["results"])
    assert latency.rows[1][:3] == ("fp32", "1920x1080", "100")
    assert float(latency.rows[1][3]) == float(
        f"{RECORD['results']['cases'][1]['latency']['percentiles_ms']['p50']:.1f}"
    )
    assert latency.rows[0][7] == "-", "a p99.9 of 150 frames is not made up"
    assert latency.rows[0][-1] == ""
    assert latency.rows[2][-1] == "!"
    assert latency.notes[0].startswith("12 to 150 frames each")
    assert stages.heads[3:] == ("network", "masks", "around")
    assert stages.rows[0][-1] == "33.3%"
    assert models.rows[0] == ("fp32", "3.4 MB", "91 MB", "50.00", "30.50", "210.0", "-", "0.25")
    assert accuracy.rows[1][4:] == ("0.411", "0.391 to 0.431")


def test_they_fit_a_terminal_of_80_columns() -> None:
    lines = render_text(bench_tables(RECORD["results"]))
    assert max(map(len, lines)) <= 80
    assert lines[0] == "end to end, ms a frame"


def test_what_was_not_measured_is_said_and_is_not_zero() -> None:
    record = bench_record({("fp32", 1): steady_ms(1)})
    models = bench_tables(record["results"])[2]
    assert models.rows[0][-1] == "-"
    assert "energy not measured: no meter" in models.notes
    assert "streaming not measured: none" in models.notes


def test_markdown() -> None:
    text = render_markdown(bench_tables(RECORD["results"]))
    lines = text.splitlines()
    assert lines[0] == "### End to end, ms a frame"
    assert lines[2].startswith("| network | frames | N | median |")
    assert lines[3].startswith("| --- | --- | --- | ---: |")
    assert text.count("###") == 4
    assert len({line.count("|") for line in lines[2:7]}) == 1


def test_what_holds_for_all_is_said_once() -> None:
    record = bench_record({("fp32", 1): steady_ms(1), ("fp32", 10): steady_ms(2, count=5)}, reasons=["busy"])
    lines = unstable_lines(record["results"])
    assert lines[0] == "unstable, all configurations: busy"
    assert [line.split(":")[0] for line in lines[1:]] == ["unstable, fp32 1920x1080 10"]
