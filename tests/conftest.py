"""What holds for all tests: profiles of property tests, their order, programs that a test needs, and garbage."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator

import pytest

from support.browser import Browser, open_browser
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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: every worker first has its share of it, and at the end none is left alone with it.

    Tests of one module stay together, because they share what is made for them.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    by_kind: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        by_kind[item.get_closest_marker("long") is not None].append(item)
    modules = [list(group) for _, group in itertools.groupby(by_kind[True], lambda item: item.path)]
    others, num_items, num_ordered = iter(by_kind[False]), len(items), 0
    items.clear()
    for k in range(workers):
        # The workers' shares are equal in number: one that has more long tests begins with fewer others.
        num_ordered += (num_items - num_ordered) // (workers - k)
        items.extend(itertools.chain(*modules[k::workers]))
        items.extend(itertools.islice(others, max(num_ordered - len(items), 0)))
    items.extend(others)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test is made."""
    for mark in item.iter_markers("needs_tool"):
        require_tool(*mark.args)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a worker that look at pages."""
    with open_browser(require_tool("Chromium")) as one:
        yield one
