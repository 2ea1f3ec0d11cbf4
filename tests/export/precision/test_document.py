from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from support.precision_trials import MANIFEST, make_frames
from support.quantised import float_network
from support.scenes import make_instances
from yolact_calibration.evaluation.agreement import measure_agreement
from yolact_calibration.evaluation.bootstrap import Interval
from yolact_calibration.evaluation.judge import Judgement
from yolact_calibration.float16.conversion import HalfModel
from yolact_calibration.precision.guard_images import GuardImages
from yolact_calibration.quantisation.calibration_images import find_calibration_images
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.ranges import RangeMethod
from yolact_calibration.report.precision_report import draw_precision_report
from yolact_export.graph.file import write_model
from yolact_export.precision import document as module
from yolact_export.precision.document import (
    float32_lines,
    measure_latencies,
    output_lines,
    precision_document,
    table_lines,
    verdict,
)
from yolact_export.precision.precision import PrecisionRequest, PrecisionResult, Variant, add_precisions
from yolact_runtime.media.images import write_image
from yolact_runtime.model.manifest import NetworkDtypes
from yolact_runtime.terminal import Terminal

SAME = {"a": make_instances(8, 8, [(1, 1, 5, 5)])}
AGREEMENT = measure_agreement(SAME, SAME, ["cat"])
SIZES = {"fp32": 4000, "fp16": 2000, "int8-cpu": 1000, "int8": 1250}
FAST, SLOW = {"fp32": 20.0, "int8-cpu": 8.0}, {"fp32": 20.0, "int8-cpu": 19.8}


def make(
    folder: Path, losses: Mapping[str, float], max_drop: float = 0.5, measure: str = "AP on 8 labelled images"
) -> PrecisionResult:
    """Networks that lose so many points."""
    variants = []
    for precision, lost in {"fp32": 0.0, **losses}.items():
        path = folder / f"model.{precision}.onnx"
        path.write_bytes(bytes(SIZES[precision]))
        interval = Interval(lost, lost - 0.1, lost + 0.1)
        judgement = Judgement({"bbox": interval, "segm": interval}, {"bbox": 0.7, "segm": 0.6}, AGREEMENT)
        variants.append(Variant(precision, path, judgement, lost <= max_drop, SAME))
    return PrecisionResult(tuple(variants), None, measure, max_drop)  # type: ignore[arg-type]  # no calibration here


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_int8_that_is_faster_is_worth_it_at_its_price(tmp_path: Path) -> None:
    found = verdict(make(tmp_path, {"int8-cpu": 0.4}), FAST)
    assert found == "INT8 is worth it here: 2.5 x as fast, for 0.40 points of AP on 8 labelled images"


@pytest.mark.parametrize("lost", [0.0, -0.3, 0.004])
def test_no_loss_and_a_gain_are_no_loss(lost: float, tmp_path: Path) -> None:
    assert verdict(make(tmp_path, {"int8-cpu": lost}), FAST).endswith(
        "2.5 x as fast, at no loss of AP on 8 labelled images"
    )


def test_int8_that_is_not_faster_is_not_worth_it(tmp_path: Path) -> None:
    found = verdict(make(tmp_path, {"int8-cpu": 0.4}), SLOW)
    assert found == "INT8 is not worth it here: 1.01 x as fast; run with --precision fp32 on this machine"


def test_one_rejected_network_is_the_verdict_whatever_the_speed(tmp_path: Path) -> None:
    found = verdict(make(tmp_path, {"int8-cpu": 0.1, "int8": 0.9}), FAST)
    assert found == "int8 lost more than 0.5 points and is rejected; the other networks are kept"


def test_two_rejected_networks(tmp_path: Path) -> None:
    assert verdict(make(tmp_path, {"int8-cpu": 9, "int8": 9}), {}).startswith(
        "int8-cpu and int8 lost more than 0.5 points and are rejected"
    )


def test_networks_for_a_gpu_are_judged_by_size(tmp_path: Path) -> None:
    found = verdict(make(tmp_path, {"fp16": 0.0, "int8": 0.2}), {})
    assert found.startswith("int8 is 3.2 x smaller, for 0.20 points of AP")
    assert found.endswith("its speed shows on the GPU that will run it")


