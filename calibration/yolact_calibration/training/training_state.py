"""State of a training on disk: enough to continue as if it had never stopped."""

from __future__ import annotations

import dataclasses
import io
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from yolact_calibration.errors import TrainingError
from yolact_calibration.training.torch_file import check_torch_file
from yolact_plugins.files import library_path, write_atomically

__all__ = ["Curve", "TrainingState", "read_state", "write_state"]

_VERSION = 1


@dataclasses.dataclass
class Curve:
    """Course of a training.

    Attributes:
        terms: Value at every step, by name of the term.
        accuracy: Pairs ``(step, {name: value})``, one for each evaluation.
    """

    terms: dict[str, list[float]]
    accuracy: list[tuple[int, dict[str, float]]]

    @classmethod
    def empty(cls) -> Curve:
        """Create the curve of a training before its first step."""
        return cls({}, [])

    def add_step(self, values: Mapping[str, float]) -> None:
        """Append the terms of a step."""
        for name, value in values.items():
            self.terms.setdefault(name, []).append(value)

    def add_accuracy(self, step: int, values: Mapping[str, float]) -> None:
        """Append an evaluation that followed `step`."""
        self.accuracy.append((step, dict(values)))

    def document(self, num_points: int = 100) -> dict[str, Any]:
        """Return a JSON object: means of the terms over `num_points` intervals of equal length, and all evaluations."""
        count = len(next(iter(self.terms.values()), []))
        stretch = max(1, -(-count // num_points))
        starts = range(0, count, stretch)
        means = {
            name: [round(statistics.fmean(values[first : first + stretch]), 5) for first in starts]
            for name, values in self.terms.items()
        }
        ends = [min(first + stretch, count) for first in starts]
        return {"step": ends, "terms": means, "accuracy": [{"step": step, **values} for step, values in self.accuracy]}


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingState:
    """State of a training after a step.

    Attributes:
        step: Number of completed steps.
        identity: Inputs that determine the course, as text.
        model: State dict of the model.
        optimizer: State dict of the optimizer.
        curve: Course up to this step.
    """

    step: int
    identity: Mapping[str, str]
    model: Mapping[str, torch.Tensor]
    optimizer: dict[str, Any]
    curve: Curve


def write_state(path: Path, state: TrainingState) -> None:
    """Replace the whole file atomically, so that a killed process leaves the earlier state."""
    content = io.BytesIO()
    document = {
        "version": _VERSION,
        "step": state.step,
        "identity": dict(state.identity),
        "model": dict(state.model),
        "optimizer": state.optimizer,
        # As tensors: lists of a hundred thousand floats would take seconds to pickle.
        "terms": {name: torch.tensor(values, dtype=torch.float64) for name, values in state.curve.terms.items()},
        "accuracy": state.curve.accuracy,
    }
    torch.save(document, content)
    write_atomically(path, content.getvalue())


def read_state(path: Path) -> TrainingState | None:
    """Read the state in a file; return None if there is no such file.

    Raises:
        TrainingError: The file is not a state that this release reads, or is damaged.
    """
    if not path.exists():
        return None
    if damage := check_torch_file(path).damage:
        raise TrainingError(f"{path}: the state of the training is damaged: {damage}; --restart discards it")
    try:
        with library_path(path) as name:
            document = torch.load(name, map_location="cpu", weights_only=True)
        version = int(document["version"])
        curve = Curve(
            {name: values.tolist() for name, values in document["terms"].items()},
            [(int(step), dict(values)) for step, values in document["accuracy"]],
        )
        state = TrainingState(document["step"], document["identity"], document["model"], document["optimizer"], curve)
    except Exception as error:  # torch.load raises nearly anything for a damaged file
        raise TrainingError(
            f"{path}: not the state of a training ({type(error).__name__}); --restart discards it"
        ) from error
    if version != _VERSION:
        raise TrainingError(
            f"{path}: a state of version {version}, this release reads {_VERSION}; --restart discards it"
        )
    return state
