"""Files that are not COCO instances but are mistaken for them: recognised by their keys, with advice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["other_annotation", "other_document", "other_image"]

_WANTED = "give instances, such as COCO's instances_*.json"


def other_document(document: Any) -> str:
    """Return a sentence about a document that is not COCO instances; empty if its kind is not recognised."""
    if isinstance(document, list):
        first = document[0] if document and isinstance(document[0], dict) else {}
        if {"image_id", "score"} <= set(first):
            return f"These are results (detections) in COCO's format, not labels; {_WANTED}"
        if {"data", "annotations"} <= set(first):
            return "This is Label Studio's own export: export as COCO there"
        return ""
    if not isinstance(document, dict):
        return ""
    keys = set(document)
    if "shapes" in keys and keys & {"imagePath", "imageData"}:
        return "This is LabelMe's file of one image: make one COCO file of all, with labelme2coco"
    if "_via_img_metadata" in keys or any(_is_via_image(value) for value in list(document.values())[:1]):
        return "This is a project of the VGG Image Annotator: export annotations there in COCO's format"
    if {"images", "annotations"} <= keys and "categories" not in keys:
        return f"Without categories these are captions or another kind; {_WANTED}"
    if {"images", "categories"} <= keys:
        return f"This is a list of images without labels, such as COCO's image_info_*.json; {_WANTED}"
    return ""


def _is_via_image(value: Any) -> bool:
    return isinstance(value, dict) and {"filename", "regions"} <= set(value)


def other_annotation(record: Mapping[str, Any]) -> str:
    """Return a sentence about an annotation that cannot be read; empty if its kind is not recognised."""
    if "segments_info" in record:
        return f". This is an annotation of COCO's panoptic kind; {_WANTED}"
    if "caption" in record:
        return f". This is a caption; {_WANTED}"
    return ""


def other_image(record: Mapping[str, Any]) -> str:
    """Return a sentence about an image that cannot be read; empty if its kind is not recognised."""
    if "coco_url" in record and "file_name" not in record:
        return ". LVIS has coco_url only: write its last parts, such as val2017/000000397133.jpg, as file_name"
    return ""
