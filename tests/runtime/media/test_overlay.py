from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import make_instances
from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks
from yolact_runtime.media.overlay import draw_instances, instance_colour

Frame = npt.NDArray[np.uint8]
NAMES = ("cat", "a rather long name of a class that will not fit into small pictures")
GRAY = 90


def _gray(height: int, width: int) -> Frame:
    return np.full((height, width, 3), GRAY, np.uint8)


def _changed(image: Frame) -> npt.NDArray[np.bool_]:
    return (image != GRAY).any(axis=2)


def _contrast(a: npt.NDArray, b: npt.NDArray) -> float:
    """WCAG 2 contrast ratio of two colours, blue first, 0..255."""

    def luminance(colour: npt.NDArray) -> float:
        value = np.asarray(colour, np.float64) / 255
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.0722, 0.7152, 0.2126])

    dark, bright = sorted((luminance(a), luminance(b)))
    return (bright + 0.05) / (dark + 0.05)


def test_the_frame_is_not_modified() -> None:
    frame = _gray(60, 80)
    frame.flags.writeable = False
    image = draw_instances(frame, make_instances(60, 80, [(10, 20, 40, 50)]), NAMES)
    assert (frame == GRAY).all()
    assert (image.shape, image.dtype) == (frame.shape, np.uint8)
    assert _changed(image).any()


def test_without_instances_the_picture_is_the_frame() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    image = draw_instances(frame, make_instances(40, 50, []), NAMES)
    assert (image == frame).all()
    assert not np.shares_memory(image, frame)


def test_the_mask_is_tinted_and_the_rest_left_alone() -> None:
    image = draw_instances(_gray(200, 200), make_instances(200, 200, [(50, 80, 150, 180)]), NAMES)
    colour = instance_colour(0)
    np.testing.assert_allclose(image[130, 100], GRAY * 0.55 + colour * 0.45, atol=1)
    label_rows = slice(50, 80)  # above the box
    outside = _changed(image)
    outside[80:180, 50:150] = False
    outside[label_rows] = False
    assert not outside.any()


def test_a_box_is_truncated_to_pixels_and_drawn_on_its_border() -> None:
    instances = make_instances(100, 100, [(20.9, 40.9, 60.9, 80.9)])
    instances = Instances(instances.xyxy, Masks.empty(1, 100, 100), instances.confidence, instances.class_id)
    changed = _changed(draw_instances(_gray(100, 100), instances, NAMES))
    changed[:40] = False  # the label
    rows, columns = np.nonzero(changed)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (20, 40, 59, 79)
    assert not changed[41:79, 21:59].any()  # one pixel wide in a small picture


def test_the_best_instance_is_on_top() -> None:
    image = draw_instances(_gray(200, 200), make_instances(200, 200, [(20, 60, 180, 190), (20, 60, 180, 190)]), NAMES)
    assert (image[60, 100] == instance_colour(0).astype(np.uint8)).all()
    # Its tint comes last, over the other's.
    below = GRAY * 0.55 + instance_colour(1) * 0.45
    np.testing.assert_allclose(image[130, 100], below * 0.55 + instance_colour(0) * 0.45, atol=2)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 30, 20),  # no room above
        (0, 40, 30, 60),
        (190, 100, 200, 110),  # no room to the right
        (190, 0, 200, 200),
        (0, 190, 10, 200),
        (0, 0, 200, 200),
        (300, 300, 200, 200),  # as upstream leaves a box outside the frame
        (0, 0, -50, -40),
        (50, 0, 60, 1),
    ],
)
def test_labels_stay_inside_the_picture(box: tuple[float, float, float, float]) -> None:
    instances = make_instances(200, 200, [(0, 0, 0, 0)])
    instances = Instances(np.array([box], np.float32), instances.mask, instances.confidence, instances.class_id)
    image = draw_instances(_gray(200, 200), instances, NAMES)
    # The whole tag is visible: a block of its colour, as large as in the middle of the picture.
    middle = Instances(np.array([[80, 100, 81, 101]], np.float32), *_but_boxes(instances))
    expected = _changed(draw_instances(_gray(200, 200), middle, NAMES)).sum()
    assert _changed(image).sum() >= expected - 2


