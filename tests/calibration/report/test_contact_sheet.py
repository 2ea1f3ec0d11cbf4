from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from support.precision_documents import make_pair
from support.scenes import make_instances
from yolact_calibration.errors import UsageError
from yolact_calibration.evaluation.agreement import ImageAgreement
from yolact_calibration.report.contact_sheet import SheetOptions, draw_sheet, side_by_side, worst_images
from yolact_calibration.shapes.scene import CLASS_NAMES
from yolact_runtime.media.images import read_image

Frame = npt.NDArray[np.uint8]
LEFT, RIGHT, MIDDLE = (4.0, 20.0, 34.0, 50.0), (64.0, 20.0, 94.0, 50.0), (36.0, 20.0, 62.0, 50.0)


def decoded(folder: Path, address: str) -> Frame:
    kind, content = address.split(",")
    assert kind == "data:image/jpeg;base64"
    (folder / "a.jpg").write_bytes(base64.b64decode(content, validate=True))
    return read_image(folder / "a.jpg")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((320, 240), (320, 240)), ((1080, 1920), (270, 480)), ((3, 2000), (1, 480)), ((1, 1), (1, 1))],
)
def test_pictures_keep_their_shape_up_to_a_size(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    frame = np.full((*size, 3), 90, np.uint8)
    box = (0.0, 0.0, size[1] / 2, size[0] / 2)
    found = make_instances(*size, [box])
    for address in side_by_side(frame, found, found, ["thing"]):
        assert decoded(tmp_path, address).shape[:2] == expected


def test_a_picture_is_compressed_until_it_is_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    nothing = make_instances(400, 400, [])
    roomy = side_by_side(noise, nothing, nothing, [], SheetOptions(max_picture_bytes=10**9))[0]
    tight = side_by_side(noise, nothing, nothing, [], SheetOptions(max_picture_bytes=1))[0]
    assert len(tight) < len(roomy) / 2
    assert decoded(tmp_path, tight).shape == noise.shape
    frame, reference, candidate = make_pair(0)
    for address in side_by_side(frame, reference, candidate, CLASS_NAMES):
        assert len(address) < 40_000 * 4 / 3 + 50


def _colour(picture: Frame, box: tuple[float, float, float, float]) -> Frame:
    """Mean colour in the middle of a box."""
    left, top, right, bottom = (int(value) for value in box)
    middle: Frame = picture[top + 10 : bottom - 10, left + 10 : right - 10].reshape(-1, 3).mean(axis=0)
    return middle


def test_the_same_object_has_the_same_colour_whatever_its_place_in_the_list(tmp_path: Path) -> None:
    frame = np.full((60, 100, 3), 90, np.uint8)
    reference, candidate = make_instances(60, 100, [LEFT, RIGHT]), make_instances(60, 100, [RIGHT, LEFT])
    sides = [decoded(tmp_path, address) for address in side_by_side(frame, reference, candidate, ["thing"])]
    for box in (LEFT, RIGHT):
        assert np.abs(_colour(sides[0], box) - _colour(sides[1], box)).max() < 8
    assert np.abs(_colour(sides[0], LEFT) - _colour(sides[0], RIGHT)).max() > 30


def test_lost_and_new_objects_are_on_one_side_only(tmp_path: Path) -> None:
    frame = np.full((60, 100, 3), 90, np.uint8)
    reference, candidate = make_instances(60, 100, [LEFT, RIGHT]), make_instances(60, 100, [MIDDLE, RIGHT])
    first, second = [decoded(tmp_path, address) for address in side_by_side(frame, reference, candidate, ["thing"])]
    for picture, painted, bare in ((first, LEFT, MIDDLE), (second, MIDDLE, LEFT)):
        assert np.abs(_colour(picture, painted) - 90).max() > 20
        assert np.abs(_colour(picture, bare) - 90).max() < 8
    assert np.abs(_colour(first, RIGHT) - _colour(second, RIGHT)).max() < 8


def test_a_class_that_changed_is_another_object(tmp_path: Path) -> None:
    frame = np.full((60, 100, 3), 90, np.uint8)
    reference = make_instances(60, 100, [LEFT, RIGHT], [0, 0])
    candidate = make_instances(60, 100, [LEFT, RIGHT], [1, 0])
    first, second = [decoded(tmp_path, address) for address in side_by_side(frame, reference, candidate, ["a", "b"])]
    assert np.abs(_colour(first, RIGHT) - _colour(second, RIGHT)).max() < 8


def test_what_is_not_confident_is_not_drawn_unless_it_was(tmp_path: Path) -> None:
    frame = np.full((60, 100, 3), 90, np.uint8)
    reference, candidate = make_instances(60, 100, [LEFT]), make_instances(60, 100, [LEFT, RIGHT])
    candidate.confidence[:] = 0.1
    _, second = [decoded(tmp_path, address) for address in side_by_side(frame, reference, candidate, ["thing"])]
    assert np.abs(_colour(second, LEFT) - 90).max() > 20
    assert np.abs(_colour(second, RIGHT) - 90).max() < 8


@pytest.mark.parametrize("channels", [(), (1,), (4,)])
def test_gray_frames_and_frames_with_alpha(tmp_path: Path, channels: tuple[int, ...]) -> None:
    frame = np.full((60, 100, *channels), 90, np.uint8)
    nothing = make_instances(60, 100, [])
    first, _ = side_by_side(frame, nothing, nothing, [], SheetOptions(longest_px=50))
    assert decoded(tmp_path, first).shape == (30, 50, 3)


def test_a_large_frame_is_averaged_and_left_as_it_was(tmp_path: Path) -> None:
    frame = np.zeros((640, 640, 3), np.uint8)
    frame[::2] = 200
    before = frame.copy()
    nothing = make_instances(640, 640, [])
    picture = decoded(tmp_path, side_by_side(frame, nothing, nothing, [], SheetOptions(longest_px=320))[0])
    assert np.abs(picture.astype(int) - 100).max() <= 2
    assert (frame == before).all()


def _image(name: str, loss: float) -> ImageAgreement:
    return ImageAgreement(name, loss, 2, 1, 0)


def test_the_worst_images_come_first_and_those_that_agree_not_at_all() -> None:
    images = [_image("b", 0.2), _image("c", 0.0), _image("a", 0.2), _image("d", 0.9)]
    assert [image.name for image in worst_images(images, 9)] == ["d", "a", "b"]
    assert [image.name for image in worst_images(images, 1)] == ["d"]


def test_a_sheet_reads_only_the_frames_it_shows() -> None:
    frame, reference, candidate = make_pair(1)
    read: list[str] = []

    def read_frame(name: str) -> Frame:
        read.append(name)
        return frame

    images = [_image("a", 0.1), _image("b", 0.3), _image("c", 0.2)]
    found, other = dict.fromkeys("abc", reference), dict.fromkeys("abc", candidate)
    sheet = draw_sheet(images, read_frame, found, other, CLASS_NAMES, SheetOptions(num_images=2))
    assert read == [entry["name"] for entry in sheet] == ["b", "c"]
    assert set(sheet[0]) == {
        "name", "loss", "num_reference", "num_matched", "num_extra", "reference", "candidate"
    }  # fmt: skip
    assert sheet[0]["reference"] != sheet[0]["candidate"]


@pytest.mark.parametrize("options", [{"num_images": -1}, {"longest_px": 0}, {"max_picture_bytes": 0}])
def test_a_sheet_without_size(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="contact sheet"):
        SheetOptions(**options)
