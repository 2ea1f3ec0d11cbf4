"""The precision options: what they refuse, what they ask for, what they say."""

from __future__ import annotations

import argparse
import io
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.training_data import square, write_scenes, write_set
from yolact_calibration.errors import DatasetError
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.ranges import RangeMethod
from yolact_export.commands import cli
from yolact_export.commands.precision_cli import (
    check_precision_options,
    guard_status,
    precision_request,
    say_precisions,
)
from yolact_export.commands.prune_cli import check_prune_options
from yolact_export.errors import UsageError
from yolact_export.precision.precision import PrecisionRequest
from yolact_runtime.terminal import Terminal


def parse(*words: str | Path) -> argparse.Namespace:
    return cli._parser().parse_args(["model.pth", *(str(word) for word in words)])


def check(*words: str) -> None:
    """As ``yolact-export`` does."""
    parser = cli._parser()
    options = parser.parse_args(["model.pth", *words])
    parser.require_effects(options)
    check_prune_options(options)
    check_precision_options(options)


# --- what is refused --------------------------------------------------------------------------------------------------

CALIB = ("--calib", "photos")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--int8", *CALIB),
        ("--fp16", *CALIB),
        ("--int8", "--fp16", *CALIB, "more/*.png", "--threads", "2"),
        ("--int8", *CALIB, "--max-drop", "0"),
        ("--int8", *CALIB, "--no-guard"),
        ("--fp16", *CALIB, "--io-dtype", "float32"),
        ("--fp16", *CALIB, "--guard-images", "1", "--calibration-cache", "cache"),
        ("--int8", *CALIB, "--int8-all", "--calibration-method", "entropy"),
        ("--int8", *CALIB, "--sensitivity-images", "0"),
        ("--int8", *CALIB, "--annotations", "val.json", "--images", "val"),
        ("--prune", "0.4", *CALIB, "--annotations", "val.json", "--images", "val", "--threads", "2"),
        ("--prune", "0.4", "--int8", *CALIB, "--max-drop", "1"),
    ],
)
def test_sensible_options_pass(words: tuple[str, ...]) -> None:
    check(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--int8",), "--int8 and --fp16 need --calib"),
        (("--fp16",), "--int8 and --fp16 need --calib"),
        (("--int8", *CALIB, "--annotations", "val.json"), "--annotations needs --images"),
        (
            ("--int8", *CALIB, "--skip-missing"),
            "--skip-missing has no effect without --annotations or --recover",
        ),
        (("--skip-missing", "--allow-outside"), "have no effect without --prune, --int8 or --fp16"),
        (("--fp16", *CALIB, "--images", "val"), "--images has no effect without --annotations"),
        (("--prune", "0.4", *CALIB, "--images", "val"), "--images has no effect without --annotations"),
        (("--int8", *CALIB, "--max-drop", "-0.1"), r"--max-drop is a number of points.* found -0\.1"),
        (("--int8", *CALIB, "--max-drop", "nan"), "--max-drop is a number of points.* found nan"),
        (("--int8", *CALIB, "--max-drop", "inf"), "--max-drop is a number of points.* found inf"),
        (("--int8", *CALIB, "--max-drop", "1", "--no-guard"), "--max-drop and --no-guard contradict"),
        (("--int8", *CALIB, "--int8-all", "--sensitivity-images", "4"), "with --int8-all, which leaves out the search"),
        (
            ("--int8", *CALIB, "--target", "cpu", "--io-dtype", "float32"),
            "--io-dtype has no effect with --target cpu",
        ),
        (("--int8", *CALIB, "--guard-images", "0"), "--guard-images must be 1 or more, found 0"),
        (("--int8", *CALIB, "--sensitivity-images", "-1"), "--sensitivity-images must be 0 or more, found -1"),
        (("--int8", *CALIB, "--threads", "0"), "--threads must be 1 or more, found 0"),
        (("--prune", "0.4", *CALIB, "--threads", "-1"), "--threads must be 1 or more, found -1"),
    ],
)
def test_missing_wrong_and_contradicting_options(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(*words)


ONLY_INT8 = (
    ("--int8-all",),
    ("--calibration-method", "mse"),
    ("--sensitivity-images", "3"),
    # 0 is a value too, and equals False.
    ("--sensitivity-images", "0"),
)
ONLY_PRECISION = (
    ("--max-drop", "1"),
    ("--max-drop", "0"),
    ("--no-guard",),
    ("--calibration-cache", "cache"),
    ("--guard-images", "3"),
    ("--io-dtype", "auto"),
)


@pytest.mark.parametrize("stray", ONLY_INT8, ids=" ".join)
@pytest.mark.parametrize("others", [(), ("--fp16", *CALIB), ("--prune", "0.4", *CALIB)], ids=["none", "fp16", "prune"])
def test_options_of_int8_without_it(stray: tuple[str, ...], others: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"^{stray[0]} has no effect without --int8; add --int8, or leave it out$"):
        check(*stray, *others)


@pytest.mark.parametrize("stray", ONLY_PRECISION, ids=" ".join)
@pytest.mark.parametrize("others", [(), ("--prune", "0.4", *CALIB)], ids=["none", "prune"])
def test_options_of_any_precision_without_one(stray: tuple[str, ...], others: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"^{stray[0]} has no effect without --int8 or --fp16; add one of them"):
        check(*stray, *others)


def test_several_strays_are_all_named() -> None:
    with pytest.raises(UsageError, match="--max-drop, --no-guard have no effect without --int8 or --fp16"):
        check("--max-drop", "1", "--no-guard")


@pytest.mark.parametrize("stray", [CALIB, ("--annotations", "a"), ("--images", "b"), ("--threads", "2")], ids=" ".join)
def test_images_without_anything_that_needs_them(stray: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"{stray[0]} has no effect without --prune, --int8 or --fp16; add"):
        check(*stray)


@pytest.mark.parametrize("precision", ["--int8", "--fp16"])
def test_options_of_pruning_are_not_shared(precision: str) -> None:
    with pytest.raises(UsageError, match="--recover-steps has no effect without --prune; add --prune "):
        check(precision, *CALIB, "--recover-steps", "5")


def test_the_help_states_the_limits_that_are_held() -> None:
    words = " ".join(cli._parser().format_help().split())
    assert "default 0.5 with --annotations, 8 of agreement without" in words


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), 40)[1]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """12 images with labels."""
    return write_set(tmp_path_factory.mktemp("few"), [[{"segmentation": square(4, 4, 20)}]] * 12)


