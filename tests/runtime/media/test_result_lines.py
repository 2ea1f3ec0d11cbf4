from __future__ import annotations

import json
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.full_disk import files_of_at_most
from support.properties import examples
from support.scenes import make_instances
from yolact_runtime.errors import MediaError
from yolact_runtime.masks.masks import Masks
from yolact_runtime.media.result_lines import ResultLineWriter, result_line

NAMES = ("cat", "dog")
BOXES = [(0.0, 0.0, 4.0, 3.0), (2.126, 1.0, 5.0, 6.0)]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_the_line_of_a_frame() -> None:
    instances = make_instances(6, 8, BOXES, class_id=[1, 0])
    line = result_line("clip.mp4", instances, NAMES, frame=7, time_s=0.23333333333, dropped=2)
    masks = instances.mask.rle()
    assert line == {
        "schema": "yolact-results/1",
        "source": "clip.mp4",
        "frame": 7,
        "time_s": 0.233333,
        "instances": [
            {"class_id": 1, "class_name": "dog", "confidence": 0.9, "xyxy": [0.0, 0.0, 4.0, 3.0], "mask": masks[0]},
            {"class_id": 0, "class_name": "cat", "confidence": 0.89, "xyxy": [2.13, 1.0, 5.0, 6.0], "mask": masks[1]},
        ],
        "dropped": 2,
        "error": None,
    }


def test_every_line_has_every_field() -> None:
    fields = ["schema", "source", "frame", "time_s", "instances", "dropped", "error"]
    for line in (
        result_line("a.png", make_instances(6, 8, [])),
        result_line("a.png", error="cannot read a.png"),
        result_line(None, error="stopped by SIGTERM"),
    ):
        assert list(line) == fields
        assert (line["schema"], line["instances"], line["frame"]) == ("yolact-results/1", [], None)


@given(
    st.lists(st.integers(0, 1), max_size=4),
    st.none() | st.text(),
    st.none() | st.integers(0, 10**9),
    st.none() | st.floats(0, 1e6),
    st.none() | st.text(),
    st.booleans(),
)
@examples(100)
def test_a_line_is_one_line_of_ascii_and_the_masks_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    class_id: list[int],
    source: str | None,
    frame: int | None,
    time_s: float | None,
    error: str | None,
    rescored: bool,
) -> None:
    boxes = [(float(i), 1.0, i + 2.0, 5.0) for i in range(len(class_id))]
    instances = make_instances(6, 8, boxes, class_id, [0.5] * len(boxes) if rescored else None)
    line = result_line(source, instances, NAMES, frame=frame, time_s=time_s, error=error)
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    with ResultLineWriter(str(path)) as writer:
        writer.write(line)
    assert path.read_text("ascii").count("\n") == 1
    (back,) = _lines(path)
    assert back == line
    if boxes:
        assert Masks.from_rle([entry["mask"] for entry in back["instances"]]) == instances.mask
        assert ("mask_confidence" in back["instances"][0]) == rescored


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("an earlier one\n" * 10)
    with ResultLineWriter(str(path)) as writer:
        assert path.read_bytes() == b""
        for number in range(3):
            writer.write(result_line("a", frame=number))
            assert [line["frame"] for line in _lines(path)] == list(range(number + 1))
    writer.close()


def test_stdout_is_flushed_and_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    with ResultLineWriter("-") as writer:
        writer.write(result_line("a"))
        assert json.loads(capsys.readouterr().out)["source"] == "a"
    assert (writer.name, writer.is_file) == ("stdout", False)
    assert not sys.stdout.closed


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    written: list[int] = []

    def write_many() -> None:
        with ResultLineWriter(str(path)) as writer, files_of_at_most(1000):
            for number in range(100):
                writer.write(result_line("a", frame=number))
                written.append(number)

    with pytest.raises(MediaError, match=r"cannot write .*x\.jsonl: File too large"):
        write_many()
    assert [line["frame"] for line in _lines(path)] == written
    assert 800 < path.stat().st_size <= 1000


def test_a_pipe_whose_reader_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received: list[bytes] = []

    def read() -> None:
        with path.open("rb") as pipe:
            received.append(pipe.readline())

    reader = threading.Thread(target=read)
    reader.start()
    with ResultLineWriter(str(path)) as writer:
        writer.write(result_line("a"))
        reader.join()
        with pytest.raises(BrokenPipeError):
            writer.write(result_line("b"))
    assert json.loads(received[0])["source"] == "a"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="No such file or directory"):
        ResultLineWriter(str(tmp_path / "missing" / "x.jsonl"))


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with ResultLineWriter(str(tmp_path / "x.jsonl")) as writer, pytest.raises(ValueError, match="JSON compliant"):
        writer.write(result_line("a", time_s=float("nan")))
    assert (tmp_path / "x.jsonl").read_bytes() == b""


def test_memory_does_not_grow_with_the_stream(tmp_path: Path) -> None:
    instances = make_instances(6, 8, BOXES)
    with ResultLineWriter(str(tmp_path / "x.jsonl")) as writer:
        writer.write(result_line("a", instances, NAMES))
        tracemalloc.start()
        try:
            for number in range(300):
                writer.write(result_line("a", instances, NAMES, frame=number))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 50_000 < (tmp_path / "x.jsonl").stat().st_size
