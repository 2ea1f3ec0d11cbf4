"""Annotation files in COCO's format, and what they name: read once, checked whole, kept small."""

__all__: list[str] = []
