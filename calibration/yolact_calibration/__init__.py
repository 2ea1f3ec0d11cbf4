"""Data sets, training, accuracy, pruning: what makes a model good. Models come in as arguments."""

from yolact_plugins import __version__

__all__ = ["__version__"]
