from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_calibration.errors import TrainingError
from yolact_calibration.training.training_state import Curve, TrainingState, read_state, write_state


def make_state() -> TrainingState:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    curve = Curve.empty()
    for step in range(5):
        curve.add_step({"box": 0.1 * step + 1 / 3, "class": float(step)})
    curve.add_accuracy(4, {"mask AP": 0.1 + 0.2})
    return TrainingState(5, {"seed": "0"}, model.state_dict(), optimizer.state_dict(), curve)


def test_a_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    state = make_state()
    write_state(tmp_path / "x.state", state)
    found = read_state(tmp_path / "x.state")
    assert found is not None
    assert (found.step, found.identity) == (5, {"seed": "0"})
    assert found.curve == state.curve
    assert set(found.model) == set(state.model)
    assert all(torch.equal(found.model[key], value) for key, value in state.model.items())
    for number, slots in state.optimizer["state"].items():
        for name, value in slots.items():
            assert torch.equal(found.optimizer["state"][number][name], value)
    assert found.optimizer["param_groups"] == state.optimizer["param_groups"]


def test_there_is_no_state_before_the_first_one(tmp_path: Path) -> None:
    assert read_state(tmp_path / "none") is None


def test_writing_replaces_the_file_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.state"
    write_state(path, make_state())
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("yolact_plugins.files.os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_state(path, make_state())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped", "other"])
def test_a_damaged_state_is_no_state(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.state"
    write_state(path, make_state())
    content = path.read_bytes()
    if damage == "other":
        torch.save({"some": torch.zeros(2)}, path)
    else:
        broken = {
            "empty": b"",
            "text": b"hello",
            "truncated": content[: len(content) // 2],
            "flipped": content[:100] + b"\0" * 400 + content[500:],
        }
        path.write_bytes(broken[damage])
    with pytest.raises(
        TrainingError,
        match=r"x\.state: (not the state of a training|the state of the training is damaged).*; --restart discards it",
    ):
        read_state(path)


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_state_with_a_flipped_bit_is_refused_or_the_same(place: float, bit: int, tmp_path: Path) -> None:
    path = tmp_path / "x.state"
    write_state(path, make_state())
    before, content = read_state(path), bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        found = read_state(path)
    except TrainingError as error:
        assert "--restart discards it" in str(error)  # noqa: PT017 - either outcome is right
        return
    assert before is not None
    assert found is not None
    assert (found.step, found.identity, found.curve) == (before.step, before.identity, before.curve)
    assert all(torch.equal(found.model[key], value) for key, value in before.model.items())
    assert str(found.optimizer) == str(before.optimizer)


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.state"
    write_state(path, make_state())
    document = torch.load(path, weights_only=True)
    document["version"] = 2
    torch.save(document, path)
    with pytest.raises(TrainingError, match="version 2, this release reads 1; --restart"):
        read_state(path)


def test_a_curve_becomes_a_document_of_bounded_length() -> None:
    curve = Curve.empty()
    for step in range(1005):
        curve.add_step({"box": float(step)})
    curve.add_accuracy(500, {"mask AP": 0.25})
    curve.add_accuracy(1005, {"mask AP": 0.5})
    document = curve.document(100)
    assert len(document["step"]) <= 100
    assert document["step"][-1] == 1005
    assert document["terms"]["box"][0] == pytest.approx(5.0)  # steps 0..10
    assert document["terms"]["box"][-1] == pytest.approx(sum(range(1001, 1005)) / 4)
    assert document["accuracy"] == [{"step": 500, "mask AP": 0.25}, {"step": 1005, "mask AP": 0.5}]
    assert curve.document(5000)["step"] == list(range(1, 1006))


def test_an_empty_curve_has_an_empty_document() -> None:
    assert Curve.empty().document() == {"step": [], "terms": {}, "accuracy": []}