def _but_boxes(instances: Instances) -> tuple[Masks, npt.NDArray, npt.NDArray]:
    return instances.mask, instances.confidence, instances.class_id


def test_a_label_sits_on_its_box_where_there_is_room() -> None:
    instances = make_instances(200, 200, [(50, 100, 150, 180)])
    changed = _changed(draw_instances(_gray(200, 200), instances, NAMES))
    rows = np.flatnonzero(changed[:100].any(axis=1))
    columns = np.flatnonzero(changed[:100].any(axis=0))
    assert rows[-1] == 99
    assert rows[0] > 75
    assert columns[0] == 50


@pytest.mark.parametrize("index", range(48))
def test_labels_are_readable(index: int) -> None:
    # Only the label of the last instance; the tag's colour and the letters' are the two extremes.
    boxes = [(0.0, 0.0, 0.0, 0.0)] * index + [(60.0, 60.0, 61.0, 61.0)]
    instances = make_instances(200, 300, boxes)
    image = draw_instances(_gray(200, 300), instances, NAMES)
    tag = image[30:60, 60:160].reshape(-1, 3)
    tag = tag[(tag != GRAY).any(axis=1)]
    colour = instance_colour(index).astype(np.uint8)
    assert (tag == colour).all(axis=1).mean() > 0.3
    best = max(_contrast(colour, pixel) for pixel in np.unique(tag, axis=0))
    assert best >= 4.5  # WCAG AA for text of any size


def test_neighbouring_instances_have_different_colours() -> None:
    colours = [instance_colour(i) for i in range(100)]
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    for i in range(99):
        assert np.abs(colours[i] - colours[i + 1]).max() > 60
    near = [np.abs(colours[i] - colours[j]).sum() for i in range(12) for j in range(i)]
    assert min(near) > 20


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (3, 5), (1, 40), (40, 1), (2, 2), (9, 9)])
@pytest.mark.parametrize("count", [1, 3])
def test_tiny_pictures(size: tuple[int, int], count: int) -> None:
    boxes = [(0.0, 0.0, float(size[1]), float(size[0]))] * count
    image = draw_instances(_gray(*size), make_instances(*size, boxes, class_id=[1] * count), NAMES)
    assert image.shape == (*size, 3)


def test_an_empty_mask_and_a_box_without_size() -> None:
    instances = make_instances(50, 60, [(20, 20, 20, 20)])
    draw_instances(_gray(50, 60), instances, NAMES)


@pytest.mark.parametrize("far", [1e6, 3e38])
def test_boxes_far_outside(far: float) -> None:
    instances = make_instances(50, 60, [(0, 0, 0, 0)] * 2)
    boxes = np.array([[far, far, 60, 50], [0, 0, -far, -far]], np.float32)
    image = draw_instances(
        _gray(50, 60), Instances(boxes, instances.mask, instances.confidence, instances.class_id), NAMES
    )
    assert image.shape == (50, 60, 3)


def test_a_wide_frame_of_a_thin_box_stays_inside_the_box() -> None:
    # A picture this large has lines of six pixels; the box is two wide.
    instances = make_instances(2100, 2100, [(1000, 1000, 1002, 1500)])
    instances = Instances(instances.xyxy, Masks.empty(1, 2100, 2100), instances.confidence, instances.class_id)
    changed = _changed(draw_instances(_gray(2100, 2100), instances, NAMES))
    assert np.flatnonzero(changed[1100]).tolist() == [1000, 1001]


def test_classes_beyond_ascii() -> None:
    draw_instances(_gray(80, 80), make_instances(80, 80, [(10, 40, 60, 70)]), ("猫",))


def test_a_picture_with_many_instances_keeps_every_box_visible() -> None:
    boxes = [(float(x), float(y), x + 30.0, y + 30.0) for y in range(40, 360, 80) for x in range(10, 400, 80)]
    image = draw_instances(_gray(400, 400), make_instances(400, 400, boxes), NAMES)
    for i, (left, top, _, _) in enumerate(boxes):
        corner = image[int(top) + 29, int(left) + 29]
        assert (corner == instance_colour(i).astype(np.uint8)).all()