def test_the_float_network_is_never_the_smallest(tmp_path: Path) -> None:
    result = make(tmp_path, {"int8": 0.2})
    (tmp_path / "model.int8.onnx").write_bytes(bytes(8000))
    assert verdict(result, {}).startswith("int8 is 0.5 x smaller")


def test_without_a_limit_nothing_is_praised(tmp_path: Path) -> None:
    found = verdict(make(tmp_path, {"int8-cpu": 45.2}, math.inf, "agreement AP on 8 images"), FAST)
    assert found == "INT8 is 2.5 x as fast, for 45.20 points of agreement AP on 8 images (no limit was set)"
    assert "holds" not in verdict(make(tmp_path, {"fp16": 45.2}, math.inf), {})


def test_layers_beyond_float16_are_named(tmp_path: Path) -> None:
    result = make(tmp_path, {"fp16": 0.0, "int8": 0.1, "int8-cpu": 0.1})
    kept = {
        "tanh": "float16 is too coarse for it",
        **{f"layer{number}": "its values reach 1e+05" for number in range(6)},
    }
    half = HalfModel(onnx.ModelProto(), kept, 0, NetworkDtypes())
    variants = [
        dataclasses.replace(variant, half=half if variant.precision in {"fp16", "int8"} else None)
        for variant in result.variants
    ]
    found = verdict(dataclasses.replace(result, variants=tuple(variants)), FAST)
    named = "layer0, layer1, layer2, layer3 and 2 more"
    assert found.endswith(f"; fp16 and int8 compute {named} in float32")
    assert "tanh" not in found
    lines = float32_lines({"variants": [row("fp16", float32_nodes=kept), row(float32_nodes={})]})
    assert lines == [
        f"in float32: fp16, 6 layers ({named}): their values may exceed float16",
        "in float32: fp16, 1 layer (tanh): float16 is too coarse",
    ]


def io_row(precision: str, outputs: str, size: int, why: str | None = None, verdict: str = "kept") -> dict[str, Any]:
    dtypes = {"input": outputs, "outputs": outputs}
    return row(precision, dtypes=dtypes, output_bytes=size, float32_outputs=why, verdict=verdict)


def test_outputs_in_float16_are_one_line_and_those_that_are_not_say_why() -> None:
    single = io_row("fp32", "float32", 6_200_000)
    half = [io_row(name, "float16", 3_100_000) for name in ("fp16", "int8")]
    assert output_lines({"variants": [single, *half]}) == [
        "outputs in float16: fp16 and int8, 3.1 MB a frame instead of 6.2 MB"
    ]
    refused = io_row("int8", "float32", 6_200_000, "in float16 9.00 points are lost")
    assert output_lines({"variants": [single, refused, half[0]]}) == [
        "outputs in float16: fp16, 3.1 MB a frame instead of 6.2 MB",
        "outputs in float32: int8: in float16 9.00 points are lost",
    ]
    assert output_lines({"variants": [single, io_row("fp16", "float16", 3, verdict="rejected")]}) == []


def test_a_network_that_overflows_has_no_figures_and_says_where(tmp_path: Path) -> None:
    result = make(tmp_path, {"fp16": 0.0, "int8": 3.0})
    fp32, fp16, int8 = result.variants
    fp16 = dataclasses.replace(fp16, passed=False, is_sound=False, overflow="first in a on 1.png")
    result = dataclasses.replace(result, variants=(fp32, fp16, dataclasses.replace(int8, overflow="first in b")))
    assert verdict(result, {}) == (
        "fp16 gave outputs that are not finite (it overflows: first in a on 1.png), int8 lost more than 0.5 points "
        "(it overflows: first in b) and are rejected; the other networks are kept"
    )


# --- the table --------------------------------------------------------------------------------------------------------


def row(precision: str = "int8-cpu", **changes: Any) -> dict[str, Any]:
    return {
        "precision": precision,
        "size_bytes": 999_900_000,
        "latency_ms": 12345.6,
        "box_ap": 0.677,
        "mask_ap": 0.656,
        "agreement": None,
        "drop": {"box": [-12.34, -13, -11], "mask": [100.0, 99, 100]},
        "verdict": "rejected",
        **changes,
    }


