from __future__ import annotations

import copy
from typing import Any

from support.html_checker import Page, read_page
from support.precision_documents import make_document
from yolact_calibration.report.precision_evidence import draw_ranges, draw_search, draw_sensitivity

DOCUMENT = make_document(num_tensors=12, num_images=2)


def cells(page: Page) -> list[list[str]]:
    rows: list[list[str]] = []
    for element in page.elements:
        if element.tag == "tr":
            rows.append([])
        elif element.tag in {"th", "td"}:
            rows[-1].append(element.text)
    return rows


# --- sensitivity ------------------------------------------------------------------------------------------------------


def test_sensitivity_as_bars_and_as_a_table() -> None:
    found = read_page(draw_sensitivity(DOCUMENT["sensitivity"]))
    num_groups = len(DOCUMENT["sensitivity"])
    assert found.texts("figcaption") == ["Overlap", "Mask AP", "Box AP"]
    bars = [rect for rect in found.all("rect") if rect.text]
    assert len(bars) == 3 * 2 * num_groups
    assert found.texts("text").count("Points lost") == 3
    rows = cells(found)
    assert len(rows) == 1 + num_groups
    assert rows[0][-1] == "Saved, ms"
    assert rows[1][0] == "stem"


def test_sensitivity_of_masks_alone_and_without_times() -> None:
    groups = [
        {"group": "a", "weights": {"mask": 0.125}},
        {"group": None, "weights": {"mask": None, "box": None}, "ms_float": 3.0},
    ]
    found = read_page(draw_sensitivity(groups))
    assert found.texts("figcaption") == ["Mask AP"]
    assert cells(found) == [["Group", "Mask AP, weights", "Float, ms"], ["a", "0.12", "–"], ["–", "–", "3.00"]]  # noqa: RUF001


# --- search -----------------------------------------------------------------------------------------------------------


def test_the_search_as_steps() -> None:
    found = read_page(draw_search(DOCUMENT["search"], 0.5))
    assert found.texts("figcaption") == ["Loss", "Latency"]
    texts = found.texts("text")
    assert {"allowed: 0.5", "AP points lost, 95 % interval", "Latency, ms an image"} <= set(texts)
    assert texts.count("Step of the search") == 2
    num_undone = sum(not step["accepted"] for step in DOCUMENT["search"])
    assert len([element for element in found.elements if element.attributes.get("class") == "hollow"]) == 3 * num_undone
    rows = cells(found)
    assert rows[1][:3] == ["0", "start: all but the final head layers", "81 of 86"]
    assert [row[-1] for row in rows[1:]].count("undone") == num_undone


def test_a_search_without_measures_or_limit_or_numbers() -> None:
    found = read_page(draw_search([{"action": "a"}, {"action": "b", "latency_ms": 3, "accepted": None}], None))
    assert found.texts("figcaption") == ["Latency"]
    assert [row[:2] for row in cells(found)[1:]] == [["0", "a"], ["1", "b"]]
    assert "allowed" not in "".join(found.texts("text"))
    assert not read_page(draw_search([{"action": "a"}], 0.5)).all("figure")


# --- ranges -----------------------------------------------------------------------------------------------------------


def _tensors(noise: list[Any]) -> list[dict[str, Any]]:
    entry = DOCUMENT["ranges"][0]
    return [{**copy.deepcopy(entry), "tensor": f"t{i}", "sqnr_db": value} for i, value in enumerate(noise)]


def test_the_noisiest_tensors_come_first_and_the_unknown_last() -> None:
    found = read_page(draw_ranges(_tensors([40.0, None, 20.0, float("inf"), 30.0, 35.0, 25.0])))
    names = [row[0] for row in cells(found) if row[0] != "Tensor"]
    assert names == ["t2", "t6", "t4", "t5", "t0", "t1", "t3"]
    assert found.texts("summary") == ["The other 2 tensors"]
    assert "Median: 30.0\xa0dB." in found.texts("p")[0]


def test_few_tensors_need_no_unfolding() -> None:
    found = read_page(draw_ranges(_tensors([1.0] * 5)))
    assert not found.all("details")
    assert len(found.all("svg")) == 5


def test_a_range_in_figures() -> None:
    entry = {
        "tensor": "a.<b>",
        "minimum": 0,
        "maximum": 13.2,
        "low": 0,
        "high": 9.1,
        "clipped": 0.0002,
        "sqnr_db": 38.1,
    }
    found = read_page(draw_ranges([entry]))
    assert cells(found)[0] == ["Tensor", "SQNR, dB", "Values", "Kept", "Clipped"]
    assert cells(found)[1] == ["a.<b>", "38.1", "0 to 13.2", "0 to 9.10", "0.020\xa0%"]
