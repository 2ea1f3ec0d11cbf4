"""Kernels of YOLACT's pre- and post-processing, and the NumPy functions that specify them."""

import logging

__all__ = ["__version__"]

__version__ = "0.1.0"
"""The version of the whole project: the build takes it from here, so that a copied folder knows it without metadata."""

# The embedding program decides whether and where messages are shown.
logging.getLogger(__name__).addHandler(logging.NullHandler())
