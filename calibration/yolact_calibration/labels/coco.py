"""Annotations in COCO's format: images, categories and instances, checked completely when they are read."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from yolact_calibration.errors import DatasetError, TextError
from yolact_calibration.labels.category_list import Category, drop_placeholders, read_category
from yolact_calibration.labels.fields import (
    FieldError,
    Id,
    listed,
    read_file_name,
    read_id,
    read_side,
    shown,
)
from yolact_calibration.labels.instance import CocoInstance, boxes_xyxy, read_instance
from yolact_calibration.labels.other_kinds import other_annotation, other_document, other_image
from yolact_calibration.labels.segmentation import Segmentation, draw
from yolact_plugins.files import counted
from yolact_plugins.text import decode_json, read_bytes
from yolact_runtime.masks.masks import Masks
from yolact_runtime.model.manifest_limits import MAX_FRAME_PIXELS

__all__ = ["CocoAnnotations", "CocoImage", "CocoInstance", "boxes_xyxy"]

Record = TypeVar("Record")
_LISTS = ("images", "annotations", "categories")
Instances = dict[Id, list[CocoInstance]]


@dataclasses.dataclass(frozen=True, slots=True)
class CocoImage:
    """Image of an annotation file.

    Attributes:
        image_id: COCO's ``id``.
        file_name: Path from the file, relative to the image folder.
        height: Number of rows of pixels.
        width: Number of columns of pixels.
    """

    image_id: Id
    file_name: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """Annotation file in which every number is finite and every reference is valid.

    Attributes:
        source: Name of the file, for messages.
        images: Images sorted by id, whole numbers before text.
        category_ids: COCO's ids in the order of the file, without placeholders; class ``c`` of a data set is
            ``category_ids[c]``.
        category_names: Names of the categories, which are unique.
        instances: Instances by image id, in the order of the file; images without any have no entry.
        sha256: SHA-256 of the file, hexadecimal.
        findings: Sentences about what was left out of the file, with counts.
    """

    source: str
    images: tuple[CocoImage, ...]
    category_ids: tuple[Id, ...]
    category_names: tuple[str, ...]
    instances: Mapping[Id, tuple[CocoInstance, ...]]
    sha256: str
    findings: tuple[str, ...] = ()

    @classmethod
    def from_file(cls, path: Path) -> CocoAnnotations:
        """Read an annotation file.

        Raises:
            DatasetError: The file cannot be read, or is not an annotation file of instances; the message says where.
        """
        with _paused_collector():
            try:
                content = read_bytes(path, what="the annotations ")
                digest = hashlib.sha256(content).hexdigest()
                # Numbers that are not finite are detected later, where the record that contains them can be named.
                document = decode_json(content, str(path), allow_nan=True)
            except TextError as error:
                raise DatasetError(str(error)) from error
            del content
            return cls._checked(document, str(path), digest, consume=True)

    @classmethod
    def from_document(cls, document: Any, source: str, sha256: str = "") -> CocoAnnotations:
        """Check a parsed file, which is not modified; `source` is its name for messages.

        Raises:
            DatasetError: The document is not an annotation file of instances; the message says where.
        """
        return cls._checked(document, source, sha256, consume=False)

    @classmethod
    def _checked(cls, document: Any, source: str, sha256: str, *, consume: bool) -> CocoAnnotations:
        images_list, entries, categories_list = _lists(document, source)
        images = _read_images(images_list, source)
        categories = _read_categories(categories_list, source)
        by_id = {image.image_id: image for image in images}
        reader = _InstanceReader(source, by_id, {category.category_id for category in categories})
        instances = reader.read(entries, consume=consume)
        used = {item.category_id for group in instances.values() for item in group}
        try:
            kept, findings = drop_placeholders(categories, used)
        except FieldError as error:
            raise DatasetError(f"{source}: {error}") from None
        return cls(
            source,
            images,
            tuple(category.category_id for category in kept),
            tuple(category.name for category in kept),
            {image_id: tuple(group) for image_id, group in instances.items()},
            sha256,
            (*findings, *reader.findings()),
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_instances(self) -> int:
        """Number of instances in all images, including crowds."""
        return sum(map(len, self.instances.values()))

    @property
    def num_outlines(self) -> int:
        """Number of instances with an outline; the others have a box only."""
        return sum(item.segmentation is not None for group in self.instances.values() for item in group)

    @property
    def has_boxes_only(self) -> bool:
        """Whether there are instances, and none of them has an outline."""
        return bool(self.instances) and not self.num_outlines

    def first(self, count: int) -> CocoAnnotations:
        """Return a copy with only the first `count` images, by id."""
        return self.only(image.image_id for image in self.images[:count])

    def only(self, image_ids: Iterable[Id]) -> CocoAnnotations:
        """Return a copy with only these images, still sorted by id; unknown ids are ignored."""
        wanted = set(image_ids)
        images = tuple(image for image in self.images if image.image_id in wanted)
        instances = {key: value for key, value in self.instances.items() if key in wanted}
        return dataclasses.replace(self, images=images, instances=instances)

    def masks(self, image: CocoImage) -> Masks:
        """Draw the masks of an image's instances, in the order of the file, as COCO does.

        An instance without an outline covers the pixels of its box.

        Raises:
            MissingDependencyError: There are polygons, and faster-coco-eval is not installed.
        """
        items = self.instances.get(image.image_id, ())
        outlines = [_box_outline(item, image) if item.segmentation is None else item.segmentation for item in items]
        return draw(outlines, image.height, image.width)


@contextlib.contextmanager
def _paused_collector() -> Iterator[None]:
    """Pause the garbage collector: it finds no cycles in millions of new objects, but adds half of the reading time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _box_outline(item: CocoInstance, image: CocoImage) -> Segmentation:
    """Return the part of the box inside the image."""
    (left, top, right, bottom) = boxes_xyxy([item])[0].astype(float).tolist()
    left, right = (min(max(x, 0.0), image.width) for x in (left, right))
    top, bottom = (min(max(y, 0.0), image.height) for y in (top, bottom))
    return (array("d", [left, top, right, top, right, bottom, left, bottom]),)


