"""Training: loss, loop, state, and distillation from a dense model. Models are arguments."""

__all__: list[str] = []
