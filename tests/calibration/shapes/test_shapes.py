from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.staged import TOKEN
from yolact_calibration.labels.coco import CocoAnnotations, boxes_xyxy
from yolact_calibration.shapes import main
from yolact_calibration.shapes.scene import CLASS_NAMES, SceneOptions, make_scene
from yolact_runtime.media.images import read_image, write_image

SIZE = SceneOptions(height=80, width=96)


def _write(folder: Path, *words: str, seed: int = 5, count: int = 4) -> int:
    return main(["--seed", str(seed), "--count", str(count), "-o", str(folder), "--size", "96x80", *words])


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_and_annotations_are_those_of_the_seeds(tmp_path: Path) -> None:
    assert _write(tmp_path / "scenes") == 0
    annotations = CocoAnnotations.from_file(tmp_path / "scenes" / "instances.json")
    assert annotations.category_names == CLASS_NAMES
    assert annotations.category_ids == (1, 2, 3, 4, 5, 6)
    assert [image.image_id for image in annotations.images] == [5, 6, 7, 8]
    for image in annotations.images:
        scene = make_scene(image.image_id, SIZE)
        assert image.file_name == f"{image.image_id:09d}.png"
        np.testing.assert_array_equal(read_image(tmp_path / "scenes" / "images" / image.file_name), scene.image)
        instances = annotations.instances[image.image_id]
        assert annotations.masks(image) == scene.mask
        assert [int(item.category_id) - 1 for item in instances] == scene.class_id.tolist()
        assert [item.area for item in instances] == scene.mask.area().tolist()
        np.testing.assert_array_equal(boxes_xyxy(instances), scene.xyxy)


def test_the_document_says_how_it_was_made(tmp_path: Path) -> None:
    _write(tmp_path)
    document = json.loads((tmp_path / "instances.json").read_bytes())
    assert document["info"] == {"generator": "yolact_calibration.shapes", "version": 1, "seed": 5, "count": 4}
    numbers = [item["id"] for item in document["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {item["iscrowd"] for item in document["annotations"]} == {0}
    assert all(isinstance(item["segmentation"]["counts"], str) for item in document["annotations"])


def test_the_reference_implementation_reads_the_annotations(tmp_path: Path) -> None:
    from pycocotools import mask as coco

    _write(tmp_path)
    annotations = json.loads((tmp_path / "instances.json").read_bytes())["annotations"]
    assert len(annotations) > 4
    for item in annotations:
        assert int(coco.area(item["segmentation"])) == item["area"]
        assert coco.toBbox(item["segmentation"]).tolist() == item["bbox"]


def test_running_again_changes_no_byte(tmp_path: Path) -> None:
    _write(tmp_path)
    before = _contents(tmp_path)
    assert _write(tmp_path) == 0
    assert _contents(tmp_path) == before


def test_what_a_killed_run_has_left_is_no_other_file(tmp_path: Path) -> None:
    assert _write(tmp_path / "scenes") == 0
    whole = _contents(tmp_path / "scenes")
    left = [tmp_path / "scenes" / f".instances.json.{TOKEN}.tmp"]
    picture = min((tmp_path / "scenes" / "images").iterdir())
    left.append(picture.with_name(f".{picture.name}.{TOKEN}.tmp"))
    picture.unlink()
    for path in left:
        path.write_bytes(b"half")
    assert _write(tmp_path / "scenes") == 0
    assert _contents(tmp_path / "scenes") == whole


def test_an_interrupted_run_is_finished_and_a_set_can_grow(tmp_path: Path) -> None:
    _write(tmp_path / "whole")
    _write(tmp_path / "grown", count=2)
    (tmp_path / "grown" / "instances.json").unlink()
    assert _write(tmp_path / "grown") == 0
    assert _contents(tmp_path / "grown") == _contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["notes.txt", "images/photo.jpg", "images/000000009.png"])
def test_a_folder_with_other_files_is_left_alone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / name).write_bytes(b"mine")
    assert _write(tmp_path) == 1
    assert _contents(tmp_path) == {name: b"mine"}
    message = capsys.readouterr().err
    assert str(tmp_path / name) in message
    assert "name a new folder with -o" in message


@pytest.mark.parametrize("content", [b'{"info": {"generator": "someone"}}', b"[]", b'{"info": []}', b"\xff not JSON"])
def test_annotations_of_somebody_else_are_left_alone(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_bytes(content)
    assert _write(tmp_path) == 1
    assert _contents(tmp_path) == {"instances.json": content}


@pytest.mark.parametrize("shape", [(80, 96, 3), (256, 256, 3)])
def test_another_picture_of_the_same_name_is_left_alone(
    shape: tuple[int, int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "000000006.png"
    write_image(path, np.zeros(shape, np.uint8))
    before = path.read_bytes()
    assert _write(tmp_path) == 1
    assert path.read_bytes() == before
    assert not (tmp_path / "instances.json").exists()
    assert f"{path} is another picture than the one to write, 96 x 80 pixels" in capsys.readouterr().err


def test_a_file_in_place_of_the_folder_is_an_error_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    assert _write(tmp_path / "file") == 1
    assert "name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", "0"], "--count must be 1 or more, found 0"),
        (["--count", "1", "--seed", "-3"], "seeds must be 0 to 999999999, found -3 to -3"),
        (["--count", "2", "--seed", "999999999"], "found 999999999 to 1000000000"),
        (["--count", "1", "--size", "20x256"], "--size must lie between 64 and 4096, found 20"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--count", "1", "--size", "big"], ["--count", "one"], ["--size", "96x80"]])
def test_words_that_make_no_sense_are_usage_errors(words: list[str], tmp_path: Path) -> None:
    assert main([*words, "-o", str(tmp_path / "out")]) == 2


def test_quiet_says_nothing_and_otherwise_it_says_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "--quiet", count=1)
    assert capsys.readouterr().err == ""
    _write(tmp_path, count=1)
    assert f"1 picture with {len(make_scene(5, SIZE))} instances to {tmp_path}" in capsys.readouterr().err


def test_help_needs_no_image_library() -> None:
    program = (
        "import sys; sys.modules['cv2'] = None; sys.argv = ['shapes', '--help']; "
        "import runpy; runpy.run_module('yolact_calibration.shapes', run_name='__main__')"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--seed S" in finished.stdout
