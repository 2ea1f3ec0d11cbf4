"""The functions and options that :mod:`yolact_export` exports."""

__all__: list[str] = []
