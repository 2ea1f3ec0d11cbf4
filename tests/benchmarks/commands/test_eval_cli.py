from __future__ import annotations

import dataclasses
import itertools
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.hostile_labels import hostile_documents
from support.scenes import Thing, small_manifest, write_bundle
from yolact_benchmarks.commands.eval_cli import main
from yolact_calibration.evaluation.accuracy import measure_accuracy
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_runtime import Segmenter
from yolact_runtime.errors import BackendError
from yolact_runtime.media.images import write_image

THINGS = [
    Thing((0.25, 0.25, 0.75, 0.75), class_id=0, confidence=0.9),
    Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1),
]
BRIGHT, DARK = 255, 0
HEIGHT, WIDTH = 40, 60


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sees a cat and a bird in bright pictures and nothing in dark ones."""
    return write_bundle(tmp_path_factory.mktemp("model") / "small.bundle", THINGS)


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sees the cat less surely, and a dog instead of the bird."""
    things = [Thing(THINGS[0].xyxy, 0, 0.7), Thing((0.6, 0.6, 0.9, 0.9), 1, 0.5)]
    return write_bundle(tmp_path_factory.mktemp("model") / "worse.bundle", things)


def _entry(number: int, image_id: int, category_id: int, xyxy: tuple[int, int, int, int]) -> dict[str, Any]:
    left, top, right, bottom = xyxy
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
        "bbox": [left, top, right - left, bottom - top],
        "area": float((right - left) * (bottom - top)),
        "iscrowd": 0,
    }


