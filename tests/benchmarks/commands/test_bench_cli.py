from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.scenes import Thing, with_precisions, write_bundle
from yolact_benchmarks.commands.bench_cli import main
from yolact_benchmarks.facade import bench_session
from yolact_benchmarks.measure.cold_start import measure_cold_start
from yolact_benchmarks.measure.streaming import measure_streaming
from yolact_runtime import Segmenter
from yolact_runtime.errors import BackendError
from yolact_runtime.media.images import encode_image, write_image

THINGS = [Thing((0.25, 0.25, 0.75, 0.75), 0, 0.9), Thing((0.0, 0.0, 0.4, 0.6), 2, 0.6, prototype=1)]
HEIGHT, WIDTH = 40, 60
# Nothing here says how fast anything is: a few frames of a network that does nothing.
QUICK = ["--duration", "0.05", "--warm-up", "0", "--stream", "0", "--cold-starts", "0", "--processes", "1"]
QUICK += ["--size", "128x72"]
FEW = [*QUICK[:-2], "--instances", "found"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_bundle(tmp_path_factory.mktemp("model") / "small.bundle", THINGS)
    with_precisions(folder, "fp32", "int8-cpu", "int8")
    return folder


@pytest.fixture
def labelled(bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two bright pictures in which the network is right, but for a mask that the labels do not have."""
    folder = tmp_path / "images"
    folder.mkdir()
    frame = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    with Segmenter.open(bundle) as segmenter:
        rle = segmenter(frame).mask.rle()[0]
    images, annotations = [], []
    for i in (1, 2):
        write_image(folder / f"{i}.png", frame)
        images.append({"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH})
        one: dict[str, Any] = {"id": i, "image_id": i, "category_id": 1, "segmentation": rle, "iscrowd": 0}
        annotations.append({**one, "bbox": [15, 10, 30, 20], "area": 600.0})
    labels = tmp_path / "labels.json"
    categories = [{"id": 1, "name": "cat"}]
    labels.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return labels, folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_record_the_report_and_the_tables(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("out.json", "out.html", "out.md")]
    words = ["--json", paths[0], "--html", paths[1], "--markdown", paths[2], "--instances", "1,10"]
    assert run(bundle, *QUICK, *words, "--precision", "all", "--threads", 1, "--layers") == 0
    record = json.loads(paths[0].read_text())
    cases = record["results"]["cases"]
    assert [case["name"] for case in cases] == [f"{p} 128x72 {n}" for p in ("fp32", "int8-cpu") for n in (1, 10)]
    for case in cases:
        assert case["found"] == dict.fromkeys(("min", "median", "max"), case["instances"])
        assert len(case["samples_ms"]) == case["latency"]["count"] >= 10
        assert [stage["name"] for stage in case["stages"]] == ["preprocess", "network", "candidates", "nms", "masks"]
        assert sum(stage["share"] for stage in case["stages"]) == pytest.approx(1, abs=0.001)
    assert record["settings"]["threads"] == 1
    assert set(record["results"]["layers"]) == {"fp32", "int8-cpu"}
    assert "Parts of the network" in paths[1].read_text()
    assert record["results"]["machine"]["samples"][0]["yardstick_ms"] > 0
    assert paths[1].read_text().startswith("<!doctype html>")
    assert paths[2].read_text().startswith("### End to end")
    captured = capsys.readouterr()
    assert captured.out.startswith("end to end, ms a frame\n")
    assert max(map(len, captured.out.splitlines())) <= 80
    assert "defaults: --images synthetic --min-confidence 0.3 --backend auto" in captured.err
    assert "left out: int8, which onnxruntime-cpu does not run well" in captured.err
    assert f"next: yolact-bench compare {paths[0]} NEW.json" in captured.err


def test_accuracy_with_labels(bundle: Path, labelled: tuple[Path, Path], tmp_path: Path) -> None:
    labels, folder = labelled
    out = tmp_path / "out.json"
    words = ["--images", folder, "--annotations", labels, "--precision", "fp32,int8-cpu", "--json", out]
    assert run(bundle, *FEW, *words, "--html", tmp_path / "out.html", "-q") == 0
    record = json.loads(out.read_text())
    for model in record["results"]["models"]:
        assert model["accuracy"]["mask"][0] == pytest.approx(1.0)
        assert (model["accuracy"]["measure"], model["accuracy"]["images"]) == ("AP", 2)
    assert record["results"]["cases"][0]["found"]["median"] == 2
    assert "pictures" not in record["results"]
    assert "Accuracy and speed" in (tmp_path / "out.html").read_text()
    assert "No image changed." in (tmp_path / "out.html").read_text()


def test_labels_with_boxes_only_and_a_missing_image(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = labelled
    document = json.loads(labels.read_text())
    for entry in document["annotations"]:
        entry["segmentation"] = None
    labels.write_text(json.dumps(document))
    out = tmp_path / "out.json"
    words = [*FEW, "--images", folder, "--annotations", labels, "--precision", "fp32", "--json", out]
    (folder / "2.png").unlink()
    assert run(bundle, *words) == 1
    assert "--skip-missing continues without them" in capsys.readouterr().err
    assert run(bundle, *words, "--skip-missing", "--html", tmp_path / "out.html") == 0
    (model,) = json.loads(out.read_text())["results"]["models"]
    assert model["accuracy"]["images"] == 1
    assert model["accuracy"]["box"][0] == 1.0
    assert model["accuracy"]["mask"] == [None, None, None]
    said = capsys.readouterr().err
    assert f"warning: {labels}: the labels have boxes only: there is no mask AP" in said
    assert f"warning: {labels}: 1 of 2 images is not in {folder} and skipped: 2.png" in said


def test_labels_are_judged_before_the_speed_is_measured(
    bundle: Path,
    labelled: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels, folder = labelled
    monkeypatch.setattr(bench_session, "run_processes", lambda *_: pytest.fail("nothing may run"))
    write_image(folder / "2.png", np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    assert run(bundle, *FEW, "--images", folder, "--annotations", labels) == 1
    assert "1 of the 2 images" in capsys.readouterr().err


def test_labels_are_judged_by_images_as_they_are_measured(
    bundle: Path,
    labelled: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels, folder = labelled
    monkeypatch.setattr(bench_session, "run_processes", lambda *_: pytest.fail("nothing may run"))
    (folder / "2.png").write_bytes(encode_image(np.full((HEIGHT, WIDTH, 3), 5000, np.uint16), ".png"))
    assert run(bundle, *FEW, "--images", folder, "--annotations", labels, "--bit-depth", 12) == 1
    assert "5000, beyond 4095" in capsys.readouterr().err


def test_agreement_without_labels(
    bundle: Path, labelled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_bundle(tmp_path / "other.bundle", THINGS[:1])
    assert run(bundle, *FEW, "--images", labelled[1], "--against", other, "--precision", "fp32") == 0
    assert "box agreement" in capsys.readouterr().out
    wrong = write_bundle(tmp_path / "wrong.bundle", THINGS[:1])
    manifest = wrong / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"dog"', '"cow"'))
    assert run(bundle, *FEW, "--images", labelled[1], "--against", wrong, "--precision", "fp32") == 1
    assert "different classes" in capsys.readouterr().err


def test_an_unstable_measurement_is_flagged_and_strict_ends_with_7(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_session, "judge_machine", lambda samples: ("others were busy",))
    assert run(bundle, *QUICK, "--instances", "1") == 0
    captured = capsys.readouterr()
    assert "warning: unstable, all configurations: others were busy" in captured.err
    assert captured.out.splitlines()[2].endswith("!")
    assert run(bundle, *QUICK, "--instances", "1", "--strict", "-q") == 7
    assert "error: the measurement is unstable" in capsys.readouterr().err


def test_fresh_processes_share_the_time(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    words = ["--instances", "1", "--precision", "fp32,int8-cpu", "--processes", "2", "--stream", "0.1", "--json", out]
    assert run(bundle, *QUICK, *words) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "more than once" not in line]
    assert lines[1] == "2 fresh processes, one after the other; in each:"
    assert any(line.startswith("measuring 2 configurations interleaved, 0.025 s each after 0 s of") for line in lines)
    assert any(re.fullmatch(r"about \d+ s in total, with 2 processes and streaming", line) for line in lines)
    assert len([line for line in lines if "(fp32) on onnxruntime-cpu" in line]) == 1, "the first process speaks for all"
    results = json.loads(out.read_text())["results"]
    assert [model["precision"] for model in results["models"]] == ["fp32", "int8-cpu"]
    for case in results["cases"]:
        assert len(case["processes"]) == case["latency"]["processes"] == 2
        assert sum(case["processes"]) == len(case["samples_ms"]) == len(case["seconds"])
        assert case["seconds"] == sorted(case["seconds"])
        assert case["streaming"]["frames"] > 0
    assert "frames each, from 2 processes" in captured.out
    assert run(tmp_path / "none.bundle", *QUICK, "--processes", "2") == 1
    assert "no model at" in capsys.readouterr().err
    assert run(bundle, *QUICK, "--processes", "2", "--instances", "31") == 2
    assert "can return 0 to 30 instances, found 31" in capsys.readouterr().err


def test_json_on_stdout_is_all_that_is_there(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle / "model.fp32.onnx", *QUICK, "--instances", "1", "--json", "-") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["benchmark"] == "yolact-bench"
    assert "end to end" in captured.err
    assert run(bundle, *QUICK, "--instances", "1", "--markdown", "-", "-q") == 0
    assert capsys.readouterr().out.startswith("### End to end")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--instances", "few"], "--instances takes numbers"),
        (["--precision", ","], "--precision takes names of networks"),
        (["--instances", "31"], "can return 0 to 30 instances, found 31"),
        (["--size", "big"], "--size takes widths and heights"),
        (["--until-ci", "1000%"], "--until-ci takes a part"),
        (["--duration", "-1"], "--duration is a number of seconds, above 0 to 86400; found -1"),
        (["--duration", "0"], "--duration is a number of seconds, above 0 to 86400; found 0"),
        (["--duration", "nan"], "--duration is a number of seconds, above 0"),
        (["--duration", "1e9"], "--duration is a number of seconds, above 0"),
        (["--stream", "inf"], "--stream is a number of seconds, from 0 to 86400; found inf"),
        (["--threads", "-1"], "--threads must lie between 0 and "),
        (["--min-confidence", "2"], "--min-confidence must lie between 0 and 1, found 2.0"),
        (["--images", ".", "--bit-depth", "3"], "--bit-depth is the number of significant bits"),
        (["--precision", "fp8,fp32,all"], 'small.bundle has no network in "fp8"; it has fp32, int8-cpu, int8'),
        (["--cold-starts", "-1"], "--cold-starts is 0 or more"),
        (["--processes", "0"], "--processes is 1 or more"),
        (["--images", ".", "--skip-missing"], "--skip-missing has no effect without --annotations"),
        (["--annotations", "a.json"], "--annotations has no effect without pictures; add --images DIR"),
        (["--images", "synthetic", "x"], "not both"),
        (["--images", ".", "--against", "none.bundle"], "against: none.bundle does not exist"),
        (["--peers", "--checkpoint", "none.pth"], "checkpoint: none.pth does not exist"),
        (["--html", "out.txt"], "--html writes .htm or .html files"),
        (["--html", "nowhere/out.html"], "there is no folder"),
        (["--json", "-", "--markdown", "-"], "would both write to stdout"),
        (["--json", ""], "an empty word behind --json"),
        (["--html", ""], "an empty word behind --html"),
        (["--html", "nowhere/x.html"], "mkdir -p nowhere"),
        (["--backend", "coffee"], "--backend: 'coffee' is not one of its values"),
    ],
)
def test_words_that_make_no_sense_end_with_2(
    bundle: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    words = words if "--size" in words or "--images" in words else [*words, "--size", "128x72"]
    assert run(bundle, *words) == 2
    assert message in capsys.readouterr().err


def test_a_size_does_not_belong_to_pictures(
    bundle: Path, labelled: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--images", labelled[1], "--size", "128x72") == 2
    assert "--size has no effect on pictures, which have sizes of their own; leave it out" in capsys.readouterr().err
    assert run(bundle / "model.fp32.onnx", *QUICK, "--precision", "fp32") == 2
    assert "--precision has no effect on a file, which holds one network; name the bundle" in capsys.readouterr().err


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.bundle", *QUICK) == 1
    assert "no model at" in capsys.readouterr().err


def test_a_cold_start_is_a_process_of_its_own(bundle: Path, tmp_path: Path) -> None:
    found = measure_cold_start(bundle, "onnxruntime-cpu", "fp32", 1, (64, 48), repeats=1)
    assert found["processes"] == 1
    parts = [found[name] for name in ("python", "import", "open", "first_frame")]
    assert sum(parts) == pytest.approx(found["to_first_result"], abs=0.05)
    assert found["peak_memory_mb"] is None or found["peak_memory_mb"] > 10
    with pytest.raises(BackendError, match="a fresh process could not run"):
        measure_cold_start(tmp_path / "none", "auto", None, 1, (64, 48), repeats=1)


def test_streaming_goes_through_the_segmenters_own_stream() -> None:
    from yolact_benchmarks.measure.frames import drawn_frames

    now = [0.0]

    class Streaming:
        def stream(self, frames: Any) -> Any:
            for _ in frames:
                now[0] += 0.125
                yield None

    frames = drawn_frames(64, 64, count=2)
    found = measure_streaming(Streaming(), frames, 2.0, lambda: now[0])  # type: ignore[arg-type]
    assert found == {"fps": 8.0, "frames": 16, "seconds": 2.0}
    assert "no Segmenter.stream" in measure_streaming(object(), frames, 2.0)["not_measured"]  # type: ignore[arg-type]

    class Empty:
        def stream(self, frames: Any) -> Any:
            return iter(())

    assert "ended after fewer" in measure_streaming(Empty(), frames, 2.0)["not_measured"]  # type: ignore[arg-type]


def test_help_comes_at_once() -> None:
    code = "import sys; from yolact_benchmarks.commands.bench_cli import main\n"
    code += "main(['--help'])\n"
    code += "print(sorted({n.partition('.')[0] for n in sys.modules} & {'onnxruntime', 'torch', 'cv2', 'onnx'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
