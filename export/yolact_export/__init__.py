"""From a trained checkpoint to a bundle that a robot can run."""

__all__: list[str] = []
