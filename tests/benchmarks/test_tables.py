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
        (tmp_path / device).mkdir()
        (tmp_path / device / "export-x.json").write_text(json.dumps(RECORD))
    text = "before\n<!-- table: export -->\nstale\n<!-- end -->\nafter"
    rendered = tables.render(text, tmp_path)
    assert rendered.startswith("before\n<!-- table: export -->\n| checkpoint |")
    assert rendered.endswith("\n<!-- end -->\nafter")
    assert rendered.count("| a.pth (125 MB) | 5.2 s | 400 MB | 3.2 x | Some CPU, 2 cores |") == 2
    assert "stale" not in rendered
    assert tables.render(rendered, tmp_path) == rendered


def test_an_unknown_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        tables.render("<!-- table: nothing --><!-- end -->", tmp_path)
