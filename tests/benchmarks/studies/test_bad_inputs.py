"""The campaign of bad inputs judges as it says, and its tries end as they should."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from yolact_benchmarks.studies.bad_inputs import campaign, labels, texts, trial
from yolact_benchmarks.studies.bad_inputs.case import Answer, Case, Ending, Outcome, judge, num_instances
from yolact_benchmarks.studies.bad_inputs.ground import Ground


def _case(right: bool = True, keeps: bool = True, **others: object) -> Case:
    return Case("a kind", "a name", "yolact-run", ("--version",), lambda _: right, lambda _: keeps, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "stderr", "right", "keeps", "outcome"),
    [
        (0, "", True, True, Outcome.RIGHT),
        (0, "", False, True, Outcome.SILENT),
        (0, "", True, False, Outcome.SILENT),
        (0, "warning: 1 file is left out\n", False, True, Outcome.SAID),
        (0, "warning: 1 file is left out\n", True, False, Outcome.LOST),
        (1, "error: cannot read a.png\n", False, True, Outcome.REFUSED),
        (2, "yolact-run: error: the following arguments are required: model\n", False, True, Outcome.REFUSED),
        (1, "error: cannot read a.png\n", True, False, Outcome.LOST),
        (1, "", True, True, Outcome.BROKEN),
        (1, "Traceback (most recent call last):\nerror: x\n", True, True, Outcome.BROKEN),
        (-11, "error: x\n", True, True, Outcome.BROKEN),
        (None, "error: x\n", True, True, Outcome.BROKEN),
    ],
)
def test_outcomes(status: int | None, stderr: str, right: bool, keeps: bool, outcome: Outcome) -> None:
    assert judge(_case(right, keeps), Answer(status, "", stderr)) is outcome


def _command(monkeypatch: pytest.MonkeyPatch, main: Callable[[list[str]], int]) -> None:
    module = type("Module", (), {"main": staticmethod(main)})
    monkeypatch.setattr(trial.importlib, "import_module", lambda _: module)


def test_a_try_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(words: list[str]) -> int:
        sys.stdout.write(f"done {words}\n")
        raise SystemExit(3)

    _command(monkeypatch, main)
    assert trial.run_case(_case()) == Answer(3, "done ['--version']\n", "")


def test_a_try_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    _command(monkeypatch, lambda _: signal.raise_signal(signal.SIGKILL) or 0)
    assert trial.run_case(_case()).status == -signal.SIGKILL
    _command(monkeypatch, lambda _: 1 // 0)
    answer = trial.run_case(_case())
    assert "ZeroDivisionError" in answer.stderr
    assert judge(_case(), answer) is Outcome.BROKEN


def test_a_try_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_TIME_LIMIT_S", 0.2)
    _command(monkeypatch, lambda _: signal.pause() or 0)  # type: ignore[func-returns-value]
    assert trial.run_case(_case()).status is None


def test_a_try_that_is_ended_by_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(_: list[str]) -> int:
        (tmp_path / "lines").write_text("1\n2\n")
        try:
            signal.pause()
        except KeyboardInterrupt:
            return 130
        return 0

    _command(monkeypatch, main)
    case = _case(ending=Ending(signal.SIGINT, tmp_path / "lines", 2))
    assert trial.run_case(case).status == 130


def test_a_try_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _command(monkeypatch, lambda _: (tmp_path / "a").write_bytes(bytes(20_000)))
    answer = trial.run_case(_case(largest_file_bytes=5_000))
    assert "File too large" in answer.stderr


def test_outcomes_are_counted_and_those_that_may_not_be_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([Answer(0, "", ""), Answer(0, "", ""), Answer(1, "", "error: x")])
    monkeypatch.setattr(campaign, "run_case", lambda _: next(answers))
    counts, unwanted = campaign.count_outcomes([_case(), _case(right=False), _case()])
    assert unwanted == ["a kind: a name: wrong in silence (status 0): no message"]
    assert capsys.readouterr().err == unwanted[0] + "\n"
    (row,) = campaign.document(counts)
    assert row == {
        "kind": "a kind", "tries": 3, "right": 1, "said": 0, "refused": 1, "lost": 0, "silent": 1, "broken": 0
    }  # fmt: skip


def test_instances_of_named_inputs() -> None:
    document = {"images": [{"file": "in/a.png", "instances": [{}, {}]}]}
    assert num_instances(document, ["a.png"]) == {"a.png": 2}
    assert num_instances(document, ["a.png", "b.png"]) is None
    assert num_instances(None, []) is None


def test_hostile_labels_change_one_place_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotation = {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0,
        "segmentation": {"size": [8, 8], "counts": "x"},
    }  # fmt: skip
    sound = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [annotation],
    }
    ground = Ground(tmp_path, tmp_path / "b", tmp_path / "images", tmp_path / "a.json", sound)
    monkeypatch.setattr(labels, "evaluated", lambda *_: {})
    cases = list(labels.label_cases(ground))
    files = [json.loads(Path(case.words[2]).read_text()) for case in cases]
    assert len({case.name for case in cases}) == len(cases)
    assert len({json.dumps(file) for file in files}) > len(cases) * 0.9
    assert sound["annotations"] == [annotation]


def test_figures_are_compared_by_kind(tmp_path: Path) -> None:
    reference = {"bbox": {"AP": 0.5}, "segm": {"AP": 0.4}, "seconds": 1}
    result = tmp_path / "r.json"
    is_right = texts.same_figures(result, reference)
    assert not is_right(Answer(0, "", ""))
    result.write_text(json.dumps({**reference, "seconds": 2}))
    assert is_right(Answer(0, "", ""))
    result.write_text(json.dumps({**reference, "segm": {"AP": 0.3}}))
    assert not is_right(Answer(0, "", ""))
