"""Conversion of a ``.pth`` file to a model: keys, structure, configuration, without running code of the file."""

__all__: list[str] = []
