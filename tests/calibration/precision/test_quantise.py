"""Networks of other precisions without a bundle: the same that an export would write, and nothing is written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.precision_trials import make_frames, write_small_bundle
from yolact_calibration import CalibrationError, DatasetError, PrecisionOptions, UsageError, quantise
from yolact_calibration.quantisation.trial import GraphBackend
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.media.images import write_image
from yolact_runtime.model.bundle import open_bundle, read_manifest


def test_the_networks_are_in_memory_and_judged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_small_bundle(tmp_path / "small.bundle")
    frames = make_frames(8, 1)
    (tmp_path / "photos").mkdir()
    for name, frame in frames:
        write_image(tmp_path / "photos" / name, frame)
    before = {path: path.read_bytes() for path in bundle.iterdir()}
    options = PrecisionOptions(
        float16=True, int8=True, target="cpu", everything=True, max_drop=math.inf, num_guard_images=1, cache=tmp_path
    )
    manifest = read_manifest(bundle)
    result = quantise(bundle / "model.fp32.onnx", manifest, tmp_path / "photos", options, num_threads=1)
    assert capfd.readouterr() == ("", "")
    assert {path: path.read_bytes() for path in bundle.iterdir()} == before
    assert [network.precision for network in result.networks] == ["fp16", "int8-cpu"]
    assert result.passed
    document = result.document()
    assert document["max_drop"] is None
    assert [row["passed"] for row in document["networks"]] == [True, True]
    assert document["networks"][1]["lost_points"] == result.networks[1].judgement.worst
    int8 = result.networks[1].model
    assert any(node.op_type == "QuantizeLinear" for node in int8.graph.node)
    outputs = GraphBackend(int8.SerializeToString(), 1).infer(preprocess(frames[0][1], manifest.input))
    assert all(np.isfinite(array).all() for array in outputs.values())
    with pytest.raises(DatasetError, match="nowhere"):
        quantise(bundle / "model.fp32.onnx", manifest, tmp_path / "nowhere", options)
    with pytest.raises(UsageError, match="int8 or float16"):
        PrecisionOptions()
    with pytest.raises(UsageError, match="images: name a folder"):
        quantise(bundle / "model.fp32.onnx", manifest, [], options)
    opened = open_bundle(bundle)
    assert "model.int8-cpu.onnx" not in opened.manifest.artefacts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.onnx", None, "No such file"),
        ("text.onnx", b"# not a network", "is not an ONNX network"),
        ("empty.onnx", b"", "is not an ONNX network"),
        ("", None, r"is a folder; name the float32 network in it, such as .*model\.fp32\.onnx"),
    ],
)
def test_what_is_not_a_float32_network_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    bundle = write_small_bundle(tmp_path / "small.bundle")
    for image, frame in make_frames(8, 1):
        write_image(tmp_path / image, frame)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CalibrationError, match=message):
        quantise(tmp_path / name, read_manifest(bundle), tmp_path, PrecisionOptions(int8=True, cache=tmp_path))


def test_a_quantised_network_is_not_quantised_again(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "small.bundle")
    for image, frame in make_frames(8, 1):
        write_image(tmp_path / image, frame)
    model = onnx.load(bundle / "model.fp32.onnx")
    model.graph.node[0].op_type = "DequantizeLinear"
    onnx.save(model, tmp_path / "int8.onnx")
    with pytest.raises(CalibrationError, match="quantised already"):
        quantise(tmp_path / "int8.onnx", read_manifest(bundle), tmp_path, PrecisionOptions(int8=True, cache=tmp_path))
