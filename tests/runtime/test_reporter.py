from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.recorder import Recorder
from yolact_runtime.reporter import SILENT, ForwardingReporter, Heartbeat, LogReporter, Reporter, forward, show_progress
from yolact_runtime.terminal import Terminal

REPORTERS: dict[str, Callable[[], Reporter]] = {
    "silent": lambda: SILENT,
    "log": lambda: LogReporter(logging.getLogger("test_reporter")),
    "forwarding": lambda: ForwardingReporter(lambda kind, text: forward(kind, text, SILENT)),
    "terminal": lambda: Terminal(stream=io.StringIO()),
    "quiet": lambda: Terminal(quiet=True, stream=io.StringIO()),
}


@pytest.mark.parametrize("name", REPORTERS)
@pytest.mark.parametrize("total", [None, 3, 2])
def test_every_reporter_passes_every_item_on_and_closes_what_it_was_given(name: str, total: int | None) -> None:
    closed = []

    def items() -> object:
        try:
            yield from "abc"
        finally:
            closed.append(True)

    reporter = REPORTERS[name]()
    assert list(reporter.progress(iter("abc"), "work", total)) == ["a", "b", "c"]
    given_up = reporter.progress(items(), "work", total)  # type: ignore[arg-type]
    assert next(given_up) == "a"
    given_up.close()
    del given_up
    assert closed == [True]


def test_silence_hands_warnings_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        SILENT.say("talk")
        SILENT.heading("heading")
        SILENT.status("state")
        SILENT.warn("100 % careful")
    assert [(record.levelname, record.name, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "yolact_runtime.reporter", "100 % careful")
    ]


def test_a_log_gets_lines_and_warnings_by_level(caplog: pytest.LogCaptureFixture) -> None:
    reporter = LogReporter(logging.getLogger("export"), every_s=1e9)
    with caplog.at_level(logging.INFO):
        reporter.heading("100 % heading")
        reporter.say("talk")
        reporter.status("state")
        reporter.warn("careful")
        list(reporter.progress("ab", "work", 2))
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found == [("INFO", "100 % heading"), ("INFO", "talk"), ("WARNING", "careful")]


def test_a_log_where_lines_are_due_gets_the_state_of_the_work(caplog: pytest.LogCaptureFixture) -> None:
    reporter = LogReporter(logging.getLogger("export"), every_s=0)
    with caplog.at_level(logging.INFO):
        reporter.status("state")
        reporter.status("")
        list(reporter.progress("ab", "work", 2))
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "state"
    assert second.startswith("work [########################] 2/2  ")


def test_what_another_process_tells_arrives_as_it_was_told() -> None:
    sent, told = list[tuple[str, str]](), Recorder()
    there = ForwardingReporter(lambda *message: sent.append(message))
    there.heading("heading")
    there.say("talk")
    there.say()
    there.warn("careful")
    there.status("state")
    assert list(there.progress("ab", "work", 2)) == ["a", "b"]
    for message in sent:
        forward(*message, told)
    assert told.told[:5] == [
        ("heading", "heading"),
        ("say", "talk"),
        ("say", ""),
        ("warn", "careful"),
        ("status", "state"),
    ]
    assert [text.split("  ")[0] for _, text in told.told[5:]] == ["work [########################] 2/2"]
    with pytest.raises(KeyError):
        forward("quit", "", told)


def test_a_line_puts_the_next_one_off(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    heartbeat = Heartbeat(every_s=30)
    for seconds, due in ((29.0, False), (1.0, True), (5.0, True)):
        now[0] += seconds
        assert heartbeat.is_due is due
    heartbeat.reset()
    assert not heartbeat.is_due


@examples(150)
@given(steps=st.lists(st.floats(0, 1e9, allow_nan=False), max_size=8), total=st.none() | st.integers(0, 10**9))
def test_a_line_of_progress_has_its_counts_and_one_width_of_bar(steps: list[float], total: int | None) -> None:
    """Whatever time items take, however many come, and however wrong the total is."""
    now, lines = [0.0], list[str]()

    def items() -> Iterator[int]:
        for number, step in enumerate(steps):
            now[0] += step
            yield number

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now[0])
        assert list(show_progress(items(), "work", total, lines.append)) == list(range(len(steps)))
    assert len(lines) <= len(steps)
    for line in lines:
        if total is None:
            assert re.fullmatch(r"work [1-8]  [\d.e+]+/s", line)
        else:
            found = re.fullmatch(rf"work \[(#*)(\.*)\] ([1-8])/{total}  [\d.e+]+/s  \d+ s left", line)
            assert found, line
            assert len(found[1] + found[2]) == 24
