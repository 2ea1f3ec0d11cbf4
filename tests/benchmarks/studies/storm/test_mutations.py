"""Mutations change what they say, and nothing of what they are given."""

from __future__ import annotations

import copy
import errno
import json
import random
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_benchmarks.studies.bad_inputs.trial import Limits, run_forked
from yolact_benchmarks.studies.storm.faults import count_steps, fail_from, kill_at
from yolact_benchmarks.studies.storm.leftovers import find_leftovers
from yolact_benchmarks.studies.storm.mutations import mutate_bytes, mutate_json

DOCUMENT = {"a": 1, "b": [1.5, "x", {"c": None}], "d": {"e": True}}


@examples(150)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 10**6))
def test_bytes(content: bytes, seed: int) -> None:
    begin = random.Random(seed).randrange(len(content))
    what, changed = mutate_bytes(content, random.Random(seed), begin)
    assert changed[:begin] == content[:begin]
    assert " at " in what
    assert (what, changed) == mutate_bytes(content, random.Random(seed), begin)


@examples(150)
@given(st.integers(0, 10**6))
def test_json(seed: int) -> None:
    before = copy.deepcopy(DOCUMENT)
    what, changed = mutate_json(DOCUMENT, random.Random(seed))
    assert before == DOCUMENT
    assert what == mutate_json(DOCUMENT, random.Random(seed))[0]
    assert json.dumps(changed)


def test_nearly_every_mutation_is_one() -> None:
    changed = [mutate_json(DOCUMENT, random.Random(seed))[1] for seed in range(300)]
    assert sum(json.dumps(each) != json.dumps(DOCUMENT) for each in changed) > 270
    content = random.Random(0).randbytes(5000)
    assert sum(mutate_bytes(content, random.Random(seed))[1] != content for seed in range(300)) > 290


def _write(folder: Path) -> int:
    (folder / "new").write_text("x")
    (folder / "new").rename(folder / "a")
    (folder / "b").mkdir()
    return 0


def test_steps_are_counted_and_killed_before(tmp_path: Path) -> None:
    def counted() -> int:
        steps = count_steps(tmp_path)
        _write(tmp_path)
        return len(steps)

    assert run_forked(counted).status == 3
    for step, there in enumerate([[], ["new"], ["a"], ["a", "b"]]):
        folder = tmp_path / str(step)
        folder.mkdir()

        def killed(folder: Path = folder, step: int = step) -> int:
            kill_at(folder, step)
            return _write(folder)

        assert run_forked(killed).status == (-signal.SIGKILL if step < 3 else 0)
        assert sorted(path.name for path in folder.iterdir()) == there


@pytest.mark.parametrize(("lasting", "made"), [(False, True), (True, False)])
def test_steps_fail_once_or_from_there_on(tmp_path: Path, lasting: bool, made: bool) -> None:
    def disturbed() -> int:
        fail_from(tmp_path, 0, errno.ENOSPC, lasting)
        with pytest.raises(OSError, match=r"No space left on device: .*/a'"):
            (tmp_path / "a").write_text("x")
        (tmp_path / "b").mkdir()
        return 0

    assert run_forked(disturbed).status == (0 if made else 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["b"] if made else [])


def test_a_try_in_a_try_has_words_and_limits(tmp_path: Path) -> None:
    def inner() -> int:
        print("inside")  # noqa: T201
        return 7

    def outer() -> int:
        answer = run_forked(inner)
        (tmp_path / "said").write_text(f"{answer.status} {answer.stdout}")
        return 0

    assert run_forked(outer, Limits(memory_bytes=8 << 30)).status == 0
    assert (tmp_path / "said").read_text() == "7 inside\n"


def test_what_libraries_keep_is_no_leftover(tmp_path: Path) -> None:
    for name in ("try", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "tmp" / ".ses").touch()
    (tmp_path / "tmp" / "torchinductor_root").mkdir()
    assert find_leftovers(tmp_path / "try", tmp_path / "tmp") == []
    (tmp_path / "tmp" / "mine").touch()
    (tmp_path / "try" / "b").mkdir()
    (tmp_path / "try" / "b" / ".m.tmp").touch()
    assert find_leftovers(tmp_path / "try", tmp_path / "tmp") == ["TMPDIR/mine", "b/.m.tmp"]
