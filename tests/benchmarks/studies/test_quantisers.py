"""The comparison with other quantisers: what it counts and records, not who wins."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from support.precision_trials import MANIFEST, make_frames
from support.quantised import float_network, observed_ranges
from yolact_benchmarks.report.record import device_name
from yolact_benchmarks.studies import quantisers, tables
from yolact_benchmarks.studies.quantiser_process import Request, run_quantiser
from yolact_benchmarks.studies.quantiser_trial import rounded_convolutions
from yolact_benchmarks.studies.quantisers import ALL, EVERY_OPERATOR, HEADS_IN_FLOAT, Contender, contenders
from yolact_calibration.quantisation.network_graph import FINAL_GROUPS, NetworkGraph
from yolact_calibration.quantisation.qdq import quantise
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_export.errors import MissingDependencyError
from yolact_export.graph.file import write_model
from yolact_runtime.model.manifest import METADATA_KEY

FEW = (
    Contender("ours", "ours", "tensorrt", "minmax", {"dialect": "tensorrt"}, (HEADS_IN_FLOAT,)),
    Contender("NVIDIA Model Optimizer", "modelopt", "tensorrt", "max"),
    Contender("ONNX Runtime", "onnxruntime", "cpu", "MinMax", {"activation_type": "QUInt8"}, (ALL,)),
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small float network as an export leaves it, with frames beside it."""
    folder = tmp_path_factory.mktemp("quantisers") / "small.bundle"
    folder.mkdir()
    model = float_network()
    onnx.helper.set_model_props(model, {METADATA_KEY: MANIFEST.to_json()})
    write_model(model, folder / "model.fp32.onnx")
    np.savez(folder.parent / "frames.npz", np.stack([frame for _, frame in make_frames(9)]))
    return folder / "model.fp32.onnx"


def request_for(network: Path, ranges: str, output: Path) -> Request:
    names = tuple(convolution.name for convolution in NetworkGraph(float_network()).convolutions)
    frames = (str(network.parents[1] / "frames.npz"),)
    return Request("ours", ranges, str(network), str(output), names, (), frames, None, 0, "", {"dialect": "tensorrt"})


def test_a_record_has_what_was_measured_and_what_is_missing(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisers, "contenders", lambda: FEW)
    words = [str(network), "--calib", str(network.parents[1]), "--seconds", "0", "--results", str(tmp_path)]
    assert quantisers.main([*words, "--note", "made up"]) == 0
    out = capsys.readouterr().out
    assert "ours, tensorrt, minmax, heads in float:" in out
    text = (tmp_path / device_name() / "quantisers-small.json").read_text()
    assert str(network.parents[1]) not in text, "no place of this machine in a record"
    record = json.loads(text)["results"]
    assert (record["calibration_images"], record["measure"]) == (6, "agreement AP on 3 images")
    assert (record["labelled"], record["note"]) == (False, "made up")
    assert [entry["label"] for entry in record["missing"]] == ["NVIDIA Model Optimizer"]
    ours, theirs = record["rows"]
    groups = NetworkGraph(float_network()).groups
    in_float = sum(len(groups[group]) for group in FINAL_GROUPS)
    assert ours["int8_convolutions"] == record["convolutions"] - in_float
    assert theirs["int8_convolutions"] == record["convolutions"]
    assert ours["engine"] == {"builds": True, "int8_convolutions": ours["int8_convolutions"]}
    assert not theirs["engine"]["builds"]
    assert "Int32" in theirs["engine"]["error"] or "zero point" in theirs["engine"]["error"]
    for row in (ours, theirs):
        assert row["same_convolutions"]
        assert row["error"] is None
        assert row["seconds"] > 0
        assert row["peak_mb"] > row["extra_peak_mb"] > 0
        assert row["packages"]["onnxruntime"]
        assert len(row["drop"]["box"]) == len(row["drop"]["mask"]) == 3
    assert "time_over_float" not in ours
    assert theirs["time_over_float"] > 0


def test_what_a_quantiser_raises_is_its_result(network: Path, tmp_path: Path) -> None:
    work = run_quantiser(request_for(network, "by-guess", tmp_path / "out.onnx"))
    assert work.error is not None
    assert work.error.startswith("ValueError: 'by-guess'")
    assert work.seconds is None


def test_a_quantiser_that_takes_too_much_memory_is_ended(network: Path, tmp_path: Path) -> None:
    work = run_quantiser(request_for(network, "mse", tmp_path / "out.onnx"), memory_limit_mb=1)
    assert work.error == "ended: it took more than the 1 MB that were allowed"


