from __future__ import annotations

import json
from pathlib import Path

import pytest

from yolact_benchmarks import tables

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


def test_an_unknown_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        tables.render("<!-- table: nothing --><!-- end -->", tmp_path)
