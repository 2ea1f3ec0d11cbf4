from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from support.html_checker import Page, read_page
from support.precision_documents import make_document
from yolact_calibration.report.html_page import MINUS, UNDEFINED
from yolact_calibration.report.precision_report import draw_precision_report

TIMES = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}"
DOCUMENT = make_document(num_tensors=12, num_images=1)
SECTIONS = [
    "Models",
    "Accuracy guard",
    "What stayed in float",
    "What each group of layers costs",
    "Search",
    "Images whose masks changed most",
    "Ranges",
    "Calibration",
    "How this page was made",
]


def draw(**changes: Any) -> Page:
    return read_page(draw_precision_report({**copy.deepcopy(DOCUMENT), **changes}))


def rows_of(page: Page, caption: str) -> list[list[str]]:
    """Cells of the table whose caption begins so, without its heads."""
    rows: list[list[str]] = []
    inside = False
    for element in page.elements:
        if element.tag == "caption":
            inside = element.text.startswith(caption)
        elif inside and element.tag == "tr":
            rows.append([])
        elif inside and rows and element.tag in {"th", "td"}:
            rows[-1].append(element.text)
    return rows[1:]


def figures(page: Page) -> list[str]:
    return page.texts("figcaption")


# --- the whole --------------------------------------------------------------------------------------------------------


def test_every_section_is_there_and_the_page_stands_alone() -> None:
    found = draw()
    assert found.texts("h2") == SECTIONS
    assert found.texts("h1") == ["Precision of shapes"]
    assert DOCUMENT["verdict"] in found.texts("p")
    assert "shapes.pth · 2026-11-27 21:30 UTC · yolact-deploy 0.1.0" in found.texts("p")
    assert dict(zip(found.texts("dt"), found.texts("dd"), strict=True))["Command"] == DOCUMENT["made"]["command"]


def test_a_document_of_an_earlier_version_has_its_versions_only() -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != "made"}
    found = read_page(draw_precision_report(document))
    assert found.texts("dd")[-1] == "yolact-deploy 0.1.0, onnxruntime 1.32.0"


def test_the_document_is_json_and_is_not_changed() -> None:
    document = json.loads(json.dumps(DOCUMENT))
    page = draw_precision_report(document)
    assert document == DOCUMENT
    assert page == draw_precision_report(DOCUMENT)


def test_a_large_network_makes_a_page_of_bearable_size() -> None:
    document = make_document(num_tensors=150, num_images=8)
    histogram = {"edges": [i / 7 for i in range(2049)], "counts": [i * 31 % 9973 for i in range(2048)]}
    for entry in document["ranges"]:
        entry["histogram"] = histogram
    assert len(draw_precision_report(document).encode()) < 1_500_000