def test_a_python_without_the_tool_is_told_by_its_last_word(network: Path, tmp_path: Path) -> None:
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\necho no module named modelopt >&2\nexit 3\n")
    silent.chmod(0o755)
    work = run_quantiser(request_for(network, "mse", tmp_path / "out.onnx"), str(silent))
    assert work.error == "exit status 3: no module named modelopt"
    assert str(silent) != sys.executable


def test_convolutions_are_counted_in_anyones_graph() -> None:
    model = float_network()
    names = {convolution.name for convolution in NetworkGraph(model).convolutions}
    assert rounded_convolutions(model) == set()
    some = set(sorted(names)[::2])
    for dialect in Dialect:
        assert rounded_convolutions(quantise(model, observed_ranges(model), some, dialect)) == some


def test_every_tool_gets_the_same_convolutions() -> None:
    graph = NetworkGraph(float_network())
    everything, nothing = quantisers._split(graph, ALL)
    assert (len(everything), nothing) == (len(graph.convolutions), [])
    int8, single = quantisers._split(graph, HEADS_IN_FLOAT)
    assert sorted(int8 + single) == sorted(everything)
    assert {c.group for c in graph.convolutions if c.name in single} == set(FINAL_GROUPS)
    assert quantisers._split(graph, EVERY_OPERATOR) == ([], [])
    assert {contender.tool for contender in contenders()} == {"ours", "onnxruntime", "modelopt"}
    keys = [(c.label, c.form, c.ranges) for c in contenders()]
    assert len(set(keys)) == len(keys), "a table tells them apart"


def test_an_engine_library_that_is_missing_refuses_nothing(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolact_benchmarks.studies import quantiser_trial

    def absent(*_: Any) -> None:
        raise MissingDependencyError("tensorrt-rtx", "Building", "rtx")

    monkeypatch.setattr(quantiser_trial, "build_in_process", absent)
    engine = quantiser_trial.engine_of(onnx.load(network), MANIFEST, ())
    assert engine["builds"] is None
    assert "tensorrt-rtx" in engine["error"]


def row_of(scope: str, **fields: Any) -> dict[str, Any]:
    drop = {"box": [0.12, -0.1, 0.3], "mask": [-0.04, -0.2, 0.1]}
    row = {"label": "ours", "form": "tensorrt", "ranges": "mse", "scope": scope, "error": None, "seconds": 1.5}
    row |= {"cpu_seconds": 1.25, "extra_peak_mb": 164, "drop": drop, "loss": 1.5, "int8_convolutions": 51}
    return row | {"engine": {"builds": True, "int8_convolutions": 51}} | fields


def test_the_table_puts_scopes_side_by_side(tmp_path: Path) -> None:
    refused = {"builds": False, "error": "it has Int32"}
    record = {
        "environment": {"cpu": "Some CPU", "cores": 2},
        "results": {
            "model": "shapes",
            "measure": "AP on 200 labelled images",
            "rows": [
                row_of("all"),
                row_of("heads in float", loss=0.5),
                row_of("every operator", label="ORT", form="cpu", engine=refused, time_over_float=0.41),
                row_of("all", label="big", error="ended: it took too much"),
                row_of("all", label="none", engine={"builds": None, "error": "not installed"}),
            ],
            "missing": [{"label": "NVIDIA Model Optimizer", "ranges": "max", "why": "no --peer-python given"}],
        },
    }
    folder = tmp_path / tables.RESULTS / "some"
    folder.mkdir(parents=True)
    (folder / "quantisers-shapes.json").write_text(json.dumps(record))
    lines = tables.render("<!-- table: quantisers --><!-- end -->", tmp_path).splitlines()
    start = "| shapes: AP on 200 labelled images "
    made = "| 1.5 s (1.2 s) | 164 MB "
    assert lines[3] == (
        f"{start}| ours, TensorRT | mse | 0.12, -0.04, 1.50 | 0.12, -0.04, 0.50 {made}| builds, 51 of 51 in Int8 | - |"
    )
    assert lines[4] == f"{start}| ORT, CPU | mse | 0.12, -0.04, 1.50 | - {made}| refused | 0.41 |"
    assert lines[5] == f"{start}| big, TensorRT | mse | ended: it took too much | | | | | |"
    assert lines[6].endswith("| not tried | - |")
    assert lines[7] == f"{start}| NVIDIA Model Optimizer | max | not measured: no --peer-python given | | | | | |"
    assert len({line.count("|") for line in lines[1:-1]}) == 1, "as many cells in every line"
