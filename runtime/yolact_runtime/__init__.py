"""From a bundle and a frame to instances, with NumPy and one inference backend."""

__all__: list[str] = []
