"""Matching of a model's classes to the categories of a data set, by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from yolact_calibration.errors import DatasetError
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.labels.fields import Id

__all__ = ["CategoryMatch", "match_categories"]

_NAMES_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class CategoryMatch:
    """Classes of a model with the corresponding categories of a data set.

    Attributes:
        category_ids: Category id of each class of the model, or None if the data set has no such category.
        findings: Sentences about classes and categories without a counterpart.
    """

    category_ids: tuple[Id | None, ...]
    findings: tuple[str, ...]


def match_categories(class_names: Sequence[str], annotations: CocoAnnotations) -> CategoryMatch:
    """Match classes by name: exactly, or else without regard to case, spaces, hyphens and underscores.

    Args:
        class_names: Class names of the model by class id.
        annotations: Annotations of the data set.

    Raises:
        DatasetError: No name is common to both, or a name has several counterparts.
    """
    exact = dict(zip(annotations.category_names, annotations.category_ids, strict=True))
    loose: dict[str, list[str]] = {}
    for name in annotations.category_names:
        loose.setdefault(_plain(name), []).append(name)
    found = [_counterpart(name, exact, loose, annotations.source) for name in class_names]
    matched = [name for name in found if name is not None]
    if not matched:
        raise DatasetError(
            f"{annotations.source} and the model have no class in common; the model has {_listed(class_names)}, the "
            f"data set {_listed(annotations.category_names)}. Rename the categories to the names of the model's classes"
        )
    repeated = sorted({name for name in matched if matched.count(name) > 1})
    if repeated:
        claims = [name for name, counterpart in zip(class_names, found, strict=True) if counterpart == repeated[0]]
        raise DatasetError(
            f'{annotations.source}: the category "{repeated[0]}" could be each of the model\'s classes '
            f"{_listed(claims)}; give it exactly the name of one"
        )
    ids = tuple(None if name is None else exact[name] for name in found)
    return CategoryMatch(ids, _findings(class_names, found, annotations))


def _plain(name: str) -> str:
    """Return `name` without the differences of spelling that are ignored, or `name` itself if nothing remains."""
    return re.sub(r"[\s_-]+", "", name).casefold() or name


def _counterpart(name: str, exact: dict[str, Id], loose: dict[str, list[str]], source: str) -> str | None:
    if name in exact:
        return name
    candidates = loose.get(_plain(name), [])
    if len(candidates) > 1:
        raise DatasetError(
            f'{source}: the model\'s class "{name}" could be each of the categories {_listed(candidates)}; give one of '
            f"them exactly its name"
        )
    return candidates[0] if candidates else None


def _findings(class_names: Sequence[str], found: Sequence[str | None], annotations: CocoAnnotations) -> tuple[str, ...]:
    findings = []
    unknown = [name for name, counterpart in zip(class_names, found, strict=True) if counterpart is None]
    if unknown:
        findings.append(
            f"{len(unknown)} of the model's {len(class_names)} classes are not in the data set, and what it finds of "
            f"them does not count: {_listed(unknown)}"
        )
    missing = [name for name in annotations.category_names if name not in set(found)]
    if missing:
        findings.append(
            f"{len(missing)} of the data set's {len(annotations.category_names)} categories are unknown to the model; "
            f"their instances count as not found: {_listed(missing)}"
        )
    return tuple(findings)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown
