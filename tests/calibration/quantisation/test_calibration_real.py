"""A trained network and pictures of what it was trained on, from files to ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from support.training_data import write_scenes
from yolact_calibration.quantisation import segmented_network
from yolact_calibration.quantisation.calibration_cache import Calibration, calibrate
from yolact_calibration.quantisation.calibration_images import find_calibration_images
from yolact_calibration.quantisation.ranges import Grid, RangeMethod, choose_range, judge_range
from yolact_export.commands import cli as export_cli
from yolact_runtime.model.bundle import MANIFEST_NAME
from yolact_runtime.model.manifest import Manifest

MODEL = Path(__file__).parents[3] / "examples" / "models" / "shapes.pth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    assert export_cli.main([str(MODEL), "-o", str(folder / "shapes.bundle"), "--quiet"]) == 0
    write_scenes(folder / "scenes", 10, size=160, seed=77)
    return folder


def observed(folder: Path, cache: str) -> Calibration:
    bundle = folder / "shapes.bundle"
    path = bundle / "model.fp32.onnx"
    graph = onnx.load(path).graph
    tensors = dict.fromkeys(
        name
        for node in graph.node
        for name in (*node.input[:1], *node.output)
        if node.op_type in {"Conv", "Relu", "Add", "MaxPool"}
    )
    spec = Manifest.from_json((bundle / MANIFEST_NAME).read_bytes(), str(bundle)).input
    images = find_calibration_images([str(folder / "scenes" / "images")])
    return calibrate(path, tuple(tensors), images, spec, cache=folder / cache)


def test_ranges_of_a_trained_network_keep_its_values(folder: Path) -> None:
    found = observed(folder, "parts")
    assert len(found.histograms) > 80
    for name, histogram in found.histograms.items():
        quality = [
            judge_range(histogram, choose_range(histogram, method, Grid.INT8), Grid.INT8)
            for method in (RangeMethod.MSE, RangeMethod.MINMAX)
        ]
        assert quality[0].sqnr_db > 20, name
        assert quality[0].sqnr_db >= quality[1].sqnr_db - 0.01, name
        assert quality[0].clipped < 0.01, name


def test_parts_of_a_network_compute_what_the_whole_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = observed(folder, "parts")
    monkeypatch.setattr(segmented_network, "_BYTES_AT_ONCE", 10**12)
    whole = observed(folder, "whole")
    assert list(parts.histograms) == list(whole.histograms)
    for name, histogram in parts.histograms.items():
        other = whole.histograms[name]
        largest = max(-other.low, other.high)
        assert histogram.num_values == other.num_values
        assert [histogram.low, histogram.high] == pytest.approx([other.low, other.high], abs=1e-4 * largest)
        # Values at the edge of a bin may fall to the other side.
        assert np.abs(histogram.counts - other.counts).sum() <= 0.01 * other.num_values, name
