from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.bench_records import bench_record, steady_ms
from support.browser import Browser
from support.html_checker import read_page
from support.page_faults import WIDTHS, faults, faults_everywhere
from support.properties import examples
from support.scenes import make_instances
from yolact_benchmarks.machine.machine_state import MachineSample
from yolact_benchmarks.report.charts import draw_history, draw_machine
from yolact_benchmarks.report.report import draw_bench_report
from yolact_benchmarks.report.waterfall import draw_waterfall
from yolact_calibration.report.contact_sheet import side_by_side


def full_record() -> dict[str, Any]:
    series = {(p, n): steady_ms(n, ms) for p, ms in (("fp32", 20.0), ("int8-cpu", 9.0)) for n in (1, 10, 100)}
    record = bench_record(series, accuracy={"fp32": 0.415, "int8-cpu": 0.411}, joules=0.3)
    block = {"mb": 1.0, "operations_per_byte": 20.0, "bound_by": "arithmetic", "precisions": ["float"]}
    record["results"]["layers"] = {
        "fp32": {
            "blocks": [
                {"name": "res4", "ms": 4.0, "share": 0.4, **block},
                {"name": "protonet", "ms": 6.0, "share": 0.6, **block},
            ],
            "suggestions": ["protonet takes 60%"],
        },
        "int8-cpu": {"not_measured": "no profiler"},
    }
    record["results"]["peers"] = {
        "caption": "Whole frames, interleaved",
        "ours": {"fp32": 126.0},
        "rows": [
            {"name": "PyTorch eager", "over": "fp32", "median_ms": 900.0, "ratio": 7.1, "low": 6.9, "high": 7.3},
        ],
        "missing": [{"name": "OpenVINO", "why": "not installed"}],
    }
    return record


def pictures() -> list[dict[str, Any]]:
    frame = np.full((48, 64, 3), 90, np.uint8)
    sides = make_instances(48, 64, [(4, 4, 30, 40)]), make_instances(48, 64, [(6, 4, 30, 40)])
    first, second = side_by_side(frame, *sides, ("cat",))
    facts = {"name": "a <b>.png", "loss": 0.1, "num_reference": 1, "num_matched": 1, "num_extra": 0}
    return [{**facts, "reference": first, "candidate": second}]


def test_everything_that_was_measured_is_on_the_page() -> None:
    page = read_page(draw_bench_report(full_record(), pictures()))
    headings = page.texts("h2")
    assert headings == [
        "End to end",
        "Stages",
        "Models",
        "Accuracy beside speed",
        "Parts of the network",
        "Peers, side by side",
        "Pictures that differ most",
        "The machine meanwhile",
        "How it was measured",
        "How this page was made",
    ]
    figures = page.texts("figcaption")
    assert sum(title.startswith("Latency, ") for title in figures) == 2
    assert sum(title.startswith("Over time, ") for title in figures) == 2
    assert "fp32, 1920x1080, 100 instances" in figures
    assert "Accuracy and speed: higher and further left is better" in figures
    assert "Time by part of the network" in figures
    assert {"Load of other processes", "A fixed piece of work", "Clock"} <= set(figures)
    assert len(page.all("img")) == 2
    told = " ".join(page.texts("main"))
    assert "✓ The measurement was stable." in told
    assert "OpenVINO: not installed" in told
    assert "protonet takes 60%" in told
    assert "not measured: no profiler" in told


def test_an_unstable_measurement_cannot_be_overlooked() -> None:
    page = read_page(draw_bench_report(bench_record({("fp32", 1): steady_ms(1)}, reasons=["others <were> busy"])))
    callout = next(element for element in page.all("div") if "unstable" in element.attributes.get("class", ""))
    assert "The measurement was not stable; do not rely on these figures." in callout.text
    assert "others <were> busy" in callout.text


@pytest.mark.parametrize(
    ("backend", "where", "said"),
    [
        ("onnxruntime-cuda", {"postprocessing": "gpu"}, "on onnxruntime-cuda, post-processing on the GPU."),
        ("onnxruntime-cuda", {"postprocessing": "cpu"}, "on onnxruntime-cuda, post-processing on the CPU."),
        ("onnxruntime-cuda", {}, "on onnxruntime-cuda."),  # a record of an earlier release
        ("onnxruntime-cpu", {"postprocessing": "cpu"}, "on onnxruntime-cpu."),
    ],
)
def test_the_verdict_says_where_masks_were_made_if_that_depends(backend: str, where: dict[str, str], said: str) -> None:
    record = bench_record({("fp32", 1): steady_ms(1)})
    record["results"]["models"][0] |= {"backend": backend, **where}
    record["results"]["cases"][0]["backend"] = backend
    assert said in draw_bench_report(record)