def request(*words: str | Path) -> tuple[PrecisionRequest, str]:
    stream = io.StringIO()
    return precision_request(parse("--int8", *words), Terminal(stream=stream)), stream.getvalue()


def names_of(frames: Any) -> set[str]:
    return {name for name, _ in frames}


@pytest.mark.parametrize(
    ("target", "dialects"),
    [
        ("auto", {Dialect.CPU, Dialect.TENSORRT}),
        ("cpu", {Dialect.CPU}),
        ("tensorrt", {Dialect.TENSORRT}),
        ("rtx", {Dialect.TENSORRT}),
    ],
)
def test_targets_choose_the_dialects(target: str, dialects: set[Dialect], scenes: Path) -> None:
    found, _ = request("--calib", scenes, "--target", target)
    assert set(found.dialects) == dialects
    assert not found.float16


def test_float16_alone_asks_for_no_int8(scenes: Path) -> None:
    options = parse("--fp16", "--calib", scenes)
    found = precision_request(options, Terminal(stream=io.StringIO()))
    assert found.float16
    assert found.dialects == ()


def test_defaults_and_what_replaces_them(scenes: Path) -> None:
    plain, _ = request("--calib", scenes)
    assert (plain.method, plain.max_drop, plain.everything) == (RangeMethod.MSE, None, False)
    assert (plain.num_sensitivity, plain.num_threads, plain.cache) == (16, 0, None)
    words = ("--max-drop", "0", "--int8-all", "--calibration-method", "minmax", "--threads", "3")
    other, _ = request("--calib", scenes, *words)
    assert (other.method, other.max_drop, other.everything) == (RangeMethod.MINMAX, 0.0, True)
    assert other.num_threads == 3
    assert request("--calib", scenes, "--no-guard")[0].max_drop == math.inf
    assert request("--calib", scenes, "--sensitivity-images", "0")[0].num_sensitivity == 0
    assert [request("--calib", scenes, "--io-dtype", name)[0].half_io for name in ("auto", "float32")] == [True, False]


