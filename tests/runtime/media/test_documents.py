from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.full_disk import files_of_at_most
from support.properties import examples
from support.scenes import make_instances
from yolact_runtime.errors import MediaError
from yolact_runtime.masks.masks import Masks
from yolact_runtime.media.documents import ResultDocument, image_document

NAMES = ("cat", "dog")
BOXES = [(0.0, 0.0, 4.0, 3.0), (2.126, 1.0, 5.0, 6.0)]


def test_the_document_of_an_image() -> None:
    instances = make_instances(6, 8, BOXES, class_id=[1, 0])
    document = image_document("a/b.png", instances, NAMES)
    masks = instances.mask.rle()
    assert document == {
        "file": "a/b.png",
        "height": 6,
        "width": 8,
        "instances": [
            {"class_id": 1, "class_name": "dog", "confidence": 0.9, "xyxy": [0.0, 0.0, 4.0, 3.0], "mask": masks[0]},
            {"class_id": 0, "class_name": "cat", "confidence": 0.89, "xyxy": [2.13, 1.0, 5.0, 6.0], "mask": masks[1]},
        ],
    }


def test_mask_confidence_appears_only_when_there_is_one() -> None:
    instances = make_instances(6, 8, BOXES, mask_confidence=[0.1234567, 1.5])
    first, second = image_document("x", instances, NAMES)["instances"]
    assert (first["mask_confidence"], second["mask_confidence"]) == (0.123457, 1.5)


def test_it_survives_json_and_the_masks_come_back() -> None:
    instances = make_instances(6, 8, BOXES, class_id=[1, 0], mask_confidence=[0.5, 0.25])
    document = image_document("x", instances, NAMES)
    back = json.loads(json.dumps(document, allow_nan=False))
    assert back == document
    assert Masks.from_rle([entry["mask"] for entry in back["instances"]]) == instances.mask


def test_an_image_without_instances() -> None:
    assert image_document("x", make_instances(6, 8, []), NAMES) == {
        "file": "x",
        "height": 6,
        "width": 8,
        "instances": [],
    }


@pytest.mark.parametrize("field", ["class_id", "confidence"])
def test_numbers_are_pythons_own(field: str) -> None:
    (entry,) = image_document("x", make_instances(6, 8, BOXES[:1]), NAMES)["instances"]
    assert not isinstance(entry[field], np.generic)


# --- the document of a run --------------------------------------------------------------------------------------------


def _entry(number: int) -> dict[str, Any]:
    return {"file": f"{number}.png", "instances": []}


def test_a_document_appears_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("an earlier one")
    document = ResultDocument(str(path), "my.bundle")
    for number in range(3):
        document.add(_entry(number))
    assert path.read_text() == "an earlier one"
    assert document.finish({"complete": True}) == 0
    images = [_entry(number) for number in range(3)]
    assert json.loads(path.read_bytes()) == {"model": "my.bundle", "images": images, "complete": True}
    assert list(tmp_path.iterdir()) == [path]


def test_a_document_that_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("an earlier one")
    document = ResultDocument(str(path), "m")
    document.add(_entry(0))
    document.discard()
    document.discard()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out.json", "an earlier one")]


def test_a_document_on_stdout_grows_as_it_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    document = ResultDocument("-", "m")
    document.add(_entry(0))
    begun = capsys.readouterr().out
    assert begun == '{"model":"m","images":[{"file":"0.png","instances":[]}'
    document.finish({"complete": True})
    assert json.loads(begun + capsys.readouterr().out)["complete"] is True
    assert not document.is_file


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "there" / "target.json")
    for destination in (str(link), "/dev/null"):
        document = ResultDocument(destination, "m")
        document.add(_entry(0))
        document.finish({"complete": True})
    assert link.is_symlink()
    assert json.loads((tmp_path / "there" / "target.json").read_bytes())["complete"] is True
    assert Path("/dev/null").is_char_device()


@given(st.integers(0, 40), st.integers(100, 3000), st.integers(0, 30), st.booleans())
@examples(150)
def test_on_a_full_disk_what_fits_is_there_and_says_that_it_is_not_all(
    tmp_path_factory: pytest.TempPathFactory, num_images: int, room: int, num_not_done: int, stopped: bool
) -> None:
    path = tmp_path_factory.mktemp("full") / "out.json"
    tail: dict[str, Any] = {"complete": not stopped}
    if stopped:
        not_done = {"count": num_not_done, "inputs": [f"{n}.png" for n in range(num_not_done)]}
        tail |= {"stopped_by": "SIGINT", "not_done": not_done}
    added, left_out, error = 0, None, None
    with files_of_at_most(room):
        document = ResultDocument(str(path), "m")
        try:
            for number in range(num_images):
                document.add(_entry(number))
                added += 1
        except MediaError as full:
            error = full
            tail["complete"] = False
        try:
            left_out = document.finish(tail)
        except MediaError as full:
            error = full
    if left_out is None:
        # Not even the end fits.
        assert room < 400
        assert error is not None
        assert "File too large" in str(error)
        assert list(path.parent.iterdir()) == []
        return
    made = json.loads(path.read_bytes())
    assert list(path.parent.iterdir()) == [path]
    assert made["images"] == [_entry(number) for number in range(added - left_out)]
    assert made.get("results_left_out", 0) == left_out
    assert made["complete"] == (not stopped and not left_out and error is None)
    if left_out:
        assert made["stopped_by"] == "SIGINT" if stopped else "File too large" in made["stopped_by"]
    if stopped:
        assert made["not_done"]["count"] == num_not_done


def test_a_number_that_is_none_ends_the_entry_and_not_the_document(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    document = ResultDocument(str(path), "m")
    with pytest.raises(ValueError, match="JSON compliant"):
        document.add({"x": float("nan")})
    document.add(_entry(1))
    document.finish({"complete": True})
    assert json.loads(path.read_bytes())["images"] == [_entry(1)]


def test_a_signal_in_the_middle_of_an_entry_takes_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    document = ResultDocument(str(path), "m")
    document.add(_entry(0))
    write = os.write

    def torn(file: int, content: Any) -> int:
        write(file, content[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", torn)
    with pytest.raises(KeyboardInterrupt):
        document.add(_entry(1))
    monkeypatch.undo()
    document.finish({"complete": False})
    assert json.loads(path.read_bytes()) == {"model": "m", "images": [_entry(0)], "complete": False}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"cannot write .*x\.json: No such file or directory"):
        ResultDocument(str(tmp_path / "missing" / "x.json"), "m")


def test_a_loop_of_links_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "r.json").symlink_to("r.json")
    document = ResultDocument(str(tmp_path / "r.json"), "m")
    document.finish({"complete": True})
    assert json.loads((tmp_path / "r.json").read_bytes())["complete"] is True
