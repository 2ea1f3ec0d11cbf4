"""What holds for all tests: profiles of property tests, programs that a test needs, and garbage."""

from __future__ import annotations

import gc

import pytest

from support.properties import register_profiles
from support.tools import require_tool

register_profiles()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> object:
    """Half a million objects come to stay here, modules and tests: they are not searched for garbage, now or later."""
    gc.disable()
    outcome = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return outcome


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test is made."""
    for mark in item.iter_markers("needs_tool"):
        require_tool(*mark.args)
