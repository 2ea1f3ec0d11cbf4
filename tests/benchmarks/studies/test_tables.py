from __future__ import annotations

import json
from pathlib import Path

import pytest

from yolact_benchmarks.studies import tables

RECORD = {
    "environment": {"cpu": "Some CPU", "cores": 2},
    "results": {
        "checkpoint": "a.pth",
        "checkpoint_mb": 125.0,
        "seconds": 5.2,
        "extra_peak_mb": 400,
        "extra_over_checkpoint": 3.2,
    },
}


def test_documents_show_the_committed_records() -> None:
    assert tables.main(["--check"]) == 0, "run: make tables"


def test_a_table_is_made_from_its_records(tmp_path: Path) -> None:
    for device in ("b", "a"):
        folder = tmp_path / tables.RESULTS / device
        folder.mkdir(parents=True)
        (folder / "export-x.json").write_text(json.dumps(RECORD))
    text = "before\n<!-- table: export -->\nstale\n<!-- end -->\nafter"
    rendered = tables.render(text, tmp_path)
    assert rendered.startswith("before\n<!-- table: export -->\n| checkpoint |")
    assert rendered.endswith("\n<!-- end -->\nafter")
    assert rendered.count("| a.pth (125 MB) | 5.2 s | 400 MB | 3.2 x | Some CPU, 2 cores |") == 2
    assert "stale" not in rendered
    assert tables.render(rendered, tmp_path) == rendered


def test_trained_and_pruned_models_have_tables_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / tables.MODELS
    folder.mkdir(parents=True)
    figures = {"AP": 0.6, "AP50": 0.8}
    trained = {
        "checkpoint": "a.pth",
        "checkpoint_mb": 3.4,
        "class_names": ["x", "y"],
        "config": {"name": "tiny", "input_width": 256},
        "training": {"num_steps": 100, "batch_size": 16},
        "start_record": {"training": {"num_steps": 90, "batch_size": 8}, "config": {"input_width": 128}},
        "validation": {"bbox": figures, "segm": {"AP": 0.55, "AP50": 0.7}, "images": 20},
    }
    pruned = {
        "checkpoint": "a.pruned.pth",
        "report": {
            "backend": "some CPU",
            "num_parameters": [2e6, 1e6],
            "gflops": [1.0, 0.5],
            "measured_ms": [10.0, 5.5],
        },
        "scores": {"dense": {"mask AP": 0.55}, "pruned": {"mask AP": 0.2}, "recovered": {"mask AP": 0.545}},
    }
    (folder / "a.json").write_text(json.dumps(trained))
    (folder / "a.pruned.json").write_text(json.dumps(pruned))
    models = tables.render("<!-- table: models --><!-- end -->", tmp_path)
    assert "| a.pth (3.4 MB) | tiny, 256 px | 2 | 90 x 8 at 128 px, 100 x 16 at 256 px |" in models
    assert "| 20 images | 0.600 | **0.550** | 0.700 |" in models
    assert "pruned" not in models
    table = tables.render("<!-- table: pruning --><!-- end -->", tmp_path)
    assert "2.00 -> 1.00 M | 1.00 -> 0.50 | 10.0 -> 5.5 ms (**55%**) | 0.550 | 0.200 | **0.545** |" in table
    assert "a.pth" not in table


def test_peers_and_planted_regressions_have_tables(tmp_path: Path) -> None:
    folder = tmp_path / tables.RESULTS / "some"
    folder.mkdir(parents=True)
    row = {"name": "PyTorch eager", "over": "fp32", "median_ms": 1500.4, "ratio": 2.5, "low": 2.4, "high": 2.6}
    peers = {"frames": "1920x1080", "instances": 100, "ours": {"fp32": 600.2}, "rows": [row], "reasons": []}
    environment = RECORD["environment"]
    bench = {"environment": environment, "results": {"models": [{"name": "r50"}], "peers": peers}}
    (folder / "bench-r50.json").write_text(json.dumps(bench))
    (folder / "bench-bare.json").write_text(json.dumps({"environment": environment, "results": {"models": []}}))
    assert (
        "| r50, 1920x1080, 100 instances | PyTorch eager | 1500 ms | fp32 600 ms | **2.50 x** | 2.40 to 2.60 | yes "
        "| Some CPU, 2 cores |"
    ) in tables.render("<!-- table: bench --><!-- end -->", tmp_path)
    facts = {"model": "r50", "precision": "fp32", "instances": 100, "seconds": 20, "processes": 10, "again": 3}
    found = {"rerun": {"same": 20}, "planted": {"slower": 19, "same": 1}}
    (folder / "regressions-r50.json").write_text(json.dumps({"environment": environment, "results": facts | found}))
    assert (
        "| r50 fp32, 100 instances; 10 processes, 20 s | 20 same | 19 slower, 1 same | 3 times | Some CPU, 2 cores |"
    ) in tables.render("<!-- table: regressions --><!-- end -->", tmp_path)


def test_an_unknown_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        tables.render("<!-- table: nothing --><!-- end -->", tmp_path)


def test_mutants_have_a_row_for_each_module_and_one_for_each_survivor(tmp_path: Path) -> None:
    folder = tmp_path / tables.RESULTS / "a"
    folder.mkdir(parents=True)
    survivors = [{"line": 7, "change": "boolean: a | b -> c", "reason": "no difference"}, {"line": 8, "change": "d"}]
    row = {"name": "nms", "module": "x/nms.py", "of": 90, "tried": 20, "noticed": 18, "survivors": survivors}
    for name, tests in (("mutants", "now"), ("mutants-before", "before")):
        (folder / f"{name}.json").write_text(json.dumps({"results": {"tests": tests, "modules": [row]}}))
    text = "<!-- table: mutants -->\n<!-- end -->\n<!-- table: mutant_survivors -->\n<!-- end -->"
    lines = tables.render(text, tmp_path).splitlines()
    assert "| nms (`nms.py`) | now | 20 of 90 | 18 (**90%**) | 1 | 1 |" in lines
    assert "| nms (`nms.py`) | before | 20 of 90 | 18 (**90%**) | 1 | 1 |" in lines
    assert "| nms, line 7 | `boolean: a \\| b -> c` | no difference |" in lines
    assert "| nms, line 8 | `d` |  |" in lines
    assert sum(line.startswith("| nms, line") for line in lines) == 2
