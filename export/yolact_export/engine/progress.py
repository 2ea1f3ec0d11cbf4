"""How far an engine build is: TensorRT reports phases that nest, each with a number of steps."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["BuildProgress", "ProgressLine"]


@dataclass(frozen=True)
class BuildProgress:
    """Something happened in a phase of a build.

    Attributes:
        kind: ``"start"``, ``"step"`` or ``"finish"`` of a phase.
        phase: TensorRT's name of it.
        parent: The phase that it is part of, or None.
        step: Steps that are done.
        num_steps: Of the phase.
    """

    kind: str
    phase: str
    parent: str | None = None
    step: int = 0
    num_steps: int = 0


@dataclass
class ProgressLine:
    """Turns progress into a line for people: ``Building engine 2/6 > Profiling 17/209``."""

    _phases: dict[str, tuple[int, int]] = field(default_factory=dict)

    def update(self, progress: BuildProgress) -> str:
        """The line after an event."""
        if progress.kind == "finish":
            self._phases.pop(progress.phase, None)
        else:
            total = progress.num_steps or self._phases.get(progress.phase, (0, 0))[1]
            self._phases[progress.phase] = (progress.step, total)
        return " > ".join(f"{phase} {step}/{total}" for phase, (step, total) in self._phases.items())
