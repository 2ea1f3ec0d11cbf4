"""Benchmarks: side-by-side speed and memory, written to records."""

import logging

from yolact_plugins import __version__

__all__ = ["__version__"]

# Whether messages are shown, and where, is for the program to say.
logging.getLogger(__name__).addHandler(logging.NullHandler())
