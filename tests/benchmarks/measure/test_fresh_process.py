from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from yolact_benchmarks.measure.fresh_process import Report, call_in_fresh_process
from yolact_runtime.errors import BackendError, BackendUnavailableError, MissingDependencyError, UsageError, YolactError


def add(a: int, b: int, report: Report) -> tuple[int, int]:
    report("say", "adding")
    report("status", "nearly there")
    os.write(1, b"libraries talk on stdout\n")
    return a + b, os.getpid()


def fail(kind: type[Exception], report: Report) -> None:
    raise kind("found 3 and 4")


def miss(report: Report) -> None:
    raise MissingDependencyError("coffee", "staying awake", "all")


def crash(report: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(report: Report) -> None:
    sys.exit(3)


def hang(report: Report) -> None:
    report("say", str(os.getpid()))
    time.sleep(60)


def silent(kind: str, text: str) -> None:
    del kind, text


def test_a_result_comes_back_with_what_was_told(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[str, str]] = []
    total, pid = call_in_fresh_process(add, 2, 3, report=lambda kind, text: told.append((kind, text)))
    assert total == 5
    assert pid != os.getpid()
    assert told == [("say", "adding"), ("status", "nearly there")]
    captured = capfd.readouterr()
    assert captured.out == "", "stdout belongs to results"
    assert "libraries talk on stdout" in captured.err


@pytest.mark.parametrize("kind", [UsageError, BackendUnavailableError, YolactError, MemoryError])
def test_an_error_comes_back_as_itself(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="found 3 and 4") as caught:
        call_in_fresh_process(fail, kind, report=silent)
    assert type(caught.value) is kind


def test_an_error_with_its_own_arguments_keeps_its_message() -> None:
    with pytest.raises(MissingDependencyError, match="staying awake needs the package"):
        call_in_fresh_process(miss, report=silent)


def test_a_process_that_dies_is_told_from_one_that_answers(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BackendError, match="was ended by signal 9 and gave no answer"):
        call_in_fresh_process(crash, report=silent)
    with pytest.raises(BackendError, match="ended with exit status 3 and gave no answer"):
        call_in_fresh_process(leave, report=silent)
    with pytest.raises(BackendError, match="ended with exit status 1"):
        call_in_fresh_process(fail, ZeroDivisionError, report=silent)
    assert "ZeroDivisionError: found 3 and 4" in capfd.readouterr().err, "a bug shows where it is"


def test_an_interrupted_call_leaves_no_process_behind() -> None:
    pids: list[int] = []

    def interrupt(kind: str, text: str) -> None:
        pids.append(int(text))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_in_fresh_process(hang, report=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
