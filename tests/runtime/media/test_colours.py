from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import make_instances
from yolact_runtime.media.colours import InstanceColours, class_colours, instance_colour

Box = tuple[float, float, float, float]
A, B, C = (10, 10, 40, 40), (60, 10, 90, 40), (110, 10, 140, 40)


def _assign(keeper: InstanceColours, boxes: list[Box], class_id: list[int] | None = None) -> list[int]:
    """Numbers of the colours of a frame with these boxes."""
    colours = keeper.assign(make_instances(100, 200, boxes, class_id=class_id or [0] * len(boxes)))
    return [_number(colour) for colour in colours]


def _number(colour: npt.NDArray) -> int:
    return next(i for i in range(100) if (instance_colour(i) == colour).all())


def _moved(box: Box, by: float) -> Box:
    return box[0] + by, box[1], box[2] + by, box[3]


def test_a_class_has_its_colour_wherever_it_stands() -> None:
    colours = class_colours(np.array([3, 0, 3], np.int32))
    assert (colours == [instance_colour(3), instance_colour(0), instance_colour(3)]).all()
    assert class_colours(np.zeros(0, np.int32)).shape == (0, 3)


def test_colours_follow_the_instances_and_not_their_rank() -> None:
    keeper = InstanceColours()
    assert _assign(keeper, [A, B, C]) == [0, 1, 2]
    assert _assign(keeper, [_moved(C, 5), _moved(A, -5), _moved(B, 5)]) == [2, 0, 1]


def test_a_new_instance_takes_nobodys_colour() -> None:
    keeper = InstanceColours()
    _assign(keeper, [A, B])
    assert _assign(keeper, [C, B]) == [2, 1]
    # A was only missed.
    assert _assign(keeper, [A, C]) == [0, 2]


def test_the_colour_of_one_that_left_is_free_again_after_a_while() -> None:
    keeper = InstanceColours()
    _assign(keeper, [A, B])
    for _ in range(11):
        assert _assign(keeper, [B]) == [1]
    assert _assign(keeper, [C, B]) == [0, 1]


def test_another_class_in_the_same_place_is_another_instance() -> None:
    keeper = InstanceColours()
    _assign(keeper, [A], [0])
    assert _assign(keeper, [A, A], [1, 0]) == [1, 0]


def test_the_larger_overlap_wins() -> None:
    keeper = InstanceColours()
    _assign(keeper, [A])
    assert _assign(keeper, [_moved(A, 12), _moved(A, 2)]) == [1, 0]


def test_empty_frames_and_boxes_without_an_area() -> None:
    keeper = InstanceColours()
    assert keeper.assign(make_instances(100, 200, [])).shape == (0, 3)
    assert _assign(keeper, [(5, 5, 5, 5), A]) == [0, 1]
    assert keeper.assign(make_instances(100, 200, [])).shape == (0, 3)
    assert _assign(keeper, [A, (5, 5, 5, 5)]) == [1, 2]


_FRAMES = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-4, 4)), max_size=6, unique_by=lambda t: t[0]),
    min_size=1,
    max_size=8,
)


@examples(150)
@given(_FRAMES)
def test_no_two_instances_of_a_frame_share_a_colour_and_those_that_stay_keep_theirs(frames: list) -> None:
    """Four places far apart; in each frame some hold an object of some class, moved a little."""
    keeper, before = InstanceColours(), dict[tuple[int, int], int]()
    for frame in frames:
        boxes: list[Box] = [(50.0 * place + 5 + by, 10, 50.0 * place + 35 + by, 40) for place, _, by in frame]
        numbers = _assign(keeper, boxes, [class_id for _, class_id, _ in frame])
        assert len(set(numbers)) == len(numbers)
        now = {(place, class_id): number for (place, class_id, _), number in zip(frame, numbers, strict=True)}
        assert all(before[key] == number for key, number in now.items() if key in before)
        before |= now
