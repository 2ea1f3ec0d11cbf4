"""Placeholders: categories that some tools write and that are no classes."""

from __future__ import annotations

from typing import Any

import pytest

from yolact_calibration.labels.category_list import drop_placeholders, read_category
from yolact_calibration.labels.fields import FieldError


def kept(*records: dict[str, Any], used: tuple[int, ...] = ()) -> tuple[list[Any], tuple[str, ...]]:
    categories, findings = drop_placeholders([read_category(record) for record in records], set(used))
    return [category.category_id for category in categories], findings


DISC, STAR = {"id": 1, "name": "disc"}, {"id": 2, "name": "star"}


def test_a_class_without_annotations_stays_a_class() -> None:
    """Of COCO's 80 categories a subset may have annotations of a few."""
    assert kept(DISC, STAR) == ([1, 2], ())
    assert kept(DISC, STAR, used=(2,)) == ([1, 2], ())
    parent = {"supercategory": "shape"}
    assert kept(DISC | parent, STAR | parent, {"id": 3, "name": "shape", "supercategory": "shape"}) == ([1, 2, 3], ())


@pytest.mark.parametrize("name", ["_background_", "__background__", "background", "Background"])
def test_background_is_no_class(name: str) -> None:
    ids, findings = kept({"id": 0, "name": name}, DISC)
    assert ids == [1]
    assert findings == (
        f"ignored as a category without annotations that is the background, not a class: {name} (id 0)",
    )


def test_a_background_that_somebody_annotated_is_a_class() -> None:
    assert kept({"id": 0, "name": "background"}, DISC, used=(0,)) == ([0, 1], ())


@pytest.mark.parametrize("used", [(2,), ()])
def test_a_placeholder_with_the_name_of_a_class_gives_way(used: tuple[int, ...]) -> None:
    ids, findings = kept({"id": 0, "name": "star", "supercategory": "none"}, DISC, STAR, used=used)
    assert ids == [1, 2]
    assert findings == (
        "ignored as a category without annotations that shares its name with another category: star (id 0)",
    )


def test_two_annotated_categories_of_one_name_are_refused() -> None:
    with pytest.raises(FieldError, match="two categories with annotations have the same name, 'star'"):
        kept(STAR, {"id": 3, "name": "star"}, used=(2, 3))


@pytest.mark.parametrize("parent", [{}, {"supercategory": "shapes"}])
def test_the_name_of_the_whole_data_set_is_no_class(parent: dict[str, str]) -> None:
    """As Roboflow writes it, with or without a word of it in the classes."""
    ids, findings = kept({"id": 0, "name": "shapes", "supercategory": "none"}, DISC | parent, STAR | parent)
    assert ids == [1, 2]
    assert findings == ("ignored as a category without annotations that stands for the whole data set: shapes (id 0)",)


def test_none_as_the_supercategory_of_all_says_nothing() -> None:
    none = {"supercategory": "none"}
    assert kept({"id": 0, "name": "a"} | none, DISC | none, used=(1,)) == ([0, 1], ())
    assert kept({"id": 0, "name": "only"} | none) == ([0], ())


def test_nothing_but_placeholders_is_refused() -> None:
    with pytest.raises(FieldError, match="none of the 1 categories is a class"):
        kept({"id": 0, "name": "_background_"})
