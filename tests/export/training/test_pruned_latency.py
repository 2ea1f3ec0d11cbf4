"""Times of whole networks that an interrupted pruning comes back to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.prune import PruneReport
from yolact_export.training.pruned_latency import measure_network


@pytest.mark.parametrize(
    "content", ["", "[]", "[" * 100_000, '{"a": 1}', '{"a": [1.0]}', '{"a": [1.0, "2"]}', '{"a": [NaN, 1]}']
)
def test_other_files_are_no_times(content: str, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(content)
    report = PruneReport.__new__(PruneReport)
    object.__setattr__(report, "backend", "any")
    with pytest.raises(PruningError, match=r"times\.json is not a file of network times .*delete it to measure again"):
        measure_network(None, torch.nn.Linear(1, 1), report, path, 1)  # type: ignore[arg-type]
