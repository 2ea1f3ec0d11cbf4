"""Labels: every field of every record, with everything that a program may have written there."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from yolact_benchmarks.studies.bad_inputs.case import Case
from yolact_benchmarks.studies.bad_inputs.ground import Ground
from yolact_benchmarks.studies.bad_inputs.texts import evaluated, same_figures

__all__ = ["label_cases"]

_MISSING = object()
_HOSTILE: dict[str, Any] = {
    "missing": _MISSING,
    "null": None,
    "text": "abc",
    "empty text": "",
    "true": True,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-1": -1,
    "0.5": 0.5,
    "1e300": 1e300,
    "10**30": 10**30,
    "empty list": [],
    "list in list": [[[[1]]]],
    "object": {"a": {"b": 1}},
}
_FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"),
}


def label_cases(ground: Ground) -> Iterator[Case]:
    """Each field of the first records, each list as a whole, and parts of boxes, outlines and run lengths."""
    reference = evaluated(ground, ground.annotations)
    for name, document in _documents(ground.document):
        folder = ground.new_folder()
        (folder / "a.json").write_text(json.dumps(document))
        result = folder / "r.json"
        words = ground.eval_words(folder / "a.json", result)
        yield Case("labels: a field", name, "yolact-eval", words, same_figures(result, reference))


def _documents(sound: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in _HOSTILE.items():
        for kind, fields in _FIELDS.items():
            yield f"{kind} {name}", _changed(sound, (kind,), value)
            yield f"{kind}[0] {name}", _changed(sound, (kind, 0), value)
            for field in fields:
                yield f"{kind}[0].{field} {name}", _changed(sound, (kind, 0, field), value)
        for i in range(4):
            yield f"bbox[{i}] {name}", _changed(sound, ("annotations", 0, "bbox", i), value)
        for key in ("size", "counts"):
            yield f"segmentation.{key} {name}", _changed(sound, ("annotations", 0, "segmentation", key), value)
        outlined = _changed(sound, ("annotations", 0, "segmentation"), [[10, 10, 30, 10, 30, 30], [5, 5, 9, 5, 9, 9]])
        yield f"outline's piece {name}", _changed(outlined, ("annotations", 0, "segmentation", 1), value)
        yield f"outline's number {name}", _changed(outlined, ("annotations", 0, "segmentation", 0, 2), value)
        yield f"the file {name}", None if value is _MISSING else value


def _changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy with another value, or none, in one place."""
    made = copy.deepcopy(document)
    place = made
    for step in path[:-1]:
        place = place[step]
    if value is not _MISSING:
        place[path[-1]] = value
    else:
        del place[path[-1]]
    return made
