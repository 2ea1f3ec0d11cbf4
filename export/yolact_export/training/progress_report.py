"""Progress of a training for a reporter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from yolact_plugins.files import human_duration
from yolact_runtime.reporter import Reporter

if TYPE_CHECKING:
    from yolact_calibration.training.training import Progress

__all__ = ["ProgressReport"]

_STATUS_EVERY_S = 0.2


class ProgressReport:
    """Receiver of every step of a training: accuracies are lines that stay, and the last step is the status."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        """Show a step, unless the last one was shown only a moment ago."""
        now = time.monotonic()
        if progress.accuracy is not None:
            found = "  ".join(f"{name} {value:.3f}" for name, value in progress.accuracy.items())
            self._reporter.say(f"  step {progress.step}: {found}")
        elif now - self._last >= _STATUS_EVERY_S:
            self._last = now
            terms = "  ".join(f"{name.removeprefix('distill_')} {value:.3f}" for name, value in progress.terms.items())
            self._reporter.status(
                f"  step {progress.step}/{progress.num_steps}  loss {sum(progress.terms.values()):.3f}  ({terms})  "
                f"{human_duration(progress.seconds_left)} left"
            )
