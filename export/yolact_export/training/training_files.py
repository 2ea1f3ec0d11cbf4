"""Files of a training: its checkpoint, and the files beside it that are named after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["TrainingFiles"]


@dataclass(frozen=True)
class TrainingFiles:
    """Paths that a fine-tuning or a pruning writes.

    Attributes:
        checkpoint: The ``.pth`` file; the names of all others follow from it.
    """

    checkpoint: Path

    @property
    def state(self) -> Path:
        """The unfinished training, which the same command continues."""
        return self._with_ending(".state")

    @property
    def record(self) -> Path:
        """The record: options, data, curve and accuracy as JSON."""
        return self.checkpoint.with_suffix(".json")

    @property
    def curve(self) -> Path:
        """The page with the curve of the training."""
        return self.checkpoint.with_suffix(".html")

    @property
    def layer_times(self) -> Path:
        """Times of layers that a pruning measured; with the same file another run chooses the same widths."""
        return self._with_ending(".latency.json")

    @property
    def network_times(self) -> Path:
        """Times of whole networks that a pruning measured, for the same reason."""
        return self._with_ending(".network.json")

    @property
    def of_training(self) -> tuple[Path, ...]:
        """All files of a fine-tuning, in the order in which they are shown."""
        return self.checkpoint, self.record, self.curve, self.state

    @property
    def of_pruning(self) -> tuple[Path, ...]:
        """All files of a pruning that recovers."""
        return *self.of_training, self.layer_times, self.network_times

    def discard_state(self) -> None:
        """Remove the unfinished training, if there is one.

        Raises:
            OSError: The file cannot be removed.
        """
        self.state.unlink(missing_ok=True)

    def _with_ending(self, ending: str) -> Path:
        return self.checkpoint.with_name(self.checkpoint.name + ending)
