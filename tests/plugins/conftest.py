"""File systems that can do less than the one of the tests."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from yolact_plugins import staging


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether two names can be exchanged in one step."""
    if not request.param:
        monkeypatch.setattr(staging, "_exchange", lambda a, b: False)
    return bool(request.param)


@pytest.fixture(params=[True, False], ids=["locks", "no locks"])
def has_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether there are locks."""
    if not request.param:

        def unsupported(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", unsupported)
    return bool(request.param)


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk, which only a loss of power would show."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
