"""From a trained checkpoint to a bundle that a robot can run."""

from yolact_plugins import __version__

__all__ = ["__version__"]