def test_the_table_is_at_most_78_columns_wide_with_everything_in_it() -> None:
    """Two more are its indentation."""
    lines = table_lines({"variants": [row(), row("fp32", drop=None, verdict="reference")]})
    assert max(map(len, lines)) <= 78
    assert lines[1].endswith("-12.34, 100.00  REJECTED")
    assert all(text in lines[1] for text in ("int8-cpu", "999.9 MB", "12345.6 ms", "0.677", "0.656"))
    assert "REJECTED" not in lines[2]


def test_columns_stand_below_their_heads() -> None:
    head, line = table_lines({"variants": [row(verdict="within the limit")]})
    for name, value in (("box AP", "0.677"), ("mask AP", "0.656"), ("latency", "12345.6 ms"), ("size", "999.9 MB")):
        assert head.index(name) + len(name) == line.index(value) + len(value)
    assert head.endswith("lost (box, mask)")
    assert len(head) == len(line)


def test_without_labels_there_is_agreement_and_no_empty_dash() -> None:
    changes: dict[str, Any] = {"box_ap": None, "mask_ap": None, "verdict": "within the limit"}
    head, line, reference = table_lines(
        {"variants": [row(agreement=0.985, **changes), row("fp32", agreement=None, drop=None, **changes)]}
    )
    assert "agreement" in head
    assert "AP" not in head
    assert "0.985" in line
    assert reference.split() == ["fp32", "999.9", "MB", "12345.6", "ms", "-", "-"]


def test_undefined_figures_are_dashes() -> None:
    line = table_lines({"variants": [row(latency_ms=None, drop={"box": [None] * 3, "mask": [0.5, 0, 1]})]})[1]
    assert line.endswith("-, 0.50  REJECTED")


# --- latencies --------------------------------------------------------------------------------------------------------


def test_only_what_onnxruntime_runs_well_and_what_passed_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(
        module, "time_networks_ms", lambda models, spec, num_threads: (asked.append(list(models)), dict(FAST))[1]
    )
    everything = {"fp16": 0.0, "int8-cpu": 0.0, "int8": 0.0}
    assert measure_latencies(make(tmp_path, everything), MANIFEST, 1) == FAST
    assert asked == [["fp32", "int8-cpu"]]
    # A float network alone has nothing to be compared with.
    assert measure_latencies(make(tmp_path, {**everything, "int8-cpu": 9.0}), MANIFEST, 1) == {}
    assert len(asked) == 1


# --- the document, of real networks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def request_and_result(tmp_path_factory: pytest.TempPathFactory) -> tuple[PrecisionRequest, PrecisionResult]:
    folder = tmp_path_factory.mktemp("networks")
    images = folder / "images"
    images.mkdir()
    for name, frame in make_frames(8, 1):
        write_image(images / name, frame)
    write_model(float_network(), folder / "model.fp32.onnx")
    calibration = find_calibration_images([str(images)])
    guard = GuardImages(make_frames(1), "agreement on 1 image")
    request = PrecisionRequest(
        True,
        (Dialect.CPU,),
        calibration,
        guard,
        RangeMethod.MINMAX,
        num_threads=1,
        cache=folder / "cache",
        num_sensitivity=0,
        max_drop=90,
    )
    return request, add_precisions(folder, MANIFEST, request, Terminal(quiet=True, stream=io.StringIO()))


@pytest.fixture(scope="module")
def document(request_and_result: tuple[PrecisionRequest, PrecisionResult]) -> dict[str, Any]:
    return precision_document(request_and_result[1], request_and_result[0], MANIFEST, FAST)


