"""``yolact-export --int8 --fp16`` on a trained model, and on poisoned ones: caught or repaired, never silently bad."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch

from support.training_data import write_scenes
from yolact_calibration.data.dataset import AnnotatedImages
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_calibration.evaluation.judge import Judge
from yolact_calibration.float16.rounding import simulate_float16
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.precision import network_maker
from yolact_calibration.precision.guard_images import GuardImages
from yolact_calibration.quantisation.trial import Trial
from yolact_export.commands import cli
from yolact_export.precision import document as precision_document
from yolact_runtime.commands import run_cli
from yolact_runtime.media.images import read_image, write_image
from yolact_runtime.model.bundle import open_bundle

pytestmark = pytest.mark.long
SHAPES = Path(__file__).parents[2] / "examples" / "models" / "shapes.pth"
NUM_LABELLED = 4
LIMIT = 0.5


class Scenes(NamedTuple):
    """Images to calibrate with, labelled ones, and the cache of calibrations."""

    calib: Path
    annotations: Path
    images: Path
    cache: Path

    def labels(self) -> tuple[str | Path, ...]:
        return "--annotations", self.annotations, "--images", self.images


class Export(NamedTuple):
    """One run of the command."""

    status: int
    bundle: Path
    talk: str

    def report(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.bundle / "report.json").read_bytes())["precision"]
        return document

    def precisions(self) -> dict[str, str]:
        artefacts = json.loads((self.bundle / "manifest.json").read_bytes())["artefacts"]
        return {name: artefact["precision"] for name, artefact in artefacts.items()}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    folder = tmp_path_factory.mktemp("scenes")
    _, calib = write_scenes(folder / "calib", 16, size=256, seed=500)
    annotations, images = write_scenes(folder / "val", NUM_LABELLED, size=256, seed=10000)
    return Scenes(calib, annotations, images, folder / "cache")


@pytest.fixture(scope="module", autouse=True)
def _quick_figures() -> Iterator[None]:
    """Latencies are of no interest here, and intervals only in the whole command: verdicts are of the estimates."""
    with pytest.MonkeyPatch.context() as patch:
        quick = functools.partial(precision_document.time_networks_ms, seconds=0.0)
        patch.setattr(precision_document, "time_networks_ms", quick)
        patch.setattr(network_maker, "Judge", functools.partial(Judge, settings=BootstrapSettings(num_resamples=20)))
        yield


def export(checkpoint: Path, bundle: Path, scenes: Scenes, *words: str | Path) -> Export:
    """One thread, and no look at the parts of the network: that costs time and only orders the search."""
    given: tuple[str | Path, ...] = ()
    if "--calib" in words:
        given += ("--threads", "1", "--calibration-cache", scenes.cache)
    if "--int8" in words and "--fp16" not in words and "--int8-all" not in words:
        given += ("--sensitivity-images", "0")
    talk = io.StringIO()
    with contextlib.redirect_stderr(talk):
        status = cli.main([str(word) for word in (checkpoint, "-o", bundle, *given, *words)])
    return Export(status, bundle, talk.getvalue())


def files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def lost(found: Export, precision: str, scenes: Scenes) -> float:
    """Points that a network of a bundle loses, measured from outside."""
    fp32, other = (open_bundle(found.bundle, name) for name in ("fp32", precision))
    data = AnnotatedImages.open(CocoAnnotations.from_file(scenes.annotations), scenes.images)
    guard = GuardImages.labelled(data, None)
    trial = Trial(fp32.manifest, guard, num_threads=1)
    simulate = precision == "int8"
    judge = Judge(trial.find(onnx.load(fp32.network.path)), fp32.manifest.class_names, guard.annotations)
    network = simulate_float16(onnx.load(other.network.path))
    return judge.judge(trial.find(network, simulate=simulate), quickly=True).worst


def require_not_silently_bad(found: Export, precision: str, scenes: Scenes) -> None:
    """Either refused, or what is in the bundle holds the limit because parts of it are in float."""
    if found.status == 3:
        assert precision not in found.precisions().values()
        assert f"error: {precision} loses" in found.talk
        return
    assert found.status == 0
    assert lost(found, precision, scenes) <= LIMIT
    given_back = [row for row in found.report()["search"] if row["action"].endswith("back to float")]
    assert given_back, "the first plan cannot have held the limit"


# --- the whole command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(scenes: Scenes, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Without labels, for everything that this machine can build."""
    bundle = tmp_path_factory.mktemp("whole") / "shapes.bundle"
    words = ("--int8", "--fp16", "--calib", scenes.calib, "--sensitivity-images", "1", "--guard-images", "4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_maker, "Judge", Judge)
        return export(SHAPES, bundle, scenes, *words, "--json", bundle.with_name("report.json"))


def test_networks_engines_and_reports_are_in_the_bundle(whole: Export) -> None:
    assert whole.status == 0
    networks = {f"model.{precision}.onnx": precision for precision in ("fp32", "fp16", "int8", "int8-cpu")}
    plans = {f"model.{precision}.rtx.plan": precision for precision in ("fp32", "fp16", "int8")}
    assert whole.precisions() == {**networks, **plans, "golden.npz": ""}
    others = {"golden.npz", "manifest.json", "report.json", "report.html"}
    assert set(files(whole.bundle)) == {*networks, *plans, *others}


def test_int8_is_a_fourth_of_the_size(whole: Export) -> None:
    sizes = {name: len(content) for name, content in files(whole.bundle).items()}
    assert sizes["model.int8-cpu.onnx"] < 0.4 * sizes["model.fp32.onnx"]
    assert sizes["model.fp16.onnx"] < 0.6 * sizes["model.fp32.onnx"]


def test_the_closing_screen_compares_explains_and_says_what_to_type(whole: Export) -> None:
    closing = whole.talk[whole.talk.index("export complete in") :].splitlines()
    table = closing[closing.index("precisions") + 1 :]
    assert [line.split()[0] for line in table[1:5]] == ["fp32", "fp16", "int8-cpu", "int8"]
    assert "agreement" in table[0]
    assert max(map(len, table[:5])) <= 80
    assert any(line.startswith("  in float: ") for line in closing)
    assert f"  report: {whole.bundle / 'report.html'}" in closing
    assert "INT8 is" in closing[-2]
    assert closing[-1] == f"next:  yolact-run {whole.bundle} IMAGE -o out"
    assert "nan" not in whole.talk.lower()


def test_the_reports_tell_the_same(whole: Export) -> None:
    report, outside = whole.report(), json.loads(whole.bundle.with_name("report.json").read_bytes())
    assert outside["precision"] == report
    assert {engine["precision"] for engine in outside["engines"]} == {"fp32", "fp16", "int8"}
    assert report["verdict"] in whole.talk
    assert len(report["sensitivity"]) == 13
    page = (whole.bundle / "report.html").read_text(encoding="utf-8")
    assert "int8-cpu" in page
    assert "data:image/jpeg" in page
    assert "data:image/jpeg" not in json.dumps(report), "pictures are for the page"


def test_the_bundle_runs_in_int8_by_default(whole: Export, scenes: Scenes, capsys: pytest.CaptureFixture[str]) -> None:
    assert open_bundle(whole.bundle).manifest.precision == "int8-cpu"
    image = next(iter(sorted(scenes.images.iterdir())))
    assert run_cli.main([str(whole.bundle), str(image), "--json", "-"]) == 0
    talk = capsys.readouterr()
    assert "(int8-cpu)" in talk.err
    assert json.loads(talk.out)["images"][0]["instances"]


def test_a_bundle_that_is_there_gets_the_same_networks_as_an_export(scenes: Scenes, tmp_path: Path) -> None:
    words = ("--int8", "--int8-all", "--fp16", "--calib", scenes.calib, "--guard-images", "2", "--no-guard")
    direct = export(SHAPES, tmp_path / "direct", scenes, *words, "--no-engine")
    later = export(SHAPES, tmp_path / "later", scenes)
    assert (direct.status, later.status) == (0, 0)
    verified = json.loads(files(later.bundle)["report.json"])
    with contextlib.redirect_stderr(io.StringIO()):
        given = ("--threads", "1", "--calibration-cache", scenes.cache)
        assert cli.main([str(word) for word in (later.bundle, *given, *words)]) == 0
    expected, found = files(direct.bundle), files(later.bundle)
    assert set(found) == set(expected)
    networks = [name for name in expected if name.endswith(".onnx")]
    assert len(networks) == 4
    for name in (*networks, "manifest.json"):
        assert found[name] == expected[name], name
    report = json.loads(found["report.json"])
    assert {key: report[key] for key in verified} == verified
    assert [row["drop"] for row in later.report()["variants"]] == [row["drop"] for row in direct.report()["variants"]]


# --- a poisoned network -----------------------------------------------------------------------------------------------

Change = Callable[[dict[str, torch.Tensor]], None]


def poisoned(path: Path, change: Change) -> Path:
    """The model with other weights; torch keeps the note in it."""
    state = torch.load(SHAPES, weights_only=True)
    change(state)
    torch.save(state, path)
    return path


def swell_a_channel(state: dict[str, torch.Tensor]) -> None:
    """One channel ten thousand times as large, and read as if it were not: float computes what it did."""
    state["proto_net.0.weight"][5] *= 1e4
    state["proto_net.0.bias"][5] *= 1e4
    state["proto_net.2.weight"][:, 5] /= 1e4


def swell_a_weight(state: dict[str, torch.Tensor]) -> None:
    """One weight three hundred times as large as any other of its layer, which float survives with half of its AP."""
    weight = state["fpn.pred_layers.1.weight"]
    place = tuple(side // 2 for side in weight.shape)
    weight[place] = weight[place].sign() * 300 * weight.abs().max()


@pytest.fixture(scope="module")
def swollen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return poisoned(tmp_path_factory.mktemp("swollen") / "shapes.pth", swell_a_channel)


@pytest.fixture(scope="module")
def rejected(swollen: Path, scenes: Scenes, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Every convolution in INT8."""
    bundle = tmp_path_factory.mktemp("rejected") / "b"
    words = ("--int8", "--int8-all", "--calib", scenes.calib, *scenes.labels(), "--target", "cpu")
    return export(swollen, bundle, scenes, *words)


def test_a_network_that_loses_too_much_is_status_3(rejected: Export) -> None:
    assert rejected.status == 3
    assert "error: int8-cpu loses" in rejected.talk
    assert "0.5 are allowed: kept as model.int8-cpu.onnx.rejected" in rejected.talk
    assert "REJECTED" in rejected.talk
    assert rejected.report()["guard"]["passed"] is False


def test_it_is_kept_to_be_looked_at_and_in_no_manifest(rejected: Export) -> None:
    assert set(files(rejected.bundle)) == {
        "golden.npz",
        "manifest.json",
        "report.json",
        "report.html",
        "model.fp32.onnx",
        "model.int8-cpu.onnx.rejected",
    }
    assert rejected.precisions() == {"model.fp32.onnx": "fp32", "golden.npz": ""}


def test_the_rest_of_the_bundle_runs(rejected: Export, scenes: Scenes, capsys: pytest.CaptureFixture[str]) -> None:
    image = next(iter(sorted(scenes.images.iterdir())))
    assert run_cli.main([str(rejected.bundle), str(image), "--json", "-"]) == 0
    assert "(fp32)" in capsys.readouterr().err


def test_a_bundle_with_a_rejected_network_is_replaced_and_without_a_guard_all_is_kept(
    rejected: Export, swollen: Path, scenes: Scenes, tmp_path: Path
) -> None:
    shutil.copytree(rejected.bundle, tmp_path / "b")
    words = ("--int8", "--int8-all", "--no-guard", "--calib", scenes.calib, *scenes.labels(), "--target", "cpu")
    found = export(swollen, tmp_path / "b", scenes, *words)
    assert found.status == 0
    assert found.precisions() == {"model.fp32.onnx": "fp32", "model.int8-cpu.onnx": "int8-cpu", "golden.npz": ""}
    assert not [name for name in files(found.bundle) if name.endswith(".rejected")]
    drop = {row["precision"]: row["drop"] for row in found.report()["variants"]}["int8-cpu"]
    assert drop["mask"][0] > 10
    assert found.report()["guard"]["max_drop"] is None
    assert f"{drop['mask'][0]:.2f}" in found.talk


def test_a_channel_beyond_float16_computes_in_float32_and_so_does_its_reader(
    swollen: Path, scenes: Scenes, tmp_path: Path
) -> None:
    """Its reader took infinity from it, and every mask was NaN; ONNX Runtime's float16 showed nothing of that."""
    words = ("--fp16", "--calib", scenes.calib, *scenes.labels(), "--no-engine")
    found = export(swollen, tmp_path / "b", scenes, *words)
    assert found.status == 0
    fp16 = found.report()["variants"][1]
    assert {"proto_net.0", "proto_net.1", "proto_net.2"} <= set(fp16["float32_nodes"])
    assert "; fp16 computes proto_net.0, proto_net.1, proto_net.2 in float32" in found.talk
    assert (
        "in float32: fp16, 3 layers (proto_net.0, proto_net.1, proto_net.2): their values may exceed float16"
        in found.talk
    )
    assert "proto_net.2" in (found.bundle / "report.html").read_text(encoding="utf-8")
    network = onnx.load(found.bundle / "model.fp16.onnx")
    manifest = open_bundle(found.bundle, "fp16").manifest
    data = AnnotatedImages.open(CocoAnnotations.from_file(scenes.annotations), scenes.images)
    Trial(manifest, GuardImages.labelled(data, None), num_threads=1).find(simulate_float16(network))


def test_the_search_keeps_a_swollen_channel_in_float(swollen: Path, scenes: Scenes, tmp_path: Path) -> None:
    words = ("--int8", "--calib", scenes.calib, *scenes.labels(), "--target", "cpu", "--sensitivity-images", "1")
    found = export(swollen, tmp_path / "b", scenes, *words)
    require_not_silently_bad(found, "int8-cpu", scenes)
    assert found.status == 0
    assert "protonet" in {row["group"] for row in found.report()["kept_float"]}
    assert found.report()["search"][0]["drop"]["mask"][0] > 10


def test_a_swollen_weight_is_noticed(scenes: Scenes, tmp_path: Path) -> None:
    checkpoint = poisoned(tmp_path / "shapes.pth", swell_a_weight)
    words = ("--int8", "--calib", scenes.calib, *scenes.labels(), "--target", "cpu")
    found = export(checkpoint, tmp_path / "b", scenes, *words)
    require_not_silently_bad(found, "int8-cpu", scenes)


# --- poisoned images --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dark(scenes: Scenes) -> Path:
    """The same scenes at a sixteenth of their light."""
    folder = scenes.calib.with_name("dark")
    folder.mkdir()
    for path in scenes.calib.iterdir():
        write_image(folder / path.name, (read_image(path) * 0.06).astype(np.uint8))
    return folder


def test_ranges_of_nearly_black_frames_are_noticed_by_labelled_images(
    dark: Path, scenes: Scenes, tmp_path: Path
) -> None:
    words = ("--int8", "--calib", dark, *scenes.labels(), "--target", "cpu")
    found = export(SHAPES, tmp_path / "b", scenes, *words, "--sensitivity-images", "1")
    require_not_silently_bad(found, "int8-cpu", scenes)


def test_frames_in_which_the_model_sees_nothing_leave_the_earlier_bundle_alone(
    dark: Path, rejected: Export, scenes: Scenes, tmp_path: Path
) -> None:
    bundle = tmp_path / "b"
    shutil.copytree(rejected.bundle, bundle)
    before = files(bundle)
    found = export(SHAPES, bundle, scenes, "--int8", "--calib", dark, "--target", "cpu")
    assert found.status == 1
    assert "the float model finds nothing with a confidence above 0.3" in found.talk
    assert files(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--calib", "EMPTY"), 1, "no image"),
        (("--calib", "FEW"), 1, "3 usable images found"),
        (("--calib", "CALIB", "--annotations", "LABELS", "--images", "FEW"), 1, "Is it the right folder?"),
        (("--calib", "CALIB", "--max-drop", "-1"), 2, "--max-drop is a number of points"),
        ((), 2, "need --calib"),
    ],
    ids=["empty", "few", "wrong folder", "limit", "none"],
)
def test_what_cannot_work_ends_before_any_work(
    words: tuple[str, ...], status: int, message: str, scenes: Scenes, tmp_path: Path
) -> None:
    few, empty = tmp_path / "few", tmp_path / "empty"
    few.mkdir()
    empty.mkdir()
    for path in sorted(scenes.calib.iterdir())[:3]:
        (few / path.name).write_bytes(path.read_bytes())
    real: dict[str, Path] = {"EMPTY": empty, "FEW": few, "CALIB": scenes.calib, "LABELS": scenes.annotations}
    found = export(SHAPES, tmp_path / "b", scenes, "--int8", *(real.get(word, word) for word in words))
    assert found.status == status
    assert message in found.talk
    assert "reading" not in found.talk
    assert not (tmp_path / "b").exists()
