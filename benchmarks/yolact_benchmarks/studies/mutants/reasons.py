"""Why mutants that survive may: nothing that anybody can see changes, or a test would hold more than is promised."""

from __future__ import annotations

__all__ = ["REASONS"]

REASONS: dict[tuple[str, str], str] = {}
"""(module's name, the change as :attr:`Mutation.told` says it) -> reason."""
