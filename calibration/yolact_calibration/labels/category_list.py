"""Categories of an annotation file: the classes, without the placeholders that some tools add to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from yolact_calibration.labels.fields import FieldError, Id, read_id, read_name, shown

__all__ = ["Category", "drop_placeholders", "read_category"]

# labelme's label for pixels outside of objects, and other spellings of it.
_BACKGROUND = frozenset({"_background_", "__background__", "background"})


@dataclasses.dataclass(frozen=True)
class Category:
    """Category of an annotation file.

    Attributes:
        category_id: Id of the category.
        name: Name of the category.
        parent: Name of its supercategory; None if it has none.
    """

    category_id: Id
    name: str
    parent: str | None


def read_category(record: Mapping[str, Any]) -> Category:
    """Check an entry of the list of categories.

    Raises:
        FieldError: Its id or name is missing or has the wrong type.
    """
    parent = record.get("supercategory")
    return Category(read_id(record, "id"), read_name(record, "name"), parent if isinstance(parent, str) else None)


def drop_placeholders(categories: Sequence[Category], used: Collection[Id]) -> tuple[list[Category], tuple[str, ...]]:
    """Return the classes, and a sentence for each kind of category that is not a class.

    A category with annotations is always a class. One without annotations is a placeholder if it is called background,
    if another category has its name, or if it is Roboflow's name for the whole data set: the only one of the
    supercategory "none", and either the supercategory of others or the first in the list, with the id 0. All others are
    classes without instances in this file.

    Args:
        categories: Categories in the order of the file; their ids are unique.
        used: Ids of categories with annotations.

    Raises:
        FieldError: Two categories with annotations have the same name, or no class is left.
    """
    unused = [category for category in categories if category.category_id not in used]
    background = [category for category in unused if category.name.casefold() in _BACKGROUND]
    twins = _twins([category for category in categories if category not in background], used)
    dropped = background + twins
    whole = [category for category in unused if category not in dropped and _is_whole_set(category, categories)]
    dropped += whole
    rest = [category for category in categories if category not in dropped]
    if not rest:
        raise FieldError(f"none of the {len(categories)} categories is a class; name at least one after the objects")
    findings = (
        _sentence(background, "is the background, not a class"),
        _sentence(twins, "shares its name with another category"),
        _sentence(whole, "stands for the whole data set"),
    )
    return rest, tuple(finding for finding in findings if finding)


def _is_whole_set(category: Category, categories: Sequence[Category]) -> bool:
    others = [other for other in categories if other is not category]
    if category.parent != "none" or not others or any(other.parent == "none" for other in others):
        return False
    is_parent = any(other.parent == category.name for other in others)
    return is_parent or (category.category_id == 0 and category is categories[0])


def _twins(categories: Sequence[Category], used: Collection[Id]) -> list[Category]:
    """Return categories without annotations that share their name with one that stays."""
    groups: dict[str, list[Category]] = {}
    for category in categories:
        groups.setdefault(category.name, []).append(category)
    twins = []
    for name, group in groups.items():
        annotated = [category for category in group if category.category_id in used]
        if len(annotated) > 1:
            raise FieldError(f"two categories with annotations have the same name, {shown(name)}; rename or merge them")
        stays = annotated[0] if annotated else next((c for c in group if c.parent != "none"), group[0])
        twins += [category for category in group if category is not stays]
    return twins


def _sentence(categories: Sequence[Category], reason: str) -> str:
    if not categories:
        return ""
    names = ", ".join(f"{category.name} (id {category.category_id})" for category in categories[:5])
    more = f" and {len(categories) - 5} more" if len(categories) > 5 else ""
    each = "" if len(categories) == 1 else "each "
    return f"ignored as a category without annotations that {each}{reason}: {names}{more}"
