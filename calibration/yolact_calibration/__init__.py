"""Data sets, training, accuracy, pruning: what makes a model good. Models come in as arguments."""

__all__: list[str] = []
