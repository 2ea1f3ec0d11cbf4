"""Fixtures of several end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.golden_bundles import write_shapes_bundle


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model of shapes in four precisions, with its golden frame; tests copy what they change."""
    return write_shapes_bundle(tmp_path_factory.mktemp("golden") / "shapes.bundle")
