"""Where a network's time goes, by part of the model."""

__all__: list[str] = []
