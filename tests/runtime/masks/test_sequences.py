"""Instances and masks are sequences: integers as in a list, slices and arrays as in NumPy, nothing else."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import make_instances
from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.instance import Instance
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.mask import Mask
from yolact_runtime.masks.masks import Masks

NAMES = ("cat", "dog", "bird")


def scene(count: int, rescored: bool = False, names: tuple[str, ...] | None = NAMES) -> Instances:
    """Instances that differ in everything; every fourth mask is empty."""
    boxes = [(i, 0.5 * i, i + (0 if i % 4 == 3 else 3), 5.0) for i in range(count)]
    found = make_instances(
        9, 12, boxes, [i % 3 for i in range(count)], [0.5 - i / 100 for i in range(count)] if rescored else None
    )
    return Instances(found.xyxy, found.mask, found.confidence, found.class_id, found.mask_confidence, names)


def facts(one: Instance) -> tuple[Any, ...]:
    return (
        tuple(one.xyxy.tolist()),
        one.mask.dense().tobytes(),
        one.confidence,
        one.class_id,
        one.class_name,
        one.mask_confidence,
    )


def listed(instances: Instances) -> list[tuple[Any, ...]]:
    """The same by way of whole arrays, which no index has touched."""
    scores = instances.mask_confidence
    return [
        (
            tuple(instances.xyxy.tolist()[i]),
            instances.mask.dense()[i].tobytes(),
            instances.confidence.tolist()[i],
            instances.class_id.tolist()[i],
            None if instances.class_names is None else instances.class_names[instances.class_id[i]],
            None if scores is None else scores.tolist()[i],
        )
        for i in range(len(instances))
    ]


counts = st.integers(0, 6)
whole = st.integers(-9, 9)
slices = st.builds(slice, st.none() | whole, st.none() | whole, st.none() | whole.filter(bool))


class OwnInteger:
    """An integer of another library, which a list takes."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Unprintable:
    """An object whose text fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


integers = st.sampled_from([int, np.int8, np.int64, np.int32, np.array, OwnInteger])


@examples(150)
@given(counts, whole, integers, st.booleans(), st.sampled_from([NAMES, None]))
def test_an_integer_selects_what_a_list_selects(
    count: int, index: int, kind: Any, rescored: bool, names: tuple[str, ...] | None
) -> None:
    instances = scene(count, rescored, names)
    if not -count <= index < count:
        for sequence in (instances, instances.mask):
            with pytest.raises(IndexError, match=f"^index {index} is out of range: there are {count}$"):
                sequence[kind(index)]
        return
    one = instances[kind(index)]
    assert isinstance(one, Instance)
    assert (type(one.confidence), type(one.class_id), one.xyxy.dtype) == (float, int, np.float32)
    assert facts(one) == listed(instances)[index]
    assert instances.mask[kind(index)] == one.mask


@examples(150)
@given(counts, slices, st.booleans())
def test_a_slice_selects_what_a_list_selects(count: int, index: slice, rescored: bool) -> None:
    instances = scene(count, rescored)
    selected = instances[index]
    assert isinstance(selected, Instances)
    assert listed(selected) == listed(instances)[index]
    assert [mask.dense().tobytes() for mask in instances.mask[index]] == [fields[1] for fields in listed(selected)]


@examples(150)
@given(st.data(), counts, st.sampled_from([list, np.array, lambda found: np.array(found, np.int8)]))
def test_lists_and_arrays_select_in_their_order(data: st.DataObject, count: int, kind: Any) -> None:
    instances, everything = scene(count), listed(scene(count))
    indices = data.draw(st.lists(st.integers(-count - 1, count), max_size=5) if count else st.just([]))
    if any(not -count <= i < count for i in indices):
        with pytest.raises(IndexError, match="is out of range"):
            instances[kind(indices)]
    else:
        given = kind(indices) if indices else []  # NumPy makes floats of nothing
        assert listed(instances[given]) == [everything[i] for i in indices]
    flags = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    chosen = flags if kind is list else np.array(flags, bool)
    assert listed(instances[chosen]) == list(itertools.compress(everything, flags))
    assert instances.mask[chosen] == instances[chosen].mask


@pytest.mark.parametrize("count", [0, 1, 5])
def test_iteration_gives_each_once(count: int) -> None:
    instances = scene(count)
    assert [facts(one) for one in instances] == listed(instances)
    assert list(instances.mask) == [one.mask for one in instances]
    assert [one.class_id for one in reversed(instances)] == instances.class_id.tolist()[::-1]  # type: ignore[call-overload]  # by the protocol of sequences


@pytest.mark.parametrize(
    "index",
    [
        True,
        np.True_,
        None,
        "0",
        b"0",
        1.0,
        np.float32(1),
        (0, 1),
        (),
        ...,
        {0},
        [0.5],
        ["a"],
        [None],
        [[0]],
        [[0], [1, 2]],
        np.array([0.0]),
        np.array([]),
        np.array([[0]]),
        np.array([[True, False]]),
        [1 << 70],
        [10**5000],
        Unprintable(),
        [Unprintable()],
        type,
    ],
)
def test_anything_else_is_a_type_error_that_says_what_it_may_be(index: Any) -> None:
    instances = scene(2)
    for sequence in (instances, instances.mask):
        with pytest.raises(
            TypeError, match=r"^an index is an integer, a slice, or a list or array of integers or bool"
        ):
            sequence[index]


@pytest.mark.parametrize("index", [True, np.True_, 1.0, [0], slice(1), None])
def test_one_mask_has_an_integer_index(index: Any) -> None:
    for method in (scene(2).mask.window, scene(2).mask.polygons):
        with pytest.raises(TypeError, match=r"^(an index is an integer|one mask has an integer index, found )"):
            method(index)


@pytest.mark.parametrize("flags", [[True], np.array([True] * 3), np.zeros(0, bool)])
def test_booleans_of_another_length_are_refused(flags: Any) -> None:
    with pytest.raises(IndexError, match=rf"expected 2, found {len(flags)}"):
        scene(2)[flags]


def test_a_number_of_thousands_of_digits_is_out_of_range_too() -> None:
    with pytest.raises(IndexError, match="out of range: there are 2"):
        scene(2)[10**5000]


def test_one_instance_is_a_view() -> None:
    instances = scene(3)
    assert np.shares_memory(instances[1].xyxy, instances.xyxy)
    assert np.shares_memory(instances.mask[1].start, instances.mask[1].start)
    assert np.shares_memory(instances[:2].xyxy, instances.xyxy)


def test_class_names_are_shared_and_kept() -> None:
    instances = scene(3)
    assert instances.class_names is NAMES
    assert instances[[2, 0]].class_names is NAMES
    assert instances[instances.class_id == 1].class_names is NAMES
    assert [one.class_name for one in instances] == list(NAMES)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize("count", [0, 3])
def test_copies_and_pickles_have_the_same_facts(duplicate: Any, count: int) -> None:
    instances = scene(count, rescored=True)
    same = duplicate(instances)
    assert listed(same) == listed(instances)
    assert same.class_names == NAMES
    assert [facts(duplicate(one)) for one in instances] == listed(instances)
    assert duplicate(instances.mask) == instances.mask
    assert [duplicate(mask) for mask in instances.mask] == list(instances.mask)


@pytest.mark.parametrize("class_id", [3, -1])
def test_a_class_without_a_name_is_an_error_and_no_other_class(class_id: int) -> None:
    found = scene(1)
    wrong = Instances(found.xyxy, found.mask, found.confidence, np.array([class_id], np.int32), None, NAMES)
    with pytest.raises(ShapeError, match=f"^class_id {class_id} has no name: there are 3 class_names$"):
        wrong[0]
    assert repr(wrong) == f"<Instances: 1 in a frame of 12 x 9: class {class_id} 0.90>"  # a text must not fail


def test_what_they_print() -> None:
    instances = scene(5, rescored=True)
    assert repr(instances) == "<Instances: 5 in a frame of 12 x 9: cat 0.90, dog 0.89, bird 0.88, …>"
    assert repr(instances[:1]) == "<Instances: 1 in a frame of 12 x 9: cat 0.90>"
    assert repr(instances[:0]) == "<Instances: 0 in a frame of 12 x 9>"
    assert repr(instances[1]) == "<Instance: dog 0.89, box (1, 0, 4, 5), 15 pixels>"
    assert repr(instances.mask) == "<Masks: 5 of 12 x 9 pixels, 12 runs>"
    assert repr(instances.mask[0]) == "<Mask: 15 of 12 x 9 pixels, 3 runs>"
    assert repr(scene(1, names=None)) == "<Instances: 1 in a frame of 12 x 9: class 0 0.90>"
    assert repr(scene(1, names=("\x1b[31m" + "x" * 99, "b", "c"))[0]).startswith(r"<Instance: \x1b[31mxxx")


def test_a_printed_line_stays_short() -> None:
    assert len(repr(scene(5, names=("x" * 500, "y" * 500, "z" * 500)))) < 200


# --- one mask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int64, np.int32])
@examples(100)
@given(st.data())
def test_one_mask_is_what_the_masks_say_of_it(kind: Any, data: st.DataObject) -> None:
    height, width, count = (data.draw(st.integers(1, top)) for top in (7, 8, 3))
    pixels = data.draw(st.lists(st.booleans(), min_size=count * height * width, max_size=count * height * width))
    dense = np.array(pixels, bool).reshape(count, height, width)
    made = Masks.from_dense(dense)
    masks = Masks.from_columns(*(array.astype(kind) for array in (made.offset, made.start, made.end)), height, width)
    for i, mask in enumerate(masks):
        assert (mask.height, mask.width, mask.start.dtype) == (height, width, kind)
        assert (mask.dense() == dense[i]).all()
        assert mask.dense().flags.c_contiguous
        assert mask.area() == dense[i].sum()
        assert mask.rle() == masks.rle()[i]
        assert mask.bounds() == tuple(masks.bounds()[i])
        assert all((a == b).all() for a, b in zip(mask.polygons(), masks.polygons(i), strict=True))
        left, top, window = mask.window()
        assert (window == dense[i, top : top + len(window), left : left + window.shape[1]]).all()
        assert window.sum() == mask.area()
        assert pickle.loads(pickle.dumps(mask)) == mask


def test_masks_are_equal_where_their_pixels_and_frames_are() -> None:
    one, other = Masks.from_dense(np.eye(3, dtype=bool)[None])[0], Masks.from_dense(np.eye(3, dtype=bool)[None])[0]
    assert one == other
    assert one != Masks.from_dense(~np.eye(3, dtype=bool)[None])[0]
    assert one != Masks.empty(1, 3, 3)[0]
    assert Masks.empty(1, 3, 4)[0] != Masks.empty(1, 4, 3)[0]
    assert one != "mask"
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    with pytest.raises(AttributeError):
        one.height = 3  # type: ignore[misc]
    assert isinstance(one, Mask)