@pytest.fixture
def labelled(bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Annotations and images: two bright pictures with a cat each, of which one has a dog too, and a dark one.

    The cats' masks are those that the bundle finds.
    """
    folder = tmp_path / "images"
    folder.mkdir()
    for name, level in (("a.png", BRIGHT), ("b.png", BRIGHT), ("c.png", DARK)):
        write_image(folder / name, np.full((HEIGHT, WIDTH, 3), level, np.uint8))
    with Segmenter.open(bundle) as segmenter:
        cat = segmenter(np.full((HEIGHT, WIDTH, 3), BRIGHT, np.uint8)).mask.rle()[0]
    document = {
        "images": [
            {"id": i, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH} for i, name in enumerate("abc", 1)
        ],
        "categories": [{"id": 4, "name": "Cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            _entry(1, 1, 4, (15, 10, 45, 30)) | {"segmentation": cat},
            _entry(2, 2, 4, (15, 10, 45, 30)) | {"segmentation": cat},
            _entry(3, 2, 2, (0, 0, 9, 9)),
        ],
    }
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(document))
    return labels, folder


def _run(*words: object) -> int:
    return main([str(word) for word in words])


def _json(path: Path, *words: object, status: int = 0) -> Any:
    assert _run(*words, "--json", path, "--bootstrap", 50) == status
    return json.loads(path.read_bytes())


# --- with labels ------------------------------------------------------------------------------------------------------


def test_the_json_document_has_the_figures_of_measure_accuracy(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    labels, folder = labelled
    document = _json(tmp_path / "out.json", bundle, "--annotations", labels, "--images", folder)
    annotations = CocoAnnotations.from_file(labels)
    with Segmenter.open(bundle) as segmenter:
        found = segmenter(np.full((HEIGHT, WIDTH, 3), BRIGHT, np.uint8))
        empty = segmenter(np.full((HEIGHT, WIDTH, 3), DARK, np.uint8))
        expected = measure_accuracy(annotations, {1: found, 2: found, 3: empty}, segmenter.class_names)
    for kind, figures in (("bbox", expected.bbox), ("segm", expected.segm)):
        for name, value in figures.items():
            assert document[kind][name] == value
    # The cats are found to the pixel and the dog is not.
    assert document["segm"]["AP"] == pytest.approx(0.5)
    assert document["segm"]["by_class"]["Cat"]["AP"] == 1.0
    assert document["segm"]["AP_large"] is None
    assert (document["images"], document["instances"]) == (3, {"Cat": 2, "dog": 1})
    assert document["model"]["precision"] == "fp32"
    assert document["annotations"]["sha256"] == annotations.sha256
    assert "bird" in document["findings"][0]
    interval = document["intervals"]["segm"]["AP"]
    assert interval["low"] <= interval["estimate"] <= interval["high"]
    assert document["intervals"]["resamples"] == 50


def test_the_table_is_on_stdout_and_the_talk_on_stderr(
    bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    assert _run(bundle, "--annotations", labels, "--images", folder, "--bootstrap", 20) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["AP", "95", "%", "interval", "AP50", "AP75", "small", "medium", "large"]
    assert lines[1].split()[:2] == ["box", "0.500"]
    assert lines[2].split()[:2] == ["mask", "0.500"]
    assert lines[2].split()[-1] == "-"
    assert [line.split()[:2] for line in lines[5:7]] == [["Cat", "2"], ["dog", "1"]]
    assert lines[-1].startswith("3 images, 3 instances, ")
    assert "small (fp32) on onnxruntime-" in captured.err
    assert "warning: 1 of the model's 3 classes are not in the data set" in captured.err


def test_json_on_stdout_is_all_that_is_there(
    bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    assert _run(bundle, "--annotations", labels, "--images", folder, "--bootstrap", 0, "--json", "-") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["images"] == 3
    assert captured.out.count("\n") == 1
    assert "mask" in captured.err
    assert "intervals" not in json.loads(captured.out)


def test_limit_takes_the_first_images_by_id(bundle: Path, labelled: tuple[Path, Path], tmp_path: Path) -> None:
    labels, folder = labelled
    (folder / "b.png").unlink()
    document = _json(tmp_path / "out.json", bundle, "--annotations", labels, "--images", folder, "--limit", 1)
    assert (document["images"], document["segm"]["AP"]) == (1, 1.0)


def test_the_model_file_alone(bundle: Path, labelled: tuple[Path, Path], tmp_path: Path) -> None:
    labels, folder = labelled
    words = ["--annotations", labels, "--images", folder, "--backend", "onnxruntime-cpu", "--threads", 1]
    document = _json(tmp_path / "out.json", bundle / "model.fp32.onnx", *words)
    assert document["segm"]["AP"] == pytest.approx(0.5)
    assert document["model"]["backend"] == "onnxruntime-cpu"


def test_verbose_shows_every_class(
    bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    document = json.loads(labels.read_text())
    names = [f"kind {i:02d}" for i in range(30)]
    document["categories"] += [{"id": 100 + i, "name": name} for i, name in enumerate(names)]
    document["annotations"] += [_entry(100 + i, 1, 100 + i, (0, 0, 9, 9)) for i in range(30)]
    labels.write_text(json.dumps(document))
    assert _run(bundle, "--annotations", labels, "--images", folder, "--bootstrap", 0) == 0
    short = capsys.readouterr().out
    assert "... and 12 more classes; -v shows them all" in short
    assert _run(bundle, "--annotations", labels, "--images", folder, "--bootstrap", 0, "-v") == 0
    whole = capsys.readouterr().out
    assert all(name in whole for name in names)
    assert not all(name in short for name in names)


def test_missing_images_are_counted_and_named_before_anything_runs(
    bundle: Path, labelled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    for name in "ac":
        (folder / f"{name}.png").unlink()
    monkeypatch.setattr(Segmenter, "__call__", lambda *_: pytest.fail("nothing may run"))
    assert _run(bundle, "--annotations", labels, "--images", folder) == 1
    errors = capsys.readouterr().err
    assert f"2 of the 3 images of {labels} are not in {folder}: a.png, c.png" in errors
    assert "--skip-missing continues without them" in errors


def test_an_image_of_another_size(
    bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    write_image(folder / "b.png", np.full((WIDTH, HEIGHT, 3), BRIGHT, np.uint8))
    assert _run(bundle, "--annotations", labels, "--images", folder) == 1
    assert "b.png is 40 x 60 pixels, its annotations say 60 x 40" in capsys.readouterr().err


def _change(labels: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(labels.read_text())
    change(document)
    labels.write_text(json.dumps(document))


def test_null_as_a_crowd_changes_nothing(bundle: Path, labelled: tuple[Path, Path], tmp_path: Path) -> None:
    """pylabel and others write null for a field that they do not know."""
    labels, folder = labelled
    before = _json(tmp_path / "a.json", bundle, "--annotations", labels, "--images", folder)

    def change(document: dict[str, Any]) -> None:
        for entry in document["annotations"]:
            entry["iscrowd"] = None

    _change(labels, change)
    after = _json(tmp_path / "b.json", bundle, "--annotations", labels, "--images", folder)
    assert (after["bbox"], after["segm"]) == (before["bbox"], before["segm"])


@pytest.mark.parametrize("name", ["Cat", "pets", "_background_"])
def test_a_placeholder_category_changes_nothing_and_is_said(
    name: str, bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    before = _json(tmp_path / "a.json", bundle, "--annotations", labels, "--images", folder)
    placeholder = {"id": 0, "name": name, "supercategory": "none"}
    _change(labels, lambda document: document["categories"].insert(0, placeholder))
    after = _json(tmp_path / "b.json", bundle, "--annotations", labels, "--images", folder)
    assert (after["bbox"], after["segm"], after["instances"]) == (before["bbox"], before["segm"], before["instances"])
    assert f"warning: {after['findings'][0]}" in capsys.readouterr().err
    assert f"{name} (id 0)" in after["findings"][0]


def test_a_stray_click_beside_an_outline_is_counted(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    before = _json(tmp_path / "a.json", bundle, "--annotations", labels, "--images", folder)
    _change(labels, lambda document: document["annotations"][2]["segmentation"].append([12.0, 30.0, 12.0, 30.0]))
    after = _json(tmp_path / "b.json", bundle, "--annotations", labels, "--images", folder)
    assert after["segm"] == before["segm"]
    assert "warning: left out: 1 piece with fewer than 3 different points" in capsys.readouterr().err
    assert "3 in b.png" in after["findings"][0]


def test_labels_with_boxes_only_give_box_ap_and_say_so(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled

    def change(document: dict[str, Any]) -> None:
        for entry in document["annotations"]:
            entry["segmentation"] = []

    _change(labels, change)
    document = _json(tmp_path / "out.json", bundle, "--annotations", labels, "--images", folder)
    assert document["bbox"]["AP"] == pytest.approx(0.5)
    assert document["segm"] is None
    assert "segm" not in document["intervals"]
    captured = capsys.readouterr()
    assert "mask  none: the labels have boxes only" in captured.out
    assert "warning: the labels have boxes only (3 annotations without a segmentation)" in captured.err


def test_missing_images_are_skipped_on_demand_and_counted(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    (folder / "b.png").unlink()
    words = [bundle, "--annotations", labels, "--images", folder, "--skip-missing"]
    document = _json(tmp_path / "out.json", *words)
    assert (document["images"], document["instances"]) == (2, {"Cat": 1, "dog": 0})
    finding = f"1 of 3 images is not in {folder} and skipped: b.png"
    assert finding in document["findings"]
    assert f"warning: {finding}" in capsys.readouterr().err
    assert _run(bundle, "--against", bundle, "--images", folder, "--skip-missing") == 2


def test_images_outside_of_their_folder_are_read_on_demand_only(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    (folder / "b.png").rename(tmp_path / "b.png")
    _change(labels, lambda document: document["images"][1].update(file_name="..\\b.png"))
    words = [bundle, "--annotations", labels, "--images", folder]
    assert _run(*words) == 1
    assert "1 of the 3 images" in (said := capsys.readouterr().err)
    assert "is outside of" in said
    document = _json(tmp_path / "out.json", *words, "--allow-outside")
    assert document["segm"]["AP"] == pytest.approx(0.5)


def test_hostile_labels_never_end_in_a_traceback(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample of what the reader's own test tries whole."""
    for name in "123":
        write_image(tmp_path / f"{name}.png", np.full((24, 32, 3), BRIGHT, np.uint8))
    labels = tmp_path / "labels.json"
    statuses: Counter[int] = Counter()
    with Segmenter.open(bundle) as segmenter, pytest.MonkeyPatch.context() as patch:
        # Opened once: the model is not what is tried.
        patch.setattr(Segmenter, "open", lambda *_, **__: segmenter)
        patch.setattr(Segmenter, "__exit__", lambda *_: None)
        for kind, document in itertools.islice(hostile_documents(), 0, None, 20):
            labels.write_text(json.dumps(document))
            words = [bundle, "--annotations", labels, "--images", tmp_path, "--bootstrap", 0, "--json", "-"]
            status = _run(*words)
            statuses[status] += 1
            captured = capsys.readouterr()
            assert "Traceback" not in captured.err, kind
            if status == 0:
                assert not re.search("NaN|Infinity", captured.out), kind
                json.loads(captured.out)
            else:
                assert captured.err.splitlines()[-1].startswith("error: "), kind
    assert set(statuses) == {0, 1}


def test_an_image_that_cannot_be_read_ends_the_evaluation(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    (folder / "b.png").write_bytes(b"no image")
    assert _run(bundle, "--annotations", labels, "--images", folder, "--json", tmp_path / "out.json") == 1
    captured = capsys.readouterr()
    assert f"cannot read {folder / 'b.png'}" in captured.err
    assert captured.out == ""
    assert not (tmp_path / "out.json").exists()


def test_a_network_that_fails_names_the_image(
    bundle: Path, labelled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled

    def call(self: Segmenter, frame: Any) -> Any:
        raise BackendError("the network output holds NaN")

    monkeypatch.setattr(Segmenter, "__call__", call)
    assert _run(bundle, "--annotations", labels, "--images", folder) == 1
    assert f"error: {folder / 'a.png'}: the network output holds NaN" in capsys.readouterr().err


def test_no_class_in_common(bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    labels, folder = labelled
    labels.write_text(labels.read_text().replace("Cat", "tram").replace("dog", "tree"))
    assert _run(bundle, "--annotations", labels, "--images", folder) == 1
    assert "no class in common; the model has cat, dog, bird, the data set tram, tree" in capsys.readouterr().err


# --- against another model --------------------------------------------------------------------------------------------


def test_a_model_agrees_with_itself(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = labelled
    document = _json(tmp_path / "out.json", bundle, "--against", bundle, "--images", folder)
    assert document["bbox"]["AP"] == document["segm"]["AP"] == document["pairs"]["mask_iou"] == 1.0
    assert (document["pairs"]["max_shift"], document["pairs"]["extra"], document["worst"]) == (0.0, 0, [])
    assert document["instances"] == {"cat": 2, "bird": 2}
    assert document["intervals"]["segm"]["AP"] == {"estimate": 1.0, "low": 1.0, "high": 1.0}
    assert "found again          1.000 (1.000 to 1.000) of 4 instances" in capsys.readouterr().out


def test_float16_on_a_cpu_is_said_to_be_no_engine(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = write_bundle(tmp_path / "half.bundle", THINGS, dataclasses.replace(small_manifest(), precision="fp16"))
    _, folder = labelled
    document = _json(tmp_path / "out.json", half, "--precision", "fp16", "--against", bundle, "--images", folder)
    assert "note" not in document["reference"]
    assert document["model"]["note"].startswith("ONNX Runtime computes the float16 of fp16 in float32 on a CPU")
    assert f"warning: {document['model']['note']}" in " ".join(capsys.readouterr().err.split())


def test_a_worse_model(
    bundle: Path, worse: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = labelled
    document = _json(tmp_path / "out.json", worse, "--against", bundle, "--images", folder / "*.png")
    assert document["segm"]["AP"] == pytest.approx(0.5)
    assert document["pairs"]["matched"] == 0.5
    assert document["pairs"]["extra"] == 2
    assert document["pairs"]["shift"] == pytest.approx(-0.2, abs=1e-5)
    assert [Path(image["name"]).name for image in document["worst"]] == ["a.png", "b.png"]
    assert (document["model"]["file"], document["reference"]["file"]) == (str(worse), str(bundle))
    out = capsys.readouterr().out
    assert "score shift          -0.2000" in out
    assert f"0.667  {folder / 'a.png'}: 1 of 2 found again, 1 extra" in out


def test_files_a_limit_and_a_threshold(bundle: Path, worse: Path, labelled: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = labelled
    words = ["--against", worse, "--images", folder / "a.png", folder / "c.png", "--limit", 1, "--min-confidence", 0.6]
    document = _json(tmp_path / "out.json", bundle, *words)
    assert (document["images"], document["instances"], document["min_confidence"]) == (1, {"cat": 1}, 0.6)


def test_a_reference_that_finds_nothing_is_said(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = labelled
    document = _json(tmp_path / "out.json", bundle, "--against", bundle, "--images", folder / "c.png")
    assert document["segm"]["AP"] is None
    assert "warning: the reference finds nothing with a confidence above 0.3" in capsys.readouterr().err


def test_models_of_different_classes(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = labelled
    other = write_bundle(tmp_path / "other.bundle", THINGS, small_manifest(class_names=("cat", "cow", "bird")))
    assert _run(bundle, "--against", other, "--images", folder) == 1
    assert 'class 1 is "dog" in one and "cow" in the other' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"), [("missing.png", "No such file or directory"), ("no*.png", "no file matches")]
)
def test_images_that_are_not_there(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    assert _run(bundle, "--against", bundle, "--images", tmp_path / word) == 1
    assert message in capsys.readouterr().err


# --- words and exit statuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["MODEL", "--images", "DIR"],
        ["MODEL", "--annotations", "a.json"],
        ["MODEL", "--annotations", "a.json", "--against", "B", "--images", "DIR"],
        ["MODEL", "--annotations", "a.json", "--images", "DIR", "--limit", "few"],
    ],
)
def test_words_that_cannot_be_parsed_end_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert re.fullmatch(r"error: .*; see yolact-eval --help\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "0"], "--limit must be 1 or more, found 0"),
        (["--bootstrap", "-1"], "--bootstrap must be 0 or more, found -1"),
        (["--seed", "-1"], "--seed must be 0 or more, found -1"),
        (["--threads", "-3"], "--threads must lie between 0 and "),
        (["--min-confidence", "0.5"], "--min-confidence has no effect without --against"),
        (["--backend", "openvino"], "--backend: 'openvino' is not one of its values; choose auto, tensorrt"),
        (["--json", ""], "there is an empty word behind --json"),
    ],
)
def test_words_that_make_no_sense_end_with_2(
    bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    labels, folder = labelled
    assert _run(bundle, "--annotations", labels, "--images", folder, *words) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_a_precision_that_the_bundle_does_not_have_ends_with_2(
    bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    assert _run(bundle, "--annotations", labels, "--images", folder, "--precision", "fp8") == 2
    assert f'error: {bundle} has no network in "fp8"; it has fp32' in capsys.readouterr().err


def test_a_threshold_beyond_1_ends_with_2(
    bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(bundle, "--against", bundle, "--images", labelled[1], "--min-confidence", "1.5") == 2
    assert "error: --min-confidence must be 0 or more and below 1, found 1.5" in capsys.readouterr().err


def test_labels_need_one_folder(bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    labels, folder = labelled
    for words, found in (
        ([folder / "a.png"], f"{folder / 'a.png'} is not a folder"),
        (["nowhere"], "nowhere is missing"),
        ([folder, folder], f"found 2 names, {folder} first"),
    ):
        assert _run(bundle, "--annotations", labels, "--images", *words) == 2
        said = capsys.readouterr().err
        assert "annotations need one folder of images" in said
        assert found in said


def test_an_interruption_ends_with_130(
    bundle: Path, labelled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, folder = labelled

    def call(self: Segmenter, frame: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Segmenter, "__call__", call)
    assert _run(bundle, "--annotations", labels, "--images", folder) == 130


def test_as_a_program_without_the_evaluator(bundle: Path, labelled: tuple[Path, Path]) -> None:
    code = "import sys; sys.modules['faster_coco_eval'] = None\nfrom yolact_benchmarks.commands.eval_cli import main\n"
    labels, folder = labelled
    words = [str(bundle), "--annotations", str(labels), "--images", str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit(main(sys.argv[1:]))", *words], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert 'pip install "yolact-deploy[eval]"' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_evaluation_that_is_stopped_leaves_no_figures(
    bundle: Path,
    labelled: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    status: int,
) -> None:
    """A figure is of all images or of none: an earlier document stays, and nothing looks like a new one."""
    labels, folder = labelled
    out = tmp_path / "out.json"
    out.write_text('{"earlier": 1}')
    call = Segmenter.__call__
    calls: list[None] = []

    def stopped(self: Segmenter, frame: Any) -> Any:
        calls.append(None)
        if len(calls) == 2:
            signal.raise_signal(number)
        return call(self, frame)

    monkeypatch.setattr(Segmenter, "__call__", stopped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert _run(bundle, "--annotations", labels, "--images", folder, "--json", out) == status
    finally:
        signal.signal(signal.SIGINT, before)
    assert out.read_text() == '{"earlier": 1}'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "labels.json", "out.json"]
    assert capsys.readouterr().out == ""


def test_the_bit_depth_reaches_both_measures_and_what_is_left_out_is_said(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((40, 60), 4095, np.uint16))
    (tmp_path / "notes.txt").write_text("no picture")
    words = (bundle, "--against", bundle, "--images", tmp_path, "--bootstrap", 0)
    assert _run(*words) == 0
    printed = capsys.readouterr()
    assert "the reference finds nothing" in printed.err
    assert "add --bit-depth 12;" in printed.err
    assert "warning: 1 file is left out: 1 that is neither image nor video (notes.txt)" in printed.err
    assert _run(*words, "--bit-depth", 12) == 0
    assert "the reference finds nothing" not in capsys.readouterr().err