def _lists(document: Any, source: str) -> tuple[list[Any], list[Any], list[Any]]:
    if not isinstance(document, dict) or not set(_LISTS) <= set(document):
        found = listed([shown(key) for key in document]) if isinstance(document, dict) else shown(document)
        raise DatasetError(
            f"{source}: COCO annotations need the lists images, annotations and categories; found {found or 'none'}"
            + (f". {kind}" if (kind := other_document(document)) else "")
        )
    for name in _LISTS:
        if not isinstance(document[name], list):
            raise DatasetError(f"{source}: {name} is {shown(document[name])}; it must be a list of objects")
    return document["images"], document["annotations"], document["categories"]


def _located(source: str, name: str, index: int, entry: Any, error: FieldError) -> DatasetError:
    has_id = isinstance(entry, dict) and entry.get("id") is not None
    which = f"{name}[{index}]" + (f" (id {shown(entry['id'])})" if has_id else "")
    kind = ""
    if isinstance(entry, dict):
        kind = {"annotations": other_annotation, "images": other_image}.get(name, lambda _: "")(entry)
    return DatasetError(f"{source}: {which}: {error}{kind}")


def _read_all(
    name: str, entries: Sequence[Any], read: Callable[[Mapping[str, Any]], Record], source: str
) -> Iterator[Record]:
    for index, entry in enumerate(entries):
        try:
            yield read(_record(entry))
        except FieldError as error:
            raise _located(source, name, index, entry, error) from None


def _record(entry: Any) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise FieldError(f"found {shown(entry)}; it must be an object with fields")
    return entry


def _read_image(record: Mapping[str, Any]) -> CocoImage:
    height, width = read_side(record, "height"), read_side(record, "width")
    if height * width > MAX_FRAME_PIXELS:
        raise FieldError(f"{width} x {height} pixels exceed the maximum of {MAX_FRAME_PIXELS}")
    return CocoImage(read_id(record, "id"), read_file_name(record, "file_name"), height, width)


