from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from yolact_runtime.errors import MediaError
from yolact_runtime.media import decoder_messages
from yolact_runtime.media.decoder_messages import decode_and_listen, messages_caught
from yolact_runtime.media.images import encode_image, read_image

_LIBRARY = ctypes.CDLL(None)
_LIBRARY.fputs.argtypes = [ctypes.c_char_p, ctypes.c_void_p]


def _print_in_c(text: bytes) -> None:
    """As libjpeg and libpng do."""
    _LIBRARY.fputs(text, ctypes.c_void_p.in_dll(_LIBRARY, "stderr"))


@pytest.fixture(params=["glibc", "another C library"])
def print_in_c(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    if request.param != "glibc":
        monkeypatch.setattr(decoder_messages, "_c_stream", lambda _: (None, None))
        monkeypatch.setattr(decoder_messages, "_listener", decoder_messages._Listener())
    return _print_in_c


def test_lines_of_decoders_are_heard_and_others_printed(
    print_in_c: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    def decode() -> int:
        print_in_c(b"libpng error: a\nsomething else\nCorrupt JPEG data: b\n")
        return 7

    assert decode_and_listen(decode) == (7, ["libpng error: a", "Corrupt JPEG data: b"])
    print_in_c(b"libpng error: afterwards\n")
    assert capfd.readouterr().err == "something else\nlibpng error: afterwards\n"


def test_what_others_print_meanwhile_is_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    def decode() -> str:
        os.write(2, b"Corrupt JPEG: from Python\n")
        subprocess.run(["sh", "-c", "echo from another program >&2"], check=True)
        return capfd.readouterr().err

    printed, messages = decode_and_listen(decode)
    assert printed == "Corrupt JPEG: from Python\nfrom another program\n"
    assert messages == []


def test_a_program_that_outlives_the_image_keeps_its_error_output(capfd: pytest.CaptureFixture[str]) -> None:
    program, _ = decode_and_listen(
        lambda: subprocess.Popen(["sh", "-c", "read _; echo still here >&2"], stdin=subprocess.PIPE)
    )
    program.communicate(b"\n")
    assert program.returncode == 0
    assert capfd.readouterr().err == "still here\n"


def test_more_than_fits_does_not_block(print_in_c: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]) -> None:
    _, messages = decode_and_listen(lambda: [print_in_c(b"libpng warning: x\n" * 100) for _ in range(200)])
    assert len(messages) > 1000
    assert capfd.readouterr().err == ""


def test_the_error_output_is_back_after_an_exception(
    print_in_c: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    def decode() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_and_listen(decode)
    print_in_c(b"here\n")
    assert capfd.readouterr().err == "here\n"


def test_messages_of_encoders_are_kept_from_the_error_output(capfd: pytest.CaptureFixture[str]) -> None:
    with messages_caught():
        _print_in_c(b"OpenCV: FFMPEG: tag\n")
    assert capfd.readouterr().err == ""


def test_threads_that_decode_at_once_do_not_mix_their_messages(
    print_in_c: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    together = threading.Barrier(4)

    def work(number: int) -> list[str]:
        def decode() -> None:
            if number % 2:
                print_in_c(b"libpng error: %d\n" % number)

        together.wait(60)
        return [message for _ in range(100) for message in decode_and_listen(decode)[1]]

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(work, range(4)))
    assert seen == [[], ["libpng error: 1"] * 100, [], ["libpng error: 3"] * 100]
    assert capfd.readouterr().err == ""


def test_threads_wait_for_nobody_while_nothing_is_said() -> None:
    both = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        # Each decodes until the other one does: one after the other, they would wait for ever.
        results = list(pool.map(lambda _: decode_and_listen(lambda: both.wait(60)), range(2)))
    assert sorted(results) == [(0, []), (1, [])]


def test_damaged_images_are_told_from_sound_ones_in_threads(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frame = np.kron(np.random.default_rng(0).integers(0, 256, (20, 30, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    sound = encode_image(frame, ".jpg")
    damaged = bytearray(sound)
    damaged[len(sound) // 2 : len(sound) // 2 + 2] = b"\xff\xd9"
    paths = [tmp_path / f"{number}.jpg" for number in range(60)]
    for number, path in enumerate(paths):
        path.write_bytes(damaged if number % 3 == 0 else sound)

    def is_read(path: Path) -> bool:
        try:
            return read_image(path).shape == frame.shape
        except MediaError as error:
            return "damaged" not in str(error)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(is_read, paths)) == [number % 3 != 0 for number in range(60)]
    assert capfd.readouterr().err == ""


def test_a_process_forked_while_another_thread_decodes_can_hear_and_print(
    print_in_c: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    inside, done = threading.Event(), threading.Event()

    def decode() -> bool:
        inside.set()
        return done.wait(30)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(decode_and_listen, decode)
        assert inside.wait(30)
        with warnings.catch_warnings():
            # From 3.12 on, Python warns of every fork beside threads, because of what this test is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            signal.alarm(20)
            print_in_c(b"from the child\n")
            heard = decode_and_listen(lambda: print_in_c(b"libpng error: in the child\n"))
            os._exit(0 if heard == (None, ["libpng error: in the child"]) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        done.set()
        assert future.result() == (True, [])
    assert capfd.readouterr().err == "from the child\n"


def test_without_an_error_output(print_in_c: Callable[[bytes], None]) -> None:
    kept = os.dup(2)
    os.close(2)
    try:
        result, _ = decode_and_listen(lambda: print_in_c(b"libpng error: a\n") or 7)  # type: ignore[func-returns-value]
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert result == 7
    assert decode_and_listen(lambda: print_in_c(b"libpng error: b\n"))[1] == ["libpng error: b"]
