"""Tries with labels: every field of every record, with every kind of wrong value."""

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
    """Yield tries with each field of the first records, each list as a whole, and parts of boxes, outlines and runs."""
    x, y, width, height = ground.document["annotations"][0]["bbox"]
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    outlined = _changed(ground.document, ("annotations", 0, "segmentation"), [outline])
    for sound, documents in ((ground.document, _fields), (outlined, _outlines)):
        path = ground.new_folder() / "sound.json"
        path.write_text(json.dumps(sound))
        reference = evaluated(ground, path)
        for name, document in documents(sound):
            folder = ground.new_folder()
            (folder / "a.json").write_text(json.dumps(document))
            result = folder / "r.json"
            words = ground.eval_words(folder / "a.json", result)
            yield Case("labels: a field", name, "yolact-eval", words, same_figures(result, reference))


def _fields(sound: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in _HOSTILE.items():
        for kind, fields in _FIELDS.items():
            yield f"{kind} {name}", _changed(sound, (kind,), value)
            if (kind, value) != ("annotations", _MISSING):
                # No record refers to an annotation, so removing one is not an error.
                yield f"{kind}[0] {name}", _changed(sound, (kind, 0), value)
            for field in fields:
                if (field, value) != ("iscrowd", True):
                    yield f"{kind}[0].{field} {name}", _changed(sound, (kind, 0, field), value)
        for i in range(4):
            yield f"bbox[{i}] {name}", _changed(sound, ("annotations", 0, "bbox", i), value)
        for key in ("size", "counts"):
            yield f"segmentation.{key} {name}", _changed(sound, ("annotations", 0, "segmentation", key), value)
        yield f"the file {name}", None if value is _MISSING else value


def _outlines(sound: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    place = ("annotations", 0, "segmentation")
    (outline,) = sound["annotations"][0]["segmentation"]
    for name, value in _HOSTILE.items():
        for number in range(6):
            yield f"outline's number {number} {name}", _changed(sound, (*place, 0, number), value)
        added = _changed(sound, place, [outline, None])
        yield f"a piece beside an outline: {name}", _changed(added, (*place, 1), value)
    for name, piece in {"a point": [5, 5], "a line": [5, 5, 9, 9], "half a point": [5, 5, 9, 9, 9]}.items():
        yield f"a piece beside an outline: {name}", _changed(sound, place, [outline, piece])
        yield f"an outline that is {name}", _changed(sound, place, [piece])


def _changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy in which one value is replaced or removed."""
    made = copy.deepcopy(document)
    place = made
    for step in path[:-1]:
        place = place[step]
    if value is not _MISSING:
        place[path[-1]] = value
    else:
        del place[path[-1]]
    return made
