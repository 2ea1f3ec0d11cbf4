"""Pruning: which channels can be removed, how important they are, and the measured time of each width of a layer."""

__all__: list[str] = []
