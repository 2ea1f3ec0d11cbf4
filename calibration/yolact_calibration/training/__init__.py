"""The loss, the training loop and its state, and teaching by a dense model. Models come in as arguments."""

__all__: list[str] = []
