from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from support.recorder import Recorder
from yolact_benchmarks.measure.fresh_process import call_in_fresh_process
from yolact_runtime.errors import BackendError, BackendUnavailableError, MissingDependencyError, UsageError, YolactError
from yolact_runtime.reporter import SILENT, Reporter


def add(a: int, b: int, reporter: Reporter) -> tuple[int, int]:
    reporter.say("adding")
    reporter.warn("careful")
    reporter.status("nearly there")
    list(reporter.progress("ab", "letters", 2))
    os.write(1, b"libraries talk on stdout\n")
    return a + b, os.getpid()


def fail(kind: type[Exception], reporter: Reporter) -> None:
    raise kind("found 3 and 4")


def miss(reporter: Reporter) -> None:
    raise MissingDependencyError("coffee", "staying awake", "all")


def crash(reporter: Reporter) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(reporter: Reporter) -> None:
    sys.exit(3)


def hang(reporter: Reporter) -> None:
    reporter.status(str(os.getpid()))
    time.sleep(60)


def test_a_result_comes_back_with_what_was_told(capfd: pytest.CaptureFixture[str]) -> None:
    told = Recorder()
    total, pid = call_in_fresh_process(add, 2, 3, reporter=told)
    assert total == 5
    assert pid != os.getpid()
    assert told.told[:3] == [("say", "adding"), ("warn", "careful"), ("status", "nearly there")]
    ((kind, text),) = told.told[3:]
    assert kind == "status"
    assert text.startswith("letters [########################] 2/2")
    captured = capfd.readouterr()
    assert captured.out == "", "stdout belongs to results"
    assert "libraries talk on stdout" in captured.err


@pytest.mark.parametrize("kind", [UsageError, BackendUnavailableError, YolactError, MemoryError])
def test_an_error_comes_back_as_itself(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="found 3 and 4") as caught:
        call_in_fresh_process(fail, kind, reporter=SILENT)
    assert type(caught.value) is kind


def test_an_error_with_its_own_arguments_keeps_its_message() -> None:
    with pytest.raises(MissingDependencyError, match="staying awake needs the package"):
        call_in_fresh_process(miss, reporter=SILENT)


def test_a_process_that_dies_is_told_from_one_that_answers(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BackendError, match="was ended by signal 9 and gave no result"):
        call_in_fresh_process(crash, reporter=SILENT)
    with pytest.raises(BackendError, match="ended with exit status 3 and gave no result"):
        call_in_fresh_process(leave, reporter=SILENT)
    with pytest.raises(BackendError, match="ended with exit status 1"):
        call_in_fresh_process(fail, ZeroDivisionError, reporter=SILENT)
    assert "ZeroDivisionError: found 3 and 4" in capfd.readouterr().err, "a bug shows where it is"


def test_an_interrupted_call_leaves_no_process_behind() -> None:
    pids: list[int] = []

    def interrupt(text: str) -> None:
        pids.append(int(text))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_in_fresh_process(hang, reporter=Recorder(interrupt))
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
