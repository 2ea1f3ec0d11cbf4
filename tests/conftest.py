"""What holds for all tests: the profiles of property tests, and programs without which a test cannot run."""

from __future__ import annotations

import pytest

from support.properties import register_profiles
from support.tools import require_tool

register_profiles()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test is made."""
    for mark in item.iter_markers("needs_tool"):
        require_tool(*mark.args)
