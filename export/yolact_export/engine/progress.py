"""Progress of an engine build: TensorRT reports nested phases, each with a number of steps."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["BuildProgress", "ProgressLine"]


@dataclass(frozen=True)
class BuildProgress:
    """Event in a phase of a build.

    Attributes:
        kind: Kind of the event: ``"start"``, ``"step"`` or ``"finish"`` of a phase.
        phase: TensorRT's name of the phase.
        parent: Name of the phase that it is part of, or None.
        step: Number of completed steps.
        num_steps: Number of steps in the phase.
    """

    kind: str
    phase: str
    parent: str | None = None
    step: int = 0
    num_steps: int = 0


@dataclass
class ProgressLine:
    """Readable line that summarises progress: ``Building engine 2/6 > Profiling 17/209``."""

    _phases: dict[str, tuple[int, int]] = field(default_factory=dict)

    def update(self, progress: BuildProgress) -> str:
        """Return the line after an event."""
        if progress.kind == "finish":
            self._phases.pop(progress.phase, None)
        else:
            total = progress.num_steps or self._phases.get(progress.phase, (0, 0))[1]
            self._phases[progress.phase] = (progress.step, total)
        return " > ".join(f"{phase} {step}/{total}" for phase, (step, total) in self._phases.items())
