from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.scenes import Thing, write_bundle
from yolact_benchmarks.measure.host_timer import HostModel, HostTimer
from yolact_runtime import Segmenter, SegmenterOptions, open_bundle
from yolact_runtime.errors import BackendError, UsageError

THINGS = [Thing((0.25, 0.25, 0.75, 0.75), 0, 0.9), Thing((0.0, 0.0, 0.4, 0.6), 2, 0.6, prototype=1)]
OPTIONS = SegmenterOptions(min_confidence=0.3, num_threads=1)
BRIGHT = np.full((40, 60, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "small.bundle", THINGS)


def model_of(folder: Path) -> HostModel:
    return HostModel(open_bundle(folder), "onnxruntime-cpu", OPTIONS)


def test_stages_add_up_to_the_frame(folder: Path) -> None:
    with model_of(folder) as model:
        timer = model.timer()
        times = timer.time(BRIGHT)
    assert [stage.name for stage in timer.stages] == ["preprocess", "network", "candidates", "nms", "masks"]
    assert list(times.stage_ms) == [stage.name for stage in timer.stages]
    assert sum(times.stage_ms.values()) == pytest.approx(times.total_ms)
    assert all(ms > 0 for ms in times.stage_ms.values())
    assert times.num_instances == 2


def test_what_is_timed_is_the_segmenter(folder: Path) -> None:
    with model_of(folder) as model, Segmenter.open(folder, "onnxruntime-cpu", OPTIONS) as plain:
        timer = model.timer()
        found, expected = timer.segmenter(BRIGHT), plain(BRIGHT)
        assert np.array_equal(found.xyxy, expected.xyxy)
        assert found.mask.rle() == expected.mask.rle()


def test_timers_of_several_numbers_share_a_network(folder: Path) -> None:
    with model_of(folder) as model:
        timers: dict[int | None, HostTimer] = {count: model.timer(count) for count in (None, 0, 1, 10)}
        assert {count: timer.time(BRIGHT).num_instances for count, timer in timers.items()} == {
            None: 2,
            0: 0,
            1: 1,
            10: 10,
        }
        timers[10].segmenter.close()
        assert timers[None].time(BRIGHT).num_instances == 2
        with pytest.raises(UsageError, match="found 31"):
            model.timer(31)
    with pytest.raises(BackendError, match="closed"):
        timers[None].time(BRIGHT)


def test_mask_rescoring_is_a_stage_of_its_own(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "plus.bundle", THINGS, mask_iou=[1, 2, 4])
    with model_of(folder) as model:
        timer = model.timer(10)
        times = timer.time(BRIGHT)
        assert list(times.stage_ms)[-1] == "mask iou"
        assert times.stage_ms["mask iou"] > 0
        assert sum(times.stage_ms.values()) == pytest.approx(times.total_ms)
        none = model.timer(0).time(BRIGHT)
    assert none.stage_ms["mask iou"] == 0, "nothing to re-score: the network does not run"