@pytest.mark.parametrize(("words", "held"), [((), 10), (("--guard-images", "3"), 3), (("--guard-images", "39"), 10)])
def test_a_quarter_of_unlabelled_images_judges_and_is_not_calibrated_on(
    words: tuple[str, ...], held: int, scenes: Path
) -> None:
    found, talk = request("--calib", scenes, *words)
    assert len(found.guard) == held
    assert len(found.calibration) == 40 - held
    assert not names_of(found.guard) & names_of(found.calibration)
    assert found.guard.description == f"agreement on {held} images that are held back"
    assert talk == ""


def test_the_same_images_are_held_back_whatever_they_are_called(scenes: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(scenes.iterdir(), reverse=True)):
        (tmp_path / f"{number:02}.png").write_bytes(path.read_bytes())
    first, second = request("--calib", scenes)[0], request("--calib", tmp_path)[0]
    assert first.calibration.digest() == second.calibration.digest()


def test_too_few_images_to_split_judge_themselves_and_that_is_said(few: tuple[Path, Path]) -> None:
    found, talk = request("--calib", few[1])
    assert names_of(found.guard) == names_of(found.calibration)
    assert len(found.guard) == 12
    assert "12 images are too few to hold some back" in talk
    assert "which flatters them" in talk


def test_a_limit_of_images_holds_for_few_ones_too(few: tuple[Path, Path]) -> None:
    found, _ = request("--calib", few[1], "--guard-images", "5")
    assert len(found.guard) == 5
    assert len(found.calibration) == 12
    assert found.guard.description == "agreement on 5 of the same images"


def test_labelled_images_judge_and_all_others_calibrate(scenes: Path, few: tuple[Path, Path]) -> None:
    found, talk = request("--calib", scenes, "--annotations", few[0], "--images", few[1], "--guard-images", "7")
    assert len(found.calibration) == 40
    assert found.guard.annotations is not None
    assert len(found.guard) == 7
    assert talk == ""


def test_judging_by_the_images_of_the_calibration_is_said(few: tuple[Path, Path]) -> None:
    _, talk = request("--calib", few[1], "--annotations", few[0], "--images", few[1])
    assert "12 of the 12 labelled images are among those of the calibration" in talk


def test_labels_with_boxes_only_cannot_judge(scenes: Path, few: tuple[Path, Path], tmp_path: Path) -> None:
    """Box AP alone would let a network pass whose masks are lost."""
    document = json.loads(few[0].read_text())
    for entry in document["annotations"]:
        del entry["segmentation"]
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match="boxes only, so that a loss of masks could not be seen"):
        request("--calib", scenes, "--annotations", tmp_path / "boxes.json", "--images", few[1])


def test_missing_images_are_skipped_on_demand_and_bad_ones_found(
    scenes: Path, few: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(few[1], folder)
    names = sorted(folder.iterdir())
    names[0].unlink()
    words = ("--calib", scenes, "--annotations", few[0], "--images", folder)
    with pytest.raises(DatasetError, match=r"1 of the 12 images .* --skip-missing continues without them"):
        request(*words)
    found, talk = request(*words, "--skip-missing")
    assert len(found.guard) == 11
    assert "1 of 12 images is not in" in talk
    names[1].write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"1 of the 11 images .* cannot be used"):
        request(*words, "--skip-missing")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--calib", "nowhere"), "nowhere"),
        (("--annotations", "nowhere.json", "--images", "x"), r"nowhere\.json"),
        (("--annotations", "FEW", "--images", "SCENES"), "12 of the 12 images .* are not in"),
    ],
)
def test_images_that_do_not_serve(words: tuple[str, ...], message: str, scenes: Path, few: tuple[Path, Path]) -> None:
    real = {"FEW": few[0], "SCENES": scenes.parent}
    calib = () if "--calib" in words else ("--calib", scenes)
    with pytest.raises(DatasetError, match=message):
        request(*calib, *(real.get(word, word) for word in words))