def _read_images(entries: Sequence[Any], source: str) -> tuple[CocoImage, ...]:
    images = list(_read_all("images", entries, _read_image, source))
    if not images:
        raise DatasetError(f"{source}: the list of images is empty")
    by_id: dict[Id, CocoImage] = {}
    by_file: dict[str, CocoImage] = {}
    for image in images:
        if image.image_id in by_id:
            raise DatasetError(f"{source}: two images have the same id, {shown(image.image_id)}")
        by_id[image.image_id] = image
        # Half of the objects in such a file would count as missing.
        twin = by_file.setdefault(image.file_name.replace("\\", "/"), image)
        if twin is not image:
            raise DatasetError(
                f"{source}: the images {shown(twin.image_id)} and {shown(image.image_id)} are the same file, "
                f"{shown(image.file_name)}; give it one entry with all its annotations"
            )
    return tuple(sorted(images, key=lambda image: (isinstance(image.image_id, str), image.image_id)))


def _read_categories(entries: Sequence[Any], source: str) -> list[Category]:
    categories = list(_read_all("categories", entries, read_category, source))
    if not categories:
        raise DatasetError(f"{source}: the list of categories is empty")
    seen: set[Id] = set()
    for category in categories:
        if category.category_id in seen:
            raise DatasetError(f"{source}: two categories have the same id, {shown(category.category_id)}")
        seen.add(category.category_id)
    return categories


class _InstanceReader:
    """Reader of the list of annotations, which notes what was left out of it."""

    def __init__(self, source: str, images: Mapping[Id, CocoImage], category_ids: set[Id]) -> None:
        self._source = source
        self._images = images
        self._category_ids = category_ids
        self._num_stray = 0
        self._with_stray: list[str] = []
        self._hopeless: list[str] = []

    def read(self, entries: list[Any], *, consume: bool) -> Instances:
        """Return instances by image id; with `consume`, the list's memory is freed while it is read."""
        groups: Instances = {}
        for index, entry in enumerate(entries):
            try:
                image = self._image(_record(entry))
                item, num_stray = read_instance(entry, image.height, image.width)
                self._require_category(item)
            except FieldError as error:
                raise _located(self._source, "annotations", index, entry, error) from None
            if num_stray:
                self._note(item, image, index, num_stray)
            groups.setdefault(image.image_id, []).append(item)
            if consume:
                entries[index] = None
        if self._hopeless:
            raise DatasetError(
                f"{self._source}: {counted(len(self._hopeless), 'annotation')} with a segmentation of points and lines "
                f"only, without an outline of 3 points or more: {listed(self._hopeless)}. Correct or remove them"
            )
        return groups

    def _image(self, record: Mapping[str, Any]) -> CocoImage:
        image = self._images.get(read_id(record, "image_id"))
        if image is None:
            raise FieldError(f"image_id is {shown(record['image_id'])}, which is not the id of an image")
        return image

    def _require_category(self, item: CocoInstance) -> None:
        if item.category_id not in self._category_ids:
            raise FieldError(f"category_id is {shown(item.category_id)}, which is not the id of a category")

    def _note(self, item: CocoInstance, image: CocoImage, index: int, num_stray: int) -> None:
        place = f"[{index}]" if item.annotation_id is None else str(item.annotation_id)
        name = f"{place} in {image.file_name}"
        if item.segmentation == ():
            self._hopeless.append(name)
        else:
            self._with_stray.append(name)
            self._num_stray += num_stray

    def findings(self) -> tuple[str, ...]:
        """Return sentences about what was left out."""
        if not self._num_stray:
            return ()
        return (
            f"left out: {counted(self._num_stray, 'piece')} with fewer than 3 different points beside the outlines of "
            f"{counted(len(self._with_stray), 'annotation')}: {listed(self._with_stray)}",
        )