def _draw(where: list[tuple[float, float, float, float]], size: tuple[int, int] = (200, 200), **options: Any) -> Frame:
    return draw_instances(_gray(*size), make_instances(*size, where), NAMES, **options)


def test_labels_boxes_and_masks_can_be_left_out() -> None:
    boxes = [(50.0, 80.0, 150.0, 180.0)]
    everything = _changed(_draw(boxes))
    without_labels = _changed(_draw(boxes, labels=False))
    assert not without_labels[:80].any()
    assert (without_labels[80:] == everything[80:]).all()
    only_box = _changed(_draw(boxes, labels=False, masks=False))
    assert only_box[80, 100]
    assert not only_box[100:160, 70:130].any()
    only_mask = _draw(boxes, labels=False, boxes=False)
    assert _changed(only_mask)[130, 100]
    assert (_draw(boxes, labels=False, boxes=False, masks=False) == GRAY).all()


def test_colours_can_be_given() -> None:
    colours = np.array([[10, 20, 250], [250, 20, 10]], np.float32)
    image = _draw([(20, 60, 80, 190), (120, 60, 180, 190)], colours=colours)
    assert image[189, 50].tolist() == [10, 20, 250]
    assert image[189, 150].tolist() == [250, 20, 10]
    with pytest.raises(ShapeError, match=r"2 instances need colours of shape \(2, 3\), not \(1, 3\)"):
        _draw([(20, 60, 80, 190), (120, 60, 180, 190)], colours=colours[:1])


def test_in_a_crowd_letters_are_smaller_and_no_object_disappears() -> None:
    random = np.random.default_rng(0)
    corners = random.uniform([0, 0], [600, 340], (60, 2))
    boxes = [(float(x), float(y), float(x) + 30, float(y) + 12) for x, y in corners]
    image = _draw(boxes, (360, 640))
    plain = _draw(boxes, (360, 640), labels=False)
    labels = (image != plain).any(axis=2)
    for left, top, right, bottom in boxes:
        hidden = labels[int(top) : int(bottom), int(left) : int(right)]
        assert hidden.mean() < 0.85  # one label hides at most 40 % of a box
    # One label alone is larger than a label of the crowd.
    alone = (_draw(boxes[:1], (360, 640)) != _draw(boxes[:1], (360, 640), labels=False)).any(axis=2)
    assert labels.sum() < 60 * alone.sum()


@examples(60)
@given(
    st.lists(st.tuples(*[st.integers(-20, 120)] * 4), min_size=1, max_size=6),
    st.tuples(st.integers(1, 100), st.integers(1, 100)),
)
def test_any_boxes_in_any_picture_can_be_drawn_and_always_look_the_same(
    boxes: list[tuple[int, int, int, int]], size: tuple[int, int]
) -> None:
    given_boxes = np.array(boxes, np.float32)
    instances = make_instances(*size, [(0.0, 0.0, 0.0, 0.0)] * len(boxes))
    instances = Instances(given_boxes, instances.mask, instances.confidence, instances.class_id)
    images = [draw_instances(_gray(*size), instances, NAMES) for _ in range(2)]
    assert (images[0] == images[1]).all()


def test_labels_without_confidences_are_the_same_whatever_the_confidence_and_shorter() -> None:
    instances = make_instances(240, 320, [(100, 120, 200, 180)])
    sure = Instances(instances.xyxy, instances.mask, np.ones(1, np.float32), instances.class_id)
    unsure = Instances(instances.xyxy, instances.mask, np.full(1, 0.31, np.float32), instances.class_id)
    names, told = (
        [draw_instances(_gray(240, 320), one, NAMES, scores=scores) for one in (sure, unsure)]
        for scores in (False, True)
    )
    assert (names[0] == names[1]).all()
    assert not (told[0] == told[1]).all()
    assert _changed(names[0]).sum() < _changed(told[0]).sum()
