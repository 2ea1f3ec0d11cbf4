"""Data sets, training, accuracy, pruning: what makes a model good. Models come in as arguments."""

import logging

from yolact_plugins import __version__

__all__ = ["__version__"]

# Whether messages are shown, and where, is for the program to say.
logging.getLogger(__name__).addHandler(logging.NullHandler())
