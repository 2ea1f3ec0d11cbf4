"""Number of examples of the property tests: 100, or the number that a property requests, scaled by a profile.

``--hypothesis-profile=quick`` runs a fifth of them, ``thorough`` ten times as many (``make test PROFILE=thorough``).
``YOLACT_TEST_SCALE`` in the environment reduces them further: a GPU has seconds for all of them, a dry run less.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

from support.kernel_host import SANITIZE

__all__ = ["example_count", "examples", "register_profiles", "some_of"]

_SCALE = float(os.environ.get("YOLACT_TEST_SCALE", "1"))
_STANDARD = 100
_PROFILES = {"quick": 20, "standard": _STANDARD, "thorough": 1000}


def register_profiles() -> None:
    """Register the profiles with Hypothesis, and load the standard one.

    No example has a deadline: its duration depends more on the machine than on the code. What Hypothesis itself changes
    in CI (no random seed) is kept.
    """
    for name, count in _PROFILES.items():
        settings.register_profile(name, max_examples=max(round(count * _SCALE), 1), deadline=None)
    settings.load_profile("standard")


def examples(count: int, **options: Any) -> settings:
    """Set the number of examples that a property needs in the standard profile, as a decorator.

    Args:
        count: Number of examples, see :func:`example_count`.
        options: Further options of :class:`hypothesis.settings`.
    """
    return settings(max_examples=example_count(count), deadline=None, **options)


def example_count(count: int) -> int:
    """Scale `count` by profile and environment, to at least 2; a sanitizer divides it by 15."""
    scaled = int(count * settings().max_examples / _STANDARD)
    return max(scaled // (15 if SANITIZE else 1), 2)


def some_of(numbers: int) -> range:
    """Return the numbers below a limit, or :func:`example_count` of them in equal steps."""
    return range(0, numbers, max(numbers // example_count(numbers), 1))
