"""Invalid annotation files: one field at a time, replaced by values that other programs and accidents produce.

A small file with every kind of record is changed in one place for each pair of a field and a hostile value, and has
records and fields removed and duplicated. A reader must read such a file correctly, or refuse it with an error message.
The documents are plain Python objects, as ``json.loads`` returns them; ``json.dumps`` writes all of them, with ``NaN``
and ``Infinity`` as JavaScript and Python spell them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["CLASS_NAMES", "HOSTILE_VALUES", "hostile_documents", "nested", "valid_document"]

CLASS_NAMES = ("cat", "dog")
_NOTHING = object()


def nested(depth: int) -> list[Any]:
    """Return a list nested to the given depth."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE_VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "negative": -1,
    "fraction": 1.5,
    "whole float": 2.0,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "negative infinity": float("-inf"),
    "1e300": 1e300,
    "-1e300": -1e300,
    "1e-320": 1e-320,
    "10**30": 10**30,
    "2**63": 2**63,
    "-2**64": -(2**64),
    "four billion": 2**32,
    "ten million": 10**7,
    "empty text": "",
    "text": "img_7",
    "text of a number": "12",
    "long text": "x" * 100_000,
    "odd text": "a\0b\x1b[2J\u202e",
    "empty list": [],
    "list": [1, 2, 3],
    "list of null": [None, None, None, None],
    "list of NaN": [float("nan")] * 4,
    "list of huge": [1e300, -1e300, 10**30, 1e300],
    "list of rings": [[1, 2, 3, 4, 5, "6"], [None]],
    "far ring": [[0, 0, 10**7, 0, 10**7, 10**7]],
    "empty object": {},
    "object": {"size": [1, 1], "counts": [1]},
    "nested": nested(500),
}
"""Name of a kind of value -> the value."""


def valid_document() -> dict[str, Any]:
    """Return three images, two categories with a parent, and annotations of polygons, both forms of RLE, and a box."""
    ring = [2.0, 2.0, 20.5, 3.0, 18, 14.25, 4, 12]
    plain = {"size": [24, 32], "counts": [100, 5, 19, 5, 24 * 32 - 129]}
    packed = {"size": [24, 32], "counts": "k37a0000000000000000000000000000m8"}
    common = {"category_id": 1, "bbox": [2, 2, 18.5, 12.25], "area": 180.0, "iscrowd": 0}
    image = {"height": 24, "width": 32, "license": 1}
    document: dict[str, Any] = {
        "info": {"year": 2026},
        "images": [{"id": number, "file_name": f"{number}.png", **image} for number in (1, 2, 3)],
        "categories": [{"id": c, "name": name, "supercategory": "animal"} for c, name in enumerate(CLASS_NAMES, 1)],
        "annotations": [
            {"id": 11, "image_id": 1, **common, "segmentation": [ring, [5, 15, 9, 15, 9, 20]]},
            {"id": 12, "image_id": 1, **common, "segmentation": packed, "category_id": 2},
            {"id": 13, "image_id": 2, **common, "segmentation": plain, "iscrowd": 1},
            {"id": 14, "image_id": 3, **common, "segmentation": None},
        ],
    }
    # No record shares a list with another.
    for entry in document["annotations"]:
        entry["bbox"] = [*entry["bbox"]]
    return document


def hostile_documents() -> Iterator[tuple[str, Any]]:
    """Yield every changed file with a description, such as ``"annotations[0].bbox = NaN"``; about two thousand.

    The records belong to the caller; the hostile values are shared.
    """
    for path in _places(valid_document()):
        for kind, value in HOSTILE_VALUES.items():
            yield f"{_name(path)} = {kind}", _changed(path, value)
        if isinstance(path[-1], str):
            yield f"{_name(path)} missing", _changed(path, _NOTHING)
    for name in ("images", "categories", "annotations"):
        document = valid_document()
        document[name].append({**document[name][0]})
        yield f"{name} with one twice", document
        document = valid_document()
        del document[name][0]
        yield f"{name} without the first", document
    for kind, value in HOSTILE_VALUES.items():
        yield f"the whole file = {kind}", value


def _places(document: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """Yield paths of lists, records, their fields, and parts of boxes and segmentations; equal records once."""
    for name in ("images", "categories", "annotations"):
        yield (name,)
        records = document[name] if name == "annotations" else document[name][:1]
        for index, record in enumerate(records):
            yield name, index
            fields = ["segmentation"] if name == "annotations" and index in (1, 2) else list(record)
            for field in fields:
                yield name, index, field
                value = record[field]
                if field == "segmentation" and isinstance(value, dict):
                    yield from ((name, index, field, key) for key in value)
                    yield name, index, field, "size", 0
                elif field == "bbox":
                    yield from ((name, index, field, place) for place in range(4))
                elif field == "segmentation" and value:
                    yield name, index, field, 1
                    yield name, index, field, 1, 2
    yield "annotations", 2, "segmentation", "counts", 1


def _name(path: tuple[str | int, ...]) -> str:
    text = str(path[0])
    for step in path[1:]:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text


def _changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document = valid_document()
    target: Any = document
    for step in path[:-1]:
        target = target[step]
    if value is _NOTHING:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return document
