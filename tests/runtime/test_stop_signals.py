from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from yolact_runtime.stop_signals import Terminated, hold_stop, name_of_stop, raise_stops

SIGNALS = [(signal.SIGINT, KeyboardInterrupt, "SIGINT"), (signal.SIGTERM, Terminated, "SIGTERM")]


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """The tests may have been started in the background, where a shell ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def _send(*numbers: int, wait_s: float = 5) -> None:
    """Send signals to this process, and give them the time that a test does not have."""
    for number in numbers:
        signal.raise_signal(number)
    time.sleep(wait_s)


@pytest.mark.parametrize(("number", "error", "name"), SIGNALS)
def test_a_signal_raises_at_once(number: int, error: type[BaseException], name: str) -> None:
    with pytest.raises(error) as raised, raise_stops():
        _send(number)
    assert name_of_stop(raised.value) == name


@pytest.mark.parametrize(("number", "error", "name"), SIGNALS)
def test_the_first_signal_waits_for_the_end_of_what_holds_it(
    number: int, error: type[BaseException], name: str
) -> None:
    finished: list[str] = []

    def work() -> None:
        with raise_stops():
            with hold_stop():
                _send(number, wait_s=0)
                finished.append("block")
            finished.append("never")

    with pytest.raises(error):
        work()
    assert finished == ["block"]


def test_the_second_signal_does_not_wait() -> None:
    with pytest.raises(Terminated), raise_stops(), hold_stop():
        _send(signal.SIGINT, signal.SIGTERM)


def test_after_a_first_signal_nothing_holds_a_second_one() -> None:
    with raise_stops():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), hold_stop():
            _send(signal.SIGINT)


def test_patience_ends() -> None:
    started = time.monotonic()
    with pytest.raises(Terminated), raise_stops(), hold_stop(patience_s=0.05):
        _send(signal.SIGTERM)
    assert time.monotonic() - started < 4


def test_no_second_signal_is_sent_once_the_block_is_left() -> None:
    with raise_stops():
        with pytest.raises(KeyboardInterrupt), hold_stop(patience_s=0.05):
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.15)


def test_without_a_signal_nothing_happens() -> None:
    with raise_stops(), hold_stop():
        pass
    with hold_stop(0.01):
        pass
    assert name_of_stop(ValueError()) is None


def test_an_ignored_sigint_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with raise_stops(), hold_stop():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_changes() -> None:
    handlers: list[object] = []

    def work() -> None:
        with raise_stops(), hold_stop():
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_a_command_inside_a_command() -> None:
    with raise_stops():
        with pytest.raises(KeyboardInterrupt), raise_stops():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
