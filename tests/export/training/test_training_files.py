from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.training.training_files import TrainingFiles

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@examples(150)
@given(NAMES.filter(lambda name: name.strip(".")))
def test_files_lie_beside_the_checkpoint_and_none_is_another(stem: str) -> None:
    """Whatever the name has in it: dots, spaces, or an ending of another of the files."""
    files = TrainingFiles(Path("folder", f"{stem}.pth"))
    assert {path.parent for path in files.of_pruning} == {Path("folder")}
    assert len(set(files.of_pruning)) == 6
    assert set(files.of_training) < set(files.of_pruning)
    assert all(path.name.startswith(stem) for path in files.of_pruning)


def test_the_names_are_those_of_earlier_releases() -> None:
    """An unfinished training of an earlier release is found."""
    names = [path.name for path in TrainingFiles(Path("v1.2.pth")).of_pruning]
    assert names[:4] == ["v1.2.pth", "v1.2.json", "v1.2.html", "v1.2.pth.state"]
    assert names[4:] == ["v1.2.pth.latency.json", "v1.2.pth.network.json"]


@pytest.mark.parametrize("is_there", [False, True])
def test_a_state_is_discarded(tmp_path: Path, is_there: bool) -> None:
    files = TrainingFiles(tmp_path / "a.pth")
    if is_there:
        files.state.touch()
    files.checkpoint.touch()
    files.discard_state()
    assert list(tmp_path.iterdir()) == [files.checkpoint]