# --- what is said -----------------------------------------------------------------------------------------------------


def variant(precision: str, passed: bool, worst: float = 2.345, **changes: Any) -> Any:
    name = f"model.{precision}.onnx" + ("" if passed else ".rejected")
    facts = {"path": Path(name), "judgement": SimpleNamespace(worst=worst), "overflow": None, "is_sound": True}
    return SimpleNamespace(precision=precision, passed=passed, **{**facts, **changes})


def status(*variants: Any) -> tuple[int, str]:
    stream = io.StringIO()
    result: Any = SimpleNamespace(
        variants=variants, passed=all(v.passed for v in variants), measure="AP on 8 labelled images", max_drop=0.5
    )
    return guard_status(result, Terminal(quiet=True, stream=stream)), stream.getvalue()


def test_no_precision_and_held_limits_are_status_0() -> None:
    assert guard_status(None, Terminal(stream=io.StringIO())) == 0
    assert status(variant("fp32", True), variant("int8", True)) == (0, "")


def test_a_rejected_network_is_status_3_and_named_even_when_quiet() -> None:
    number, talk = status(variant("fp32", True), variant("int8-cpu", False), variant("int8", True))
    assert number == 3
    assert talk.startswith("error: int8-cpu loses 2.35 points (AP on 8 labelled images), 0.5 are allowed: kept as ")
    assert "model.int8-cpu.onnx.rejected" in talk
    assert "--max-drop" in talk
    assert talk.count("error:") == 1


def test_an_overflow_is_an_error_that_says_where_and_what_to_do() -> None:
    number, talk = status(variant("fp16", False, 100.0, is_sound=False, overflow="first in a on 1.png"))
    assert number == 3
    assert talk == (
        "error: fp16 gives outputs that are not finite: kept as model.fp16.onnx.rejected. It overflows: first in a on "
        "1.png. Images with such values in --calib keep these layers in float32\n"
    )
    _, talk = status(variant("fp16", False, 4.0, overflow="first in a on 1.png"))
    assert "0.5 are allowed: kept as model.fp16.onnx.rejected. It overflows: first in a on 1.png. More or" in talk


def test_reasons_for_float_and_the_verdict_close_the_screen(tmp_path: Path) -> None:
    stream = io.StringIO()
    row = {
        "precision": "int8-cpu",
        "size_bytes": 1000,
        "latency_ms": None,
        "box_ap": None,
        "mask_ap": None,
        "agreement": 0.98,
        "drop": {"box": [1.0, 0.5, 1.5], "mask": [2.0, 1.0, 3.0]},
        "float32_nodes": {"proto_net.4": "its values reach 1e+05, beyond float16's limit of 65504"},
        "dtypes": {"input": "float32", "outputs": "float32"},
        "output_bytes": 8,
        "float32_outputs": "tanh: float16 is too coarse for it",
        "verdict": "within the limit",
    }
    kept = [
        {"group": "stem", "convolutions": 1, "why": "INT8 is no faster here"},
        {"group": "box head", "convolutions": 5, "why": "too much"},
    ]
    report = {"variants": [row], "kept_float": kept, "verdict": "INT8 is worth it here"}
    say_precisions(report, tmp_path, Terminal(stream=stream))
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "INT8 is worth it here"
    assert "  in float: stem (1 convolution): INT8 is no faster here" in lines
    assert "  in float: box head (5 convolutions): too much" in lines
    assert "  in float32: int8-cpu, 1 layer (proto_net.4): their values may exceed float16" in lines
    assert "  outputs in float32: int8-cpu: tanh: float16 is too coarse for it" in lines
    assert f"  report: {tmp_path / 'report.html'}" in lines