def test_what_the_machine_does_not_tell_is_named_for_people() -> None:
    fields = [field.name for field in dataclasses.fields(MachineSample) if field.name != "seconds"]
    record = bench_record({("fp32", 1): steady_ms(1)})
    record["results"]["machine"]["not_measured"] = fields
    told = " ".join(read_page(draw_bench_report(record)).texts("main"))
    assert "the hypervisor's share, the clock, a fixed piece of work, the temperature, throttling, a container" in told
    assert not [name for name in fields if "_" in name and name.replace("_", " ") in told]


def test_what_was_not_measured_has_no_section_and_a_reason() -> None:
    page = read_page(draw_bench_report(bench_record({("fp32", 1): steady_ms(1)})))
    assert "Accuracy beside speed" not in page.texts("h2")
    told = " ".join(page.texts("main"))
    assert "Energy was not measured: no meter." in told
    assert "the temperature" in told


def test_the_waterfall_begins_each_stage_where_the_one_before_ends() -> None:
    page = read_page(draw_waterfall("frame", [("preprocess", 2.0), ("network", 6.0), ("masks", 2.0)]))
    bars = [element.attributes for element in page.all("rect")]
    left = [float(bar["x"]) for bar in bars]
    width = [float(bar["width"]) for bar in bars]
    assert left[1] == pytest.approx(left[0] + width[0], abs=0.2)
    assert left[2] == pytest.approx(left[1] + width[1], abs=0.2)
    assert width[1] == pytest.approx(3 * width[0], abs=0.3)


def test_lines_over_time_are_broken_between_processes() -> None:
    record = full_record()
    cases = record["results"]["cases"]
    for case in cases:
        # Half a minute between two processes, in which other things were done.
        first = case["processes"][0]
        case["seconds"] = [second + 30 * (i >= first) for i, second in enumerate(case["seconds"])]
    assert len(cases[0]["processes"]) == 5
    lines = [line for line in read_page(draw_history(cases[:1])).corners() if len(line) > 2]
    assert len(lines) == 5
    assert lines[1][0][0] - lines[0][-1][0] > 200
    samples = [{"seconds": seconds, "other_load": 0.1} for seconds in (0, 1, 2, 3, 40, 41, 42, 43)]
    lines = read_page(draw_machine(samples)).corners()
    assert [len(line) for line in lines] == [4, 4]
    assert len(read_page(draw_machine(samples[:4])).corners()) == 1


def test_the_page_is_whole_on_a_phone_a_desk_and_paper_and_in_the_dark(browser: Browser) -> None:
    assert faults_everywhere(browser, draw_bench_report(full_record(), pictures())) == {}


_NAMES = st.text(st.sampled_from([*"iWm@ .,-_/<&\"'0", *"éüß", *"日本語", "🎈"]), max_size=60)


@given(_NAMES, _NAMES, st.lists(st.tuples(_NAMES, st.floats(0, 1e6)), min_size=1, max_size=8))
@examples(12)
def test_any_names_of_networks_files_and_stages_fit(
    browser: Browser, network: str, word: str, stages: list[tuple[str, float]]
) -> None:
    record = bench_record({(network, 1): steady_ms(1), ("fp32", 1): steady_ms(2)}, accuracy={network: 0.4, "fp32": 0.5})
    record |= {"command": f"yolact-bench {word}", "files": [{"role": "Model", "name": word, "sha256": "ab" * 32}]}
    record["results"]["models"][0]["name"] = word
    page = draw_bench_report(record).replace("</main>", f"{draw_waterfall(word, stages)}</main>")
    for width in WIDTHS:
        assert faults(browser, page, width) == []


def test_a_browser_shows_the_page_without_a_complaint(browser: Browser) -> None:
    content = draw_bench_report(full_record(), pictures())
    browser.show(content)
    assert browser.run("document.querySelectorAll('svg').length") == content.count("<svg")
    assert browser.run("[...document.images].every(one => one.complete && one.naturalWidth)")
    # The policy of the page: nothing that lies outside of it would be loaded, and no script would run.
    script = "<script>document.title = 'run'</script><img src='file:///a.png' alt='a'></main>"
    browser.show(content.replace("</main>", script))
    assert browser.run("document.title") == "Speed of small"
