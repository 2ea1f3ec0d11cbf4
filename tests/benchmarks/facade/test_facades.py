"""`yolact_benchmarks`' functions and its commands give the same figures, and the functions write to no terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import yolact_benchmarks
from support.scenes import Thing, write_bundle
from yolact_benchmarks.commands import bench_cli, eval_cli
from yolact_runtime.media.images import write_image

THINGS = [Thing((0.25, 0.25, 0.75, 0.75), 0, 0.9), Thing((0.0, 0.0, 0.4, 0.6), 2, 0.6, prototype=1)]
QUICK = ["--duration", "0.05", "--warm-up", "0", "--stream", "0", "--cold-starts", "0", "--processes", "1"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "small.bundle", THINGS)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, and labels of the cat in both."""
    folder = tmp_path_factory.mktemp("photos")
    images, annotations = [], []
    for i in (1, 2):
        write_image(folder / f"{i}.png", np.full((40, 60, 3), 255, np.uint8))
        images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 60})
        outline = [[15, 10, 45, 10, 45, 30, 15, 30]]
        one = {"id": i, "image_id": i, "category_id": 1, "segmentation": outline, "iscrowd": 0}
        annotations.append({**one, "bbox": [15, 10, 30, 20], "area": 600.0})
    document = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": annotations}
    (folder / "labels.json").write_text(json.dumps(document))
    return folder


def figures(document: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in document.items() if key != "seconds"}


@pytest.mark.parametrize("against", [False, True], ids=["labels", "reference"])
def test_the_function_and_the_command_evaluate_alike(
    against: bool, bundle: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = yolact_benchmarks.EvaluationOptions(num_resamples=20, seed=3)
    images = [photos / "1.png", photos / "2.png"] if against else str(photos)
    truth = {"against": bundle} if against else {"annotations": photos / "labels.json"}
    result = yolact_benchmarks.evaluate(bundle, images, options=options, **truth)  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")
    option, path = ("--against", bundle) if against else ("--annotations", photos / "labels.json")
    words = [*([str(image) for image in images] if against else [str(photos)]), "--bootstrap", "20", "--seed", "3"]
    out = tmp_path / "out.json"
    assert eval_cli.main([str(bundle), option, str(path), "--images", *words, "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    assert figures(json.loads(json.dumps(result.document()))) == figures(document)
    assert (result.box_ap, result.mask_ap) == (document["bbox"]["AP"], document["segm"]["AP"])
    assert result.mask_ap is not None


def test_an_evaluation_needs_one_truth_and_options_that_fit_it(bundle: Path, photos: Path) -> None:
    evaluate, error = yolact_benchmarks.evaluate, yolact_benchmarks.UsageError
    with pytest.raises(error, match="give either annotations"):
        evaluate(bundle, photos)
    with pytest.raises(error, match="give either annotations"):
        evaluate(bundle, photos, annotations=photos / "labels.json", against=bundle)
    options = yolact_benchmarks.EvaluationOptions(min_confidence=0.5)
    with pytest.raises(error, match="min_confidence has no effect on annotations"):
        evaluate(bundle, photos, annotations=photos / "labels.json", options=options)
    with pytest.raises(yolact_benchmarks.NoNetworkError, match='no network in "fp8"'):
        evaluate(bundle, photos, against=bundle, precision="fp8")


def test_the_function_and_the_command_measure_the_same_cases(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = yolact_benchmarks.BenchmarkOptions(num_processes=1, num_cold_starts=0, streaming_s=0.0)
    plan = yolact_benchmarks.Plan(0.05, None, 0.0)
    result = yolact_benchmarks.benchmark(bundle, sizes=[(128, 72)], instances=[1, None], plan=plan, options=options)
    assert capfd.readouterr() == ("", "")
    out = tmp_path / "out.json"
    words = [*QUICK, "--size", "128x72", "--instances", "1,found", "--json", str(out)]
    assert bench_cli.main([str(bundle), *words]) == 0
    record = json.loads(out.read_text())
    assert set(result.record) == set(record)
    assert [case["name"] for case in result.cases] == [case["name"] for case in record["results"]["cases"]]
    assert {**result.record["settings"], "defaults": []} == {**record["settings"], "defaults": []}
    assert isinstance(result.is_stable, bool)
    assert result.markdown().startswith("### End to end")
    assert result.html().startswith("<!doctype html>")


def test_contradictions_are_refused_before_anything_is_measured(bundle: Path, photos: Path) -> None:
    benchmark, error = yolact_benchmarks.benchmark, yolact_benchmarks.UsageError
    with pytest.raises(error, match="sizes are those of drawn frames"):
        benchmark(bundle, photos, sizes=[(128, 72)])
    with pytest.raises(error, match="need pictures"):
        benchmark(bundle, annotations=photos / "labels.json")
    with pytest.raises(error, match=r"against: none\.bundle does not exist"):
        benchmark(bundle, photos, against="none.bundle")
    with pytest.raises(error, match=r"sizes must be a list, such as \[\(1280, 720\)\]; found 128"):
        benchmark(bundle, sizes=(128, 72))  # type: ignore[arg-type]
    with pytest.raises(error, match="instances must be a list"):
        benchmark(bundle, instances=10)  # type: ignore[arg-type]
    with pytest.raises(yolact_benchmarks.NoNetworkError, match='no network in "int8"'):
        benchmark(bundle, precisions="int8")
    with pytest.raises(error, match="num_processes"):
        yolact_benchmarks.BenchmarkOptions(num_processes=0)
