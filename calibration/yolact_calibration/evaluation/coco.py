"""Annotations in COCO's format: images, categories and instances, checked when they are read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import DatasetError, MissingDependencyError, ShapeError
from yolact_runtime.masks.masks import Masks

__all__ = ["CocoAnnotations", "CocoImage", "boxes_xyxy", "rasterise"]


@dataclasses.dataclass(frozen=True)
class CocoImage:
    """One image of the annotations.

    Attributes:
        image_id: COCO's ``id``.
        file_name: As in the file, relative to the image folder.
        height: Rows, pixels.
        width: Columns, pixels.
    """

    image_id: int
    file_name: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """An annotation file.

    Attributes:
        source: The file, for messages.
        images: Sorted by id.
        category_ids: COCO's ids in the order of the file; class ``c`` of a data set is ``category_ids[c]``.
        category_names: Their names.
        instances: By image id, the annotation objects of the file, in its order; images without any have no entry.
        sha256: Of the file, hexadecimal.
    """

    source: str
    images: tuple[CocoImage, ...]
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    instances: Mapping[int, tuple[Mapping[str, Any], ...]]
    sha256: str

    @classmethod
    def from_file(cls, path: Path) -> CocoAnnotations:
        """Read a file.

        Raises:
            DatasetError: It cannot be read, or is no annotation file of the instances kind; the message says where.
        """
        try:
            content = path.read_bytes()
            document = json.loads(content)
        except OSError as error:
            raise DatasetError(f"cannot read the annotations {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise DatasetError(f"{path}: not JSON: {error}") from error
        return cls.from_document(document, str(path), hashlib.sha256(content).hexdigest())

    @classmethod
    def from_document(cls, document: Any, source: str, sha256: str = "") -> CocoAnnotations:
        """Check a parsed file; `source` is its name for messages."""
        if not isinstance(document, dict) or not {"images", "annotations", "categories"} <= set(document):
            found = ", ".join(sorted(document)) if isinstance(document, dict) else f"a {type(document).__name__}"
            raise DatasetError(
                f"{source}: COCO annotations have the lists images, annotations and categories; found {found or 'none'}"
            )
        try:
            images = _read_images(document["images"], source)
            ids, names = _read_categories(document["categories"], source)
            instances = _group(document["annotations"], {image.image_id for image in images}, set(ids), source)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{source}: a field is missing or of the wrong kind: {error!r}") from error
        return cls(source, images, ids, names, instances, sha256)

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> CocoAnnotations:
        """Only the first `count` images, by id."""
        return self.only(image.image_id for image in self.images[:count])

    def only(self, image_ids: Any) -> CocoAnnotations:
        """Only these images, still sorted by id; unknown ids are ignored."""
        wanted = set(image_ids)
        images = tuple(image for image in self.images if image.image_id in wanted)
        instances = {key: value for key, value in self.instances.items() if key in wanted}
        return dataclasses.replace(self, images=images, instances=instances)

    def masks(self, image: CocoImage) -> Masks:
        """Masks of an image's instances, in the order of the file, rasterised as COCO does.

        Raises:
            DatasetError: A segmentation is neither polygons nor RLE of the image's size.
        """
        return rasterise([item.get("segmentation") for item in self.instances.get(image.image_id, ())], image)


def _read_images(entries: Sequence[Mapping[str, Any]], source: str) -> tuple[CocoImage, ...]:
    images = [
        CocoImage(int(entry["id"]), str(entry["file_name"]), int(entry["height"]), int(entry["width"]))
        for entry in entries
    ]
    if not images:
        raise DatasetError(f"{source}: no images in it")
    if len({image.image_id for image in images}) != len(images):
        raise DatasetError(f"{source}: two images have the same id")
    return tuple(sorted(images, key=lambda image: image.image_id))


def _read_categories(entries: Sequence[Mapping[str, Any]], source: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    ids, names = tuple(int(entry["id"]) for entry in entries), tuple(str(entry["name"]) for entry in entries)
    if not ids or len(set(ids)) != len(ids) or len(set(names)) != len(names):
        raise DatasetError(f"{source}: categories need an id and a name each, all different; found {len(ids)} of them")
    return ids, names


def _group(
    entries: Sequence[Mapping[str, Any]], image_ids: set[int], category_ids: set[int], source: str
) -> dict[int, tuple[Mapping[str, Any], ...]]:
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for entry in entries:
        if entry["image_id"] not in image_ids or entry["category_id"] not in category_ids:
            raise DatasetError(
                f"{source}: annotation {entry.get('id')} refers to image {entry['image_id']} and category "
                f"{entry['category_id']}; at least one of them is not listed"
            )
        if len(entry["bbox"]) != 4:
            raise DatasetError(f"{source}: annotation {entry.get('id')}: bbox has four numbers, x, y, width and height")
        groups.setdefault(int(entry["image_id"]), []).append(entry)
    return {key: tuple(value) for key, value in groups.items()}


def rasterise(segmentations: Sequence[Any], image: CocoImage) -> Masks:
    """Masks of COCO segmentations: lists of polygons, or RLE objects, compressed or not.

    Raises:
        DatasetError: One of them is neither, or an RLE of another size.
    """
    if not segmentations:
        return Masks.empty(0, image.height, image.width)
    documents = [_as_rle(segmentation, image) for segmentation in segmentations]
    try:
        return Masks.from_rle(documents)
    except ShapeError as error:
        raise DatasetError(f"{image.file_name}: {error}") from error


def _as_rle(segmentation: Any, image: CocoImage) -> dict[str, object]:
    size = [image.height, image.width]
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != size:
            raise DatasetError(
                f"{image.file_name}: a mask of size {segmentation.get('size')} in an image of {size} (height, width)"
            )
        if isinstance(segmentation.get("counts"), str | bytes):
            return segmentation
        polygons: Any = segmentation
        if not isinstance(segmentation.get("counts"), list):
            raise _not_a_segmentation(segmentation, image)
    elif isinstance(segmentation, list) and segmentation and all(map(_is_ring, segmentation)):
        polygons = [[float(value) for value in ring] for ring in segmentation]
    else:
        raise _not_a_segmentation(segmentation, image)
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise MissingDependencyError("faster-coco-eval", "Reading COCO polygons", "eval") from error
    encoded = mask.frPyObjects(polygons, *size)
    merged: dict[str, object] = mask.merge(encoded) if isinstance(encoded, list) else encoded
    return merged


def _is_ring(ring: Any) -> bool:
    return isinstance(ring, list) and len(ring) >= 6 and all(isinstance(value, int | float) for value in ring)


def _not_a_segmentation(segmentation: Any, image: CocoImage) -> DatasetError:
    return DatasetError(
        f"{image.file_name}: a segmentation is a list of polygons [x, y, x, y, ..] of 3 points or more, or RLE; found "
        f"{str(segmentation)[:60]}"
    )


def boxes_xyxy(instances: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
    """``(n, 4)`` float32 corners, pixels of the image, of annotation objects."""
    xywh = np.array([item["bbox"] for item in instances], np.float32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
