"""Settings of pruning a checkpoint before its export; importing them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from yolact_calibration.labels.options import FileRules
from yolact_export.errors import UsageError
from yolact_runtime.option_numbers import MAX_COUNT, MAX_SEED, MAX_WORKERS, keep_between, keep_numbers

__all__ = ["PruningOptions"]

_MAX_BATCH, _MAX_RATE = 4096, 1000


@dataclass(frozen=True)
class PruningOptions:
    """Share of a network that is removed, and the training of the rest.

    Attributes:
        removed_latency: Share of the measured latency to remove, above 0 and below 1: 0.4 leaves 60 % of the
            milliseconds.
        importance: Measure of the importance of channels: ``"taylor"`` or ``"batch-norm"``.
        round_to: Widths are multiples of this number.
        recover_steps: Training steps afterwards, with the unpruned model as the teacher; 0 trains nothing.
        recover_batch: Images per step.
        recover_rate: Learning rate.
        recover_annotations: Labels of the calibration folder, to learn from as well; None learns without labels.
        rules: Treatment of images of `recover_annotations` that are missing or outside of the folder.
        augments: If True, augment the images.
        seed: Random seed.
        num_workers: Processes that load images.
        restart: If True, discard an unfinished recovery of the same bundle.

    Raises:
        UsageError: A field is out of its range, or not a number; the message names it.
    """

    removed_latency: float = 0.4
    importance: str = "taylor"
    round_to: int = 8
    recover_steps: int = 1000
    recover_batch: int = 8
    recover_rate: float = 1e-3
    recover_annotations: Path | str | None = None
    rules: FileRules = field(default_factory=FileRules)
    augments: bool = True
    seed: int = 0
    num_workers: int = 1
    restart: bool = False

    def __post_init__(self) -> None:
        keep_between(
            self,
            {
                "round_to": (1, _MAX_BATCH),
                "recover_steps": (0, MAX_COUNT),
                "recover_batch": (1, _MAX_BATCH),
                "seed": (0, MAX_SEED),
                "num_workers": (0, MAX_WORKERS),
            },
        )
        keep_numbers(self, real=("removed_latency", "recover_rate"))
        if not 0 < self.removed_latency < 1:
            raise UsageError(f"removed_latency lies between 0 and 1; found {self.removed_latency}")
        if not 0 < self.recover_rate <= _MAX_RATE:
            raise UsageError(f"recover_rate must be above 0, and {_MAX_RATE} or less; found {self.recover_rate}")
        if self.importance not in ("taylor", "batch-norm"):
            raise UsageError(f'importance is "taylor" or "batch-norm"; found "{self.importance}"')
