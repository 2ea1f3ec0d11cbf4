from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_runtime.media.label_layout import LabelLayout

Int = npt.NDArray[np.int64]
HEIGHT, WIDTH = 90, 120


def _boxes(*boxes: tuple[int, int, int, int]) -> Int:
    return np.array(boxes, np.int64).reshape(-1, 4)


def _covered(boxes: Int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.bool_]:
    covered = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes.tolist():
        covered[top:bottom, left:right] = True
    return covered


def _place_all(boxes: Int, rows: int, columns: int, covered: npt.NDArray[np.bool_] | None = None) -> list:
    layout = LabelLayout(boxes, _covered(boxes) if covered is None else covered)
    return [layout.place(i, rows, columns) for i in range(len(boxes))]


def _shared(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> int:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


_BOX = st.tuples(st.integers(0, WIDTH), st.integers(0, HEIGHT), st.integers(0, WIDTH), st.integers(0, HEIGHT)).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@examples(150)
@given(st.lists(_BOX, max_size=12), st.integers(1, 30), st.integers(1, 140))
def test_labels_lie_inside_on_no_other_label_and_hide_no_box(boxes: list, rows: int, columns: int) -> None:
    places = _place_all(_boxes(*boxes), rows, columns)
    assert places == _place_all(_boxes(*boxes), rows, columns)
    tags = [(x, y, x + columns, y + rows) for x, y in filter(None, places)]
    for i, tag in enumerate(tags):
        assert tag[0] >= 0
        assert tag[1] >= 0
        assert tag[2] <= WIDTH
        assert tag[3] <= HEIGHT
        assert not any(_shared(tag, other) for other in tags[:i])
        for box in boxes:
            assert _shared(tag, box) <= 0.4 * max((box[2] - box[0]) * (box[3] - box[1]), 1)


@examples(150)
@given(_BOX, st.integers(1, 20), st.integers(1, 50))
def test_one_label_alone_always_finds_a_place(box: tuple, rows: int, columns: int) -> None:
    (place,) = _place_all(_boxes(box), rows, columns)
    # There is room above, below or beside, or the box is so large that a label inside hides little of it.
    assert place is not None


def test_above_comes_first_then_inside_a_large_box_then_below_a_small_one() -> None:
    assert _place_all(_boxes((20, 40, 60, 80)), 10, 30) == [(20, 30)]
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    assert _place_all(_boxes((20, 0, 60, 80)), 10, 30, nothing) == [(20, 0)]
    assert _place_all(_boxes((20, 0, 60, 12)), 10, 30) == [(20, 12)]


def test_a_label_goes_where_no_object_is() -> None:
    boxes = _boxes((40, 40, 80, 80), (40, 20, 80, 39))
    # Above the first box is the second one.
    first, second = _place_all(boxes, 10, 40)
    assert first == (40, 80)
    assert second == (40, 10)


def test_the_one_that_asks_first_has_the_best_place() -> None:
    places = _place_all(_boxes((20, 40, 60, 80), (20, 40, 60, 80)), 10, 30, np.zeros((HEIGHT, WIDTH), bool))
    assert places[0] == (20, 30)
    assert places[1] not in {None, places[0]}


def test_what_is_larger_than_the_picture_has_no_place() -> None:
    assert _place_all(_boxes((20, 40, 60, 80)), 10, WIDTH + 1) == [None]
    assert _place_all(_boxes((20, 40, 60, 80)), HEIGHT + 1, 10) == [None]
    assert _place_all(_boxes((20, 40, 60, 80)), 10, 0) == [None]


def test_pictures_of_less_than_a_cell() -> None:
    for height, width in ((1, 1), (3, 2), (1, 50), (5, 4)):
        boxes = _boxes((0, 0, width, height), (0, 0, 0, 0), (width, height, width, height))
        layout = LabelLayout(boxes, _covered(boxes[:1], height, width))
        for i in range(3):
            place = layout.place(i, 1, 1)
            assert place is None or (0 <= place[0] < width and 0 <= place[1] < height)
