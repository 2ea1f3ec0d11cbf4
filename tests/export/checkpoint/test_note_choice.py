"""Whose note counts, where a file has several sets of weights."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint
from yolact_export.checkpoint.file import CheckpointFile, read_checkpoint_file
from yolact_export.checkpoint.keys import REQUIRED
from yolact_export.checkpoint.note import CheckpointNote, write_checkpoint
from yolact_export.errors import CheckpointError
from yolact_export.model.registry import CONFIGS

NAMES = ("model", "ema", "student", "teacher")
HEIGHTS = {name: 256 + 32 * number for number, name in enumerate(NAMES)}
AROUND = 640


def noted(state: Any, height: int, folder: Path) -> Any:
    """A copy of a state dict as our training leaves it, with a note for an input of that height; pixels."""
    config = dataclasses.replace(CONFIGS["yolact_small"], name=f"of_{height}", input_height=height)
    names = tuple(f"c{number}" for number in range(config.num_classes - 1))
    write_checkpoint(folder / "noted.pth", {}, CheckpointNote(config, names))
    result = OrderedDict(state)
    result._metadata = torch.load(folder / "noted.pth", weights_only=True)._metadata  # type: ignore[attr-defined]
    return result


def weights(name: str, length: int = 2) -> dict[str, torch.Tensor]:
    """Enough of a YOLACT model to be recognised; other values for every name."""
    return {key: torch.full((length,), float(HEIGHTS[name])) for key in (*REQUIRED, "backbone.bn1.running_mean")}


def read(content: object, chosen: str | None, folder: Path) -> CheckpointFile:
    torch.save(content, folder / "f.pth")
    return read_checkpoint_file(folder / "f.pth", chosen)


def height_of(file: CheckpointFile) -> int | None:
    return None if file.note is None else file.note.config.input_height


def expected_owner(present: list[str], with_note: set[str], chosen: str) -> str | None:
    """Whose note counts by the rule, written out once more."""
    if chosen in with_note:
        return chosen
    plain = [name for name in present if name != "ema"]
    if "ema" not in present or len(plain) != 1:
        return None  # no average, or nobody knows of what
    (other,) = {"ema", *plain} - {chosen}
    return other if other in with_note else None


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), present=st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True))
def test_a_note_counts_for_its_own_weights_and_between_a_model_and_its_average(
    data: st.DataObject, present: list[str], tmp_path: Path
) -> None:
    with_note = data.draw(st.sets(st.sampled_from(present)))
    chosen = data.draw(st.sampled_from(present))
    is_around = data.draw(st.booleans())
    content = {
        name: noted(weights(name), HEIGHTS[name], tmp_path) if name in with_note else weights(name) for name in present
    }
    file = read(noted(content, AROUND, tmp_path) if is_around else content, chosen, tmp_path)
    owner = expected_owner(present, with_note, chosen)
    said = "\n".join(file.findings)
    if is_around and chosen not in with_note:
        assert height_of(file) == AROUND
    else:
        assert height_of(file) == (None if owner is None else HEIGHTS[owner])
        assert (f'the note of "{owner}" is used for "{chosen}"' in said) == (owner not in {None, chosen})
    assert set(file.other_notes) == (with_note if file.note is None else set())
    assert all(f'"{name}"' in said for name in file.other_notes)


def test_the_refusal_says_that_the_other_weights_have_a_note(
    narrow_state: Callable[[str], dict[str, torch.Tensor]], save: Callable[..., Path], tmp_path: Path
) -> None:
    student = narrow_state("yolact_small")
    teacher = {key: value * 1.5 if value.is_floating_point() else value for key, value in student.items()}
    path = save({"student": student, "teacher": noted(teacher, 256, tmp_path)}, "f.pth")
    with pytest.raises(CheckpointError, match="--weights student --config yolact_small") as caught:
        load_checkpoint(path, CheckpointOptions(weights="student"))
    assert 'The note of the weights "teacher" in the file does not contain them' in str(caught.value)
    loaded = load_checkpoint(path, CheckpointOptions(weights="student", config="yolact_small"))
    assert loaded.config.input_height == CONFIGS["yolact_small"].input_height
    assert load_checkpoint(path, CheckpointOptions(weights="teacher")).config.input_height == 256


def test_weights_of_another_shape_are_no_average_of_these(tmp_path: Path) -> None:
    content = {"model": noted(weights("model", 3), 256, tmp_path), "ema": weights("ema")}
    assert read(content, "ema", tmp_path).note is None


def test_a_note_around_other_weights_alone_is_theirs(tmp_path: Path) -> None:
    teacher = noted({"state_dict": weights("teacher"), "epoch": 3}, 256, tmp_path)
    content = {"student": {"state_dict": weights("student")}, "teacher": teacher}
    file = read(content, "student", tmp_path)
    assert (file.note, file.other_notes) == (None, ("teacher.state_dict",))
    assert height_of(read(content, "teacher", tmp_path)) == 256


def test_a_note_beside_other_weights_is_theirs_and_one_beside_all_counts(tmp_path: Path) -> None:
    record = noted({}, 256, tmp_path)
    inside = {"student": weights("student"), "teacher": {"state_dict": weights("teacher"), "record": record}}
    assert read(inside, "student", tmp_path).note is None
    beside = {"student": weights("student"), "teacher": weights("teacher"), "record": record}
    assert height_of(read(beside, "student", tmp_path)) == 256


def test_a_note_in_the_dictionary_of_both_counts_for_both(tmp_path: Path) -> None:
    both = {f"{name}.{key}": value for name in ("student", "teacher") for key, value in weights(name).items()}
    content = noted(both, 256, tmp_path)
    assert height_of(read(content, "student", tmp_path)) == height_of(read(content, "teacher", tmp_path)) == 256


def test_a_model_at_the_top_keeps_its_note_to_itself(tmp_path: Path) -> None:
    content = noted({**weights("student"), "teacher": weights("teacher")}, 256, tmp_path)
    assert read(content, "teacher", tmp_path).note is None
    assert height_of(read(content, ".", tmp_path)) == 256


def test_equal_weights_share_a_note(tmp_path: Path) -> None:
    content = {"state_dict": weights("model"), "best": noted(weights("model"), 256, tmp_path)}
    file = read(content, None, tmp_path)
    assert (file.weights, height_of(file)) == ("state_dict", 256)
    assert any('the note of "best" is used for "state_dict"' in finding for finding in file.findings)


def test_averages_whose_notes_differ_do_not_stop_a_choice(tmp_path: Path) -> None:
    averages = {"ema_fast": noted(weights("ema"), 256, tmp_path), "ema_slow": noted(weights("ema"), 288, tmp_path)}
    file = read({"model": weights("model"), **averages}, "model", tmp_path)
    assert (file.note, file.other_notes) == (None, ("ema_fast", "ema_slow"))
    assert height_of(read({"model": weights("model"), **averages}, "ema_slow", tmp_path)) == 288


def test_a_damaged_note_of_other_weights_stops_nobody(tmp_path: Path) -> None:
    teacher = copy.deepcopy(noted(weights("teacher"), 256, tmp_path))
    teacher._metadata["yolact_deploy"]["version"] = 9
    content = {"student": noted(weights("student"), 288, tmp_path), "teacher": teacher}
    assert height_of(read(content, "student", tmp_path)) == 288
    with pytest.raises(CheckpointError, match="its note has the version 9"):
        read(content, "teacher", tmp_path)
