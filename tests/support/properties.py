"""How many examples the property tests try: 100, or the number that a property states, scaled by a profile.

``--hypothesis-profile=quick`` tries a fifth of them, ``thorough`` ten times as many (``make test PROFILE=thorough``).
``YOLACT_TEST_SCALE`` in the environment makes them fewer still: a GPU has seconds for all of them, a dry run less.
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
    """Make the profiles known to Hypothesis, and load the standard one.

    No example has a deadline: how long one takes says more of the machine than of the code. What Hypothesis itself
    changes in CI (no random seed) stays.
    """
    for name, count in _PROFILES.items():
        settings.register_profile(name, max_examples=max(round(count * _SCALE), 1), deadline=None)
    settings.load_profile("standard")


def examples(count: int, **options: Any) -> settings:
    """Decorate a property with the number of examples that it needs in the standard profile.

    Args:
        count: Of examples, see :func:`example_count`.
        options: Further ones of :class:`hypothesis.settings`.
    """
    return settings(max_examples=example_count(count), deadline=None, **options)


def example_count(count: int) -> int:
    """`count`, scaled by profile and environment, at least 2; a fifteenth under a sanitizer, ten times slower."""
    scaled = int(count * settings().max_examples / _STANDARD)
    return max(scaled // (15 if SANITIZE else 1), 2)


def some_of(numbers: int) -> range:
    """From 0 up to a number, in steps of which there are :func:`example_count`: every case, or some that cover all."""
    return range(0, numbers, max(numbers // example_count(numbers), 1))
