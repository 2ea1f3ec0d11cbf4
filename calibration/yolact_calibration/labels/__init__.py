"""Annotation files in COCO's format: read once, checked completely, and stored compactly."""

__all__: list[str] = []
