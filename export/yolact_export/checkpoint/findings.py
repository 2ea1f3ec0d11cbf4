"""Findings about a checkpoint: properties inferred from it, and assumptions that nothing in it confirms."""

from __future__ import annotations

from collections.abc import Iterable

from yolact_runtime.reporter import Reporter

__all__ = ["Assumption", "say_findings"]


class Assumption(str):
    """A finding that nothing confirms: if it is wrong, every box may be. It is reported as a warning."""

    __slots__ = ()


def say_findings(findings: Iterable[str], reporter: Reporter) -> None:
    """Tell findings to a reporter, a line each; assumptions are warnings, which are shown whatever is hidden."""
    for finding in findings:
        if isinstance(finding, Assumption):
            reporter.warn(finding.strip())
        else:
            reporter.say(f"  {finding}")
