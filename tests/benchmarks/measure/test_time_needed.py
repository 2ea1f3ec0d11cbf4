from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from yolact_benchmarks.measure.measurement import Plan
from yolact_benchmarks.measure.request import BenchRequest
from yolact_benchmarks.measure.time_needed import WholeRun, estimate_seconds, total_line

REQUEST = BenchRequest(
    Path("any.bundle"), plan=Plan(10.0, warm_up_s=1.0), num_processes=5, num_cold_starts=3, streaming_s=3.0
)


def test_every_process_opens_and_warms_up_and_the_measuring_is_shared() -> None:
    # 5 x (2 s to open + 6 x 1 s of warm-up), 6 x (10 + 3) s of frames, 3 cold starts of 1 s.
    assert estimate_seconds(REQUEST, 6, 1, 2.0) == pytest.approx(5 * (2 + 6) + 6 * 13 + 3)
    bare = dataclasses.replace(REQUEST, num_processes=1, num_cold_starts=0, streaming_s=0.0)
    assert estimate_seconds(bare, 2, 1, 0.5) == pytest.approx(0.5 + 2 * 11)


@pytest.mark.parametrize("option", ["with_layers", "with_peers"])
def test_layers_and_peers_take_longer(option: str) -> None:
    assert estimate_seconds(dataclasses.replace(REQUEST, **{option: True}), 6, 2, 2.0) > estimate_seconds(
        REQUEST, 6, 2, 2.0
    )


def test_the_line_says_what_is_in_it() -> None:
    assert total_line(REQUEST, 6, 1, 2.0) == "about 3 min in total, with 5 processes, streaming and cold starts"
    bare = dataclasses.replace(REQUEST, num_processes=1, num_cold_starts=0, streaming_s=0.0)
    assert total_line(bare, 2, 1, 0.5) == "about 23 s in total"
    assert total_line(dataclasses.replace(bare, with_layers=True), 2, 1, 0.5).endswith("s in total, with layers")
    until = dataclasses.replace(REQUEST, plan=Plan(10.0, 0.01), annotations=Path("a.json"))
    assert total_line(until, 6, 1, 2.0).endswith(
        ", or less if every median is known earlier, plus the pictures for the accuracy"
    )


def test_the_whole_run_counts_from_its_beginning() -> None:
    assert WholeRun(REQUEST, begun=10.0).line(6, 1, now=12.0) == total_line(REQUEST, 6, 1, 2.0)