def test_it_is_json_without_nan_and_numpy(document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert not [value for value in leaves(document) if type(value).__module__ == "numpy"]


def leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_the_page_and_the_table_are_made_of_it(document: dict[str, Any]) -> None:
    assert "int8-cpu" in draw_precision_report(document)
    assert len(table_lines(document)) == 4


def test_rows_without_labels(document: dict[str, Any]) -> None:
    fp32, fp16, int8 = document["variants"]
    assert fp32["verdict"] == "reference"
    assert fp32["drop"] is fp32["agreement"] is None
    assert {row["box_ap"] for row in document["variants"]} == {None}
    assert int8["agreement"] == pytest.approx(1 - int8["drop"]["mask"][0] / 100)
    assert int8["speedup"] == 2.5
    assert fp16["latency_ms"] is fp16["backend"] is None
    assert int8["backend"] == "onnxruntime-cpu, 1 thread"


def test_every_step_says_how_much_is_in_int8_and_how_fast_that_is(document: dict[str, Any]) -> None:
    for step in document["search"]:
        assert 0 < step["num_int8"] <= step["num_convolutions"]
        assert step["latency_ms"] > 0
    assert sum(row["convolutions"] for row in document["kept_float"]) + document["variants"][2]["num_int8"] == 51


def test_every_range_has_a_histogram_of_what_was_seen(document: dict[str, Any]) -> None:
    for one in document["ranges"]:
        assert one["minimum"] <= one["maximum"]
        assert one["low"] <= 0 <= one["high"]
        assert len(one["histogram"]["edges"]) in (0, len(one["histogram"]["counts"]) + 1)


def test_no_limit_is_null_and_is_called_so(
    request_and_result: tuple[PrecisionRequest, PrecisionResult], document: dict[str, Any]
) -> None:
    assert document["guard"]["max_drop"] == 90
    request, result = request_and_result
    unlimited = precision_document(dataclasses.replace(result, max_drop=math.inf), request, MANIFEST, {})
    assert unlimited["guard"]["max_drop"] is None
    assert unlimited["variants"][2]["verdict"] == "kept without a limit"
    json.dumps(unlimited, allow_nan=False)


def test_a_rejected_network_is_what_the_report_shows(
    request_and_result: tuple[PrecisionRequest, PrecisionResult],
) -> None:
    """It is the one that somebody has to look at."""
    request, result = request_and_result
    variants = tuple(dataclasses.replace(v, passed=v.precision != "fp16") for v in result.variants)
    found = precision_document(dataclasses.replace(result, variants=variants), request, MANIFEST, {})
    assert found["guard"]["passed"] is False
    assert found["guard"]["drop"] == found["variants"][1]["drop"]
    assert [row["verdict"] for row in found["variants"]] == ["reference", "rejected", "within the limit"]
    assert "kept_float" not in found


def test_a_network_with_outputs_that_are_not_finite_has_no_figures(
    request_and_result: tuple[PrecisionRequest, PrecisionResult],
) -> None:
    request, result = request_and_result
    fp32, fp16, _ = result.variants
    for passed, words in ((False, "rejected"), (True, "not judged: its outputs are not finite")):
        unsound = dataclasses.replace(fp16, passed=passed, is_sound=False, overflow="first in a on 1.png")
        found = precision_document(dataclasses.replace(result, variants=(fp32, unsound)), request, MANIFEST, {})
        shown = found["variants"][1]
        assert {shown[key] for key in ("drop", "box_ap", "mask_ap", "agreement")} == {None}
        assert (shown["verdict"], shown["overflow"]) == (words, "first in a on 1.png")
        assert found["guard"]["drop"] is None
        assert table_lines(found)[2].split()[3:] == ["-", "-", "-", *([] if passed else ["REJECTED"])]
        page = draw_precision_report(found)
        assert "it overflows: first in a on 1.png" in page
        assert "Layers that compute in float32" not in page
        assert "Inputs and outputs of each network" in page


def test_with_labels_the_figures_are_average_precisions(
    request_and_result: tuple[PrecisionRequest, PrecisionResult], tmp_path: Path
) -> None:
    request, result = request_and_result
    annotated: Any = object()
    request = dataclasses.replace(request, guard=dataclasses.replace(request.guard, annotations=annotated))
    found = precision_document(result, request, MANIFEST, {})
    for one, variant in zip(found["variants"], result.variants, strict=True):
        assert one["agreement"] is None
        assert (one["box_ap"], one["mask_ap"]) == tuple(variant.judgement.figures[kind] for kind in ("bbox", "segm"))
