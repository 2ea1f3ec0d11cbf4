"""Fine-tuning and pruning of checkpoints."""

__all__: list[str] = []