@pytest.mark.parametrize("key", sorted(DOCUMENT))
@pytest.mark.parametrize("how", ["missing", "empty", "none"])
def test_any_part_may_be_missing_or_empty(key: str, how: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    if how == "missing":
        del document[key]
    else:
        document[key] = None if how == "none" else type(document[key])()
    headings = read_page(draw_precision_report(document)).texts("h2")
    assert len(headings) >= len(SECTIONS) - 1
    assert headings == [section for section in SECTIONS if section in headings]


@pytest.mark.parametrize("document", [{}, {"name": None}, {"variants": [{}], "search": [{}], "sensitivity": [{}]}])
def test_next_to_nothing(document: dict[str, Any]) -> None:
    assert read_page(draw_precision_report(document)).texts("h2")[:2] == SECTIONS[:2]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything that is no container."""
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    else:
        yield path
    for key, entry in entries:
        yield from places(entry, (*path, key))


def replaced(value: Any, instead: Any, kinds: tuple[type, ...]) -> Any:
    """The same structure, with `instead` for whatever is of those kinds."""
    if isinstance(value, dict):
        return {key: replaced(entry, instead, kinds) for key, entry in value.items()}
    if isinstance(value, list):
        return [replaced(entry, instead, kinds) for entry in value]
    return instead if isinstance(value, kinds) and not isinstance(value, bool) else value


@pytest.mark.parametrize("number", [None, 0, -1, 1e-320, 1e308, -1e308, 10**400, math.nan, math.inf, -math.inf])
def test_any_number_can_be_drawn(number: Any) -> None:
    assert draw(**replaced(DOCUMENT, number, (int, float))).texts("h2") == SECTIONS


def test_each_value_may_be_undefined() -> None:
    document = make_document(num_tensors=1, num_images=1)
    document |= {key: document[key][:2] for key in ("sensitivity", "search", "variants")}
    for entry in document["ranges"]:
        entry["histogram"] = {"edges": [0, 1, 2], "counts": [3, 4]}
    for path in places(document):
        changed = copy.deepcopy(document)
        inside = changed
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = None
        read_page(draw_precision_report(changed))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "\"><img src=x onerror='y'>", "&lt;b&gt;", "a\x00b"])
def test_names_are_inert(name: str) -> None:
    plain = draw()
    found = draw(**replaced({key: value for key, value in DOCUMENT.items() if key != "worst_images"}, name, (str,)))
    assert [element.tag for element in found.elements if element.tag in {"script", "b"}] == []
    assert len(found.all("img")) == len(plain.all("img"))
    assert found.texts("h1") == [f"Precision of {name}".replace("\x00", " ")]


def test_names_that_are_no_unicode_can_be_encoded() -> None:
    found = draw_precision_report({**DOCUMENT, "name": b"\xff".decode("utf-8", "surrogateescape")})
    assert found.encode()


# --- models -----------------------------------------------------------------------------------------------------------


def test_models() -> None:
    rows = rows_of(draw(), "Latency measured with onnxruntime-cpu, 2 threads")
    assert rows[0][:7] == ["FP32", "model.fp32.onnx", "124.5 MB", "551", f"1.00{TIMES}", "0.656", "0.677"]
    assert rows[0][7:] == [UNDEFINED, UNDEFINED, "reference"]
    assert rows[2][:7] == ["INT8", "model.int8.onnx", "32.9 MB", "162", f"3.39{TIMES}", "0.652", "0.674"]
    assert rows[2][7:] == ["0.400.02 to 0.90", f"0.30{MINUS}0.10 to 0.70", "worth it"]
    assert len(rows) == 3


def without(*keys: str, **values: Any) -> list[dict[str, Any]]:
    return [{**variant, **dict.fromkeys(keys), **values} for variant in DOCUMENT["variants"]]


def test_accuracy_goes_with_latency_and_without_it_with_size() -> None:
    assert figures(draw())[0] == "Accuracy and latency: higher and further left is better"
    found = draw(variants=without("latency_ms", "speedup", "backend"))
    assert figures(found)[0] == "Accuracy and size: higher and further left is better"
    assert "Size, MB" in found.texts("text")
    heads = [head.text for head in found.all("th")]
    assert not {"Speed-up", "Latency, ms an image"} & set(heads[:9])
    assert any(caption.startswith("Latency was not measured.") for caption in found.texts("caption"))


def test_without_labels_what_was_lost_takes_the_place_of_accuracy() -> None:
    variants = without("mask_ap", "box_ap")
    for variant in variants[1:]:
        variant["agreement"] = 0.97
    found = draw(variants=variants)
    assert figures(found)[0] == "Accuracy and latency: lower and further left is better"
    assert {"Mask AP lost, points, 95 % interval", "FP32", "INT8"} <= set(found.texts("text"))
    heads = [head.text for head in found.all("th")]
    assert "Agreement AP" in heads
    assert "Mask AP" not in heads


def test_nothing_to_compare_is_no_plot() -> None:
    for variants in (without("mask_ap", "drop"), without("latency_ms", "size_bytes"), DOCUMENT["variants"][:1]):
        assert not figures(draw(variants=variants))[0].startswith("Accuracy")


def test_several_backends_are_named_in_their_rows() -> None:
    variants = copy.deepcopy(DOCUMENT["variants"])
    variants[2]["backend"] = "onnxruntime-cuda"
    rows = rows_of(draw(variants=variants), "Latency measured with onnxruntime-cpu, 2 threads and onnxruntime-cuda")
    assert rows[2][3] == "162onnxruntime-cuda"


def front(page: Page) -> list[tuple[float, float]]:
    """Corners of the line itself; the first such line is in the legend."""
    lines = zip(page.all("polyline"), page.corners(), strict=True)
    return [corners for element, corners in lines if "front" in element.attributes["class"]][1]


def test_the_front_joins_what_nothing_beats() -> None:
    # FP16 is slower than FP32 here and no better: the front has a corner at INT8, one below FP32 and one at it.
    assert len(front(draw())) == 3
    variants = copy.deepcopy(DOCUMENT["variants"])
    variants[2]["mask_ap"] = 0.7
    assert len(front(draw(variants=variants))) == 1


# --- guard, float layers, calibration ---------------------------------------------------------------------------------


def guard_text(**changes: Any) -> str:
    found = draw(guard={**DOCUMENT["guard"], **changes})
    return found.texts("section")[1]


def test_the_guard_in_a_sentence() -> None:
    told = guard_text(max_drop=1.0)
    assert "✓ Passed. The mask AP lost 0.40\xa0points (95 % interval 0.02 to 0.90) and the box AP lost" in told
    assert told.endswith("1.00 points were allowed (measured: AP on 200 labelled images).")
    assert "✗ Failed." in guard_text(passed=False)
    assert "There is no result." in guard_text(passed=None)
    assert "What was lost is not known; 0.50 points were allowed" in guard_text(drop=None)
    assert "no limit was set" in guard_text(max_drop=None)


def test_an_interval_beyond_the_limit_is_told() -> None:
    assert "more images would narrow it" in guard_text()
    assert "more images" not in guard_text(max_drop=0.9)
    assert "more images" not in guard_text(passed=False)
    assert "more images" not in guard_text(drop={"mask": [0.1, None, None], "box": [0.1]})


def test_what_stayed_in_float() -> None:
    rows = rows_of(draw(), "Groups of layers")
    assert rows[0] == ["class head", "5", "INT8 there costs 1.2 points of mask AP and saves 4 ms"]
    assert "No group was kept in float for its accuracy." in draw(kept_float=[]).texts("p")


def test_layers_in_float32_stand_together_by_precision_and_reason() -> None:
    variants = copy.deepcopy(DOCUMENT["variants"])
    variants[1]["float32_nodes"] = {"a": "too large", "tanh": "too coarse", "b": "too large"}
    rows = rows_of(draw(variants=variants), "Layers that compute in float32")
    precision = variants[1]["precision"].upper()
    assert rows == [[precision, "2", "a, b", "too large"], [precision, "1", "tanh", "too coarse"]]


def test_inputs_and_outputs_are_listed_where_a_network_has_float16_or_was_refused_it() -> None:
    assert "Inputs and outputs" not in draw().texts("h2"), "reports of earlier releases do not say them"
    variants = copy.deepcopy(DOCUMENT["variants"])
    single = {"dtypes": {"input": "float32", "outputs": "float32"}, "output_bytes": 6_200_000, "float32_outputs": None}
    for variant in variants:
        variant |= single
    assert "Inputs and outputs" not in draw(variants=variants).texts("h2")
    variants[1] |= {"dtypes": {"input": "float16", "outputs": "float16"}, "output_bytes": 3_100_000}
    rows = rows_of(draw(variants=variants), "Inputs and outputs of each network")
    assert [row[1:] for row in rows] == [
        ["float32", "float32", "6.2 MB"],
        ["float16", "float16", "3.1 MB"],
        ["float32", "float32", "6.2 MB"],
    ], "no column of reasons without any"
    variants[2] |= {"float32_outputs": "in float16 9 points <are> lost"}
    rows = rows_of(draw(variants=variants), "Inputs and outputs of each network")
    assert [row[1:] for row in rows] == [
        ["float32", "float32", "6.2 MB", ""],
        ["float16", "float16", "3.1 MB", ""],
        ["float32", "float32", "6.2 MB", "in float16 9 points <are> lost"],
    ]


def test_networks_made_earlier_say_what_they_were_judged_by() -> None:
    row = {"precision": "int8", "file": "model.int8.onnx", "drop": {"mask": [0.4, 0.1, 0.9], "box": None}}
    earlier = [{**row, "verdict": "holds the limit", "measure": "AP on 9 labelled images"}]
    (found,) = rows_of(draw(earlier=earlier), "Kept from an earlier export")
    assert found[:2] == ["INT8", "model.int8.onnx"]
    assert found[2].startswith("0.4")
    assert found[-2:] == ["holds the limit", "AP on 9 labelled images"]
    assert "Networks made earlier" not in draw().texts("h2")


def test_calibration_and_its_warnings() -> None:
    found = draw()
    assert found.texts("dd")[:4] == ["64", "mse", "12.3\xa0s", "3f9a52d1c07e44ab"]
    assert found.texts("a") == ["2 warnings"]
    assert set(DOCUMENT["calibration"]["warnings"]) <= set(found.texts("li"))
    cached = draw(calibration={**DOCUMENT["calibration"], "from_cache": True, "warnings": []})
    assert cached.texts("dd")[2] == "none: taken from the cache"
    assert cached.texts("a") == []
    assert UNDEFINED not in cached.texts("dd")
