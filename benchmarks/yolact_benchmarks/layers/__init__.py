"""The time that a network spends in each part of the model."""

__all__: list[str] = []
