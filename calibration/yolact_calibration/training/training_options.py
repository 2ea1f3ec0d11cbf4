"""Options of a training, with their bounds; importing this module does not need PyTorch."""

from __future__ import annotations

import dataclasses
import math

from yolact_calibration.errors import UsageError
from yolact_runtime.option_numbers import (
    MAX_COUNT,
    MAX_SEED,
    MAX_WEIGHT,
    check_most,
    keep_numbers,
    shown_number,
)

__all__ = ["TrainingOptions"]

# Limits that no memory, or no training, would survive.
_MAX_BATCH, _MAX_RATE = 4096, 1000


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Options of a training.

    Attributes:
        num_steps: Number of batches.
        batch_size: Number of images in a batch.
        learning_rate: Peak learning rate; it rises linearly over the warm-up and falls to 0 along a cosine.
        optimizer: Optimizer: ``"sgd"`` with momentum 0.9, as published, or ``"adamw"``.
        weight_decay: Weight decay of weights; biases and batch norms have none.
        warmup_steps: Number of steps in which the learning rate rises.
        freeze_batch_norm: If True, keep the statistics and parameters of batch norms, as published for small batches.
        autocast: If True, compute in bfloat16 where operators allow it; weights and losses stay float32.
        max_gradient_norm: Maximum norm of the gradient; longer gradients are scaled down to it.
        seed: Seed of everything random.
        save_every: Number of steps between two states on disk.
        evaluate_every: Number of steps between two evaluations; the last step is always followed by one.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    num_steps: int
    batch_size: int = 8
    learning_rate: float = 1e-3
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    warmup_steps: int = 500
    freeze_batch_norm: bool = False
    autocast: bool = False
    max_gradient_norm: float = 10.0
    seed: int = 0
    save_every: int = 200
    evaluate_every: int = 1000

    def __post_init__(self) -> None:
        counts = ("num_steps", "batch_size", "save_every", "evaluate_every")
        keep_numbers(
            self, (*counts, "warmup_steps", "seed"), real=("learning_rate", "weight_decay", "max_gradient_norm")
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more, found {shown_number(getattr(self, name))}")
            check_most(name, getattr(self, name), _MAX_BATCH if name == "batch_size" else MAX_COUNT)
        for name in ("weight_decay", "warmup_steps", "seed"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must be 0 or more, found {shown_number(getattr(self, name))}")
        if self.seed > MAX_SEED:
            raise UsageError(f"seed must be below 2^63, found {shown_number(self.seed)}")
        check_most("warmup_steps", self.warmup_steps, MAX_COUNT)
        for name in ("weight_decay", "learning_rate"):
            if math.isfinite(getattr(self, name)):
                check_most(name, getattr(self, name), _MAX_RATE)
        if not self.weight_decay < math.inf:
            raise UsageError(f"weight_decay must be 0 or more and finite, found {self.weight_decay}")
        if not 0 < self.max_gradient_norm <= MAX_WEIGHT:
            raise UsageError(
                f"max_gradient_norm must be above 0, and {MAX_WEIGHT:g} or less, found {self.max_gradient_norm}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate must be above 0 and finite, found {self.learning_rate}")
        if self.optimizer not in ("sgd", "adamw"):
            raise UsageError(f'optimizer must be "sgd" or "adamw", found "{self.optimizer}"')

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / self.num_steps))
