from __future__ import annotations

import os
import threading

import pytest

from yolact_runtime.media.decoder_messages import caught_messages


def test_lines_of_decoders_are_caught_and_others_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with caught_messages() as messages:
        os.write(2, b"libpng error: a\nsomething else\nCorrupt JPEG data: b\n")
    os.write(2, b"libpng error: afterwards\n")
    assert messages == ["libpng error: a", "Corrupt JPEG data: b"]
    assert capfd.readouterr().err == "something else\nlibpng error: afterwards\n"


def test_more_than_fits_does_not_block(capfd: pytest.CaptureFixture[str]) -> None:
    with caught_messages() as messages:
        for _ in range(20):
            try:
                os.write(2, b"libpng warning: x\n" * 1000)
            except BlockingIOError:
                break
    assert len(messages) > 1000
    assert capfd.readouterr().err == ""


def test_the_error_output_is_back_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), caught_messages():
        raise KeyboardInterrupt
    os.write(2, b"here\n")
    assert capfd.readouterr().err == "here\n"


def test_threads_do_not_mix_their_messages(capfd: pytest.CaptureFixture[str]) -> None:
    seen: dict[int, list[str]] = {}

    def print_name(number: int) -> None:
        for _ in range(50):
            with caught_messages() as messages:
                os.write(2, b"libpng error: %d\n" % number)
            seen.setdefault(number, []).extend(messages)

    threads = [threading.Thread(target=print_name, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {number: [f"libpng error: {number}"] * 50 for number in range(4)}
    assert capfd.readouterr().err == ""


def test_without_an_error_output() -> None:
    kept = os.dup(2)
    os.close(2)
    try:
        with caught_messages() as messages:
            pass
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert messages == []
