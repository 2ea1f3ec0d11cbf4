"""Whatever ends a run, what is done is written, and says that it is not everything."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.full_disk import files_of_at_most
from support.run_command import BRIGHT, DARK, THINGS, film, lines_of, picture, program, run
from support.scenes import write_bundle
from yolact_runtime import Segmenter
from yolact_runtime.commands.picture_folder import PictureFolder
from yolact_runtime.commands.run_job import RunJob
from yolact_runtime.errors import BackendError, MediaError
from yolact_runtime.media.documents import ResultDocument
from yolact_runtime.media.result_lines import ResultLineWriter
from yolact_runtime.media.video_encoders import video_suffix


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "small.bundle", THINGS)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return [picture(tmp_path / "in" / f"{name}.png") for name in "abcd"]


@pytest.fixture
def sigint() -> Iterator[None]:
    """The suite may have been started in the background, where a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _at_call(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], Any]) -> None:
    """Do something in the middle of the n-th picture."""
    original = Segmenter.__call__
    calls: list[None] = []

    def call(self: Segmenter, frame: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            act()
        return original(self, frame)

    monkeypatch.setattr(Segmenter, "__call__", call)


def _raise(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _document(path: Path) -> Any:
    assert [name.name for name in path.parent.iterdir() if name.name.endswith(".tmp")] == []
    return json.loads(path.read_bytes())


def _files(document: Any) -> list[str]:
    return [Path(image["file"]).name for image in document["images"]]


# --- one input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackendError("the network output holds NaN"), "the network output holds NaN"),
        (MemoryError("Unable to allocate 40.0 GiB"), "out of memory (Unable to allocate 40.0 GiB); try a smaller one"),
        (MemoryError(), "out of memory; try a smaller one"),
        (OSError(5, "Input/output error", "b.png"), "[Errno 5] Input/output error: 'b.png'"),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"), "surrogates not allowed"),
        (ZeroDivisionError("division by zero"), "unexpected ZeroDivisionError: division by zero. This is a fault of"),
        (RecursionError("too deep"), "unexpected RecursionError"),
    ],
)
def test_whatever_one_input_causes_is_its_failure(
    bundle: Path,
    tmp_path: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    reason: str,
) -> None:
    _at_call(monkeypatch, 2, _raise(error))
    assert run(bundle, *pictures, "--json", tmp_path / "r.json", "--jsonl", tmp_path / "r.jsonl") == 1
    document = _document(tmp_path / "r.json")
    assert _files(document) == ["a.png", "c.png", "d.png"]
    (failed,) = document["failed"]
    assert failed["file"] == str(pictures[1])
    assert reason in failed["error"]
    assert document["complete"] is True
    assert [line["error"] is None for line in lines_of((tmp_path / "r.jsonl").read_bytes())] == [
        True,
        False,
        True,
        True,
    ]
    errors = capsys.readouterr().err
    assert reason in errors
    assert "1 input failed, 3 done" in errors


def test_an_error_of_opencv_is_its_failure(
    bundle: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    def act() -> None:
        cv2.cvtColor(None, cv2.COLOR_BGR2RGB)

    _at_call(monkeypatch, 2, act)
    assert run(bundle, *pictures) == 1
    captured = capsys.readouterr()
    assert f"error: {pictures[1]}: OpenCV: " in captured.err
    assert captured.out.count("3 instances") == 3


def test_a_fault_of_the_program_is_shown_where_it_is_with_verbose(
    bundle: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _at_call(monkeypatch, 2, _raise(KeyError("nobody")))
    with caplog.at_level("INFO"):
        assert run(bundle, *pictures, "-v") == 1
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "KeyError: 'nobody'" in caplog.text
    assert record.levelname == "INFO"


def test_a_loop_of_links(bundle: Path, tmp_path: Path, pictures: list[Path]) -> None:
    (tmp_path / "in" / "z.png").symlink_to("z.png")
    assert run(bundle, tmp_path / "in", "--json", tmp_path / "r.json") == 1
    assert len(_document(tmp_path / "r.json")["images"]) == 4


def test_a_full_disk_for_pictures_is_each_inputs_failure_and_the_results_are_there(
    bundle: Path, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yolact_runtime.media.images.write_atomically", full)
    assert run(bundle, *pictures, "-o", tmp_path / "out", "--json", tmp_path / "r.json") == 1
    document = _document(tmp_path / "r.json")
    assert len(document["images"]) == 4
    assert ["No space left on device" in failure["error"] for failure in document["failed"]] == [True] * 4
    assert list((tmp_path / "out").iterdir()) == []


# --- results that go nowhere ------------------------------------------------------------------------------------------


def test_a_full_disk_for_the_document_ends_the_run_and_what_fits_is_there(
    bundle: Path, tmp_path: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with files_of_at_most(1500):
        assert run(bundle, *pictures, "--json", tmp_path / "r.json") == 1
    document = _document(tmp_path / "r.json")
    assert 1 <= len(document["images"]) < 4
    assert document["complete"] is False
    assert "r.json: File too large" in document["stopped_by"]
    assert document["not_done"]["count"] >= 1
    errors = capsys.readouterr().err
    assert errors.count(f"error: cannot write {tmp_path / 'r.json'}: File too large") == 1
    assert "stopped before the end: " in errors


def test_a_full_disk_for_lines_ends_the_run_and_the_document_is_there(
    bundle: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    assert run(bundle, *pictures, "--json", tmp_path / "r.json", "--jsonl", "/dev/full") == 1
    document = _document(tmp_path / "r.json")
    assert document["stopped_by"] == "cannot write /dev/full: No space left on device"
    assert document["not_done"] == {"count": 4, "inputs": [str(path) for path in pictures]}


def test_an_output_folder_that_cannot_be_made(
    bundle: Path, tmp_path: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(bundle, *pictures, "-o", tmp_path / "file" / "out") == 1
    assert f"error: cannot make the folder {tmp_path / 'file' / 'out'}: Not a directory" in capsys.readouterr().err


def test_lines_that_cannot_be_opened_once_leave_no_half_document(
    bundle: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document was begun before; the end of the run begins it anew."""
    original, failures = ResultLineWriter.__init__, [OSError(5, "Input/output error")]

    def opened(self: ResultLineWriter, destination: str) -> None:
        if failures:
            raise MediaError(f"cannot write {destination}") from failures.pop()
        original(self, destination)

    monkeypatch.setattr(ResultLineWriter, "__init__", opened)
    assert run(bundle, *pictures, "--json", tmp_path / "r.json", "--jsonl", tmp_path / "r.jsonl") == 1
    assert failures == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "r.json", "r.jsonl"]
    assert _document(tmp_path / "r.json")["complete"] is False


@pytest.mark.parametrize("option", ["--json", "--jsonl"])
def test_a_reader_that_goes_away_ends_the_run_quietly(bundle: Path, tmp_path: Path, option: str) -> None:
    clip = film(tmp_path / "clip.mp4", [BRIGHT] * 400)
    process = program(bundle, clip, option, "-", "-q")
    assert process.stdout is not None
    assert process.stdout.read(20)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_keeps_the_results_so_far_and_says_what_is_missing(
    bundle: Path,
    tmp_path: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sigint: None,
    number: int,
    status: int,
    word: str,
) -> None:
    _at_call(monkeypatch, 3, lambda: signal.raise_signal(number))
    out, lines = tmp_path / "out", tmp_path / "r.jsonl"
    assert run(bundle, *pictures, "--json", tmp_path / "r.json", "--jsonl", lines, "-o", out) == status
    document = _document(tmp_path / "r.json")
    name = signal.Signals(number).name
    assert _files(document) == ["a.png", "b.png"]
    assert document["complete"] is False
    assert document["stopped_by"] == name
    assert document["not_done"] == {"count": 2, "inputs": [str(path) for path in pictures[2:]]}
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    *done, last = lines_of(lines.read_bytes())
    assert [line["source"] for line in done] == [str(path) for path in pictures[:2]]
    assert (last["source"], last["error"]) == (None, f"stopped by {name}: 2 inputs not done, {pictures[2]} first")
    errors = capsys.readouterr().err
    assert "warning: stopped before the end: 2 inputs done, 0 failed, 2 not done" in errors
    assert errors.endswith(f"error: {word}\n")


@pytest.mark.parametrize("where", ["media.inputs.find_inputs", "commands.self_test_command.open_model"])
def test_a_signal_before_the_first_input(
    bundle: Path, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(f"yolact_runtime.{where}", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert run(bundle, *pictures, "--json", tmp_path / "r.json") == 143
    not_done = {"count": 4, "inputs": [str(path) for path in pictures]}
    assert _document(tmp_path / "r.json") == {
        "model": str(bundle),
        "images": [],
        "complete": False,
        "stopped_by": "SIGTERM",
        "not_done": not_done,
    }


def test_a_model_that_cannot_be_opened_says_so_in_the_document(tmp_path: Path, pictures: list[Path]) -> None:
    assert run(tmp_path / "missing.bundle", *pictures, "--json", tmp_path / "r.json") == 1
    document = _document(tmp_path / "r.json")
    assert document["stopped_by"].startswith(f"no model at {tmp_path / 'missing.bundle'}")
    assert document["not_done"]["count"] == 4


def _signals_while_sealing(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    seal = ResultDocument._seal

    def interrupted(self: ResultDocument, end: str) -> None:
        self._write(end[:3])
        for number in numbers:
            signal.raise_signal(number)
        self._cut(self._end - 3)
        seal(self, end)

    monkeypatch.setattr(ResultDocument, "_seal", interrupted)


def test_a_signal_while_the_document_is_written_waits_until_it_is_whole(
    bundle: Path, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _signals_while_sealing(monkeypatch, signal.SIGTERM)
    assert run(bundle, *pictures, "--json", tmp_path / "r.json") == 143
    document = _document(tmp_path / "r.json")
    assert len(document["images"]) == 4
    assert document["complete"] is True


def test_a_second_signal_while_the_document_is_written_leaves_nothing_torn(
    bundle: Path, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, sigint: None
) -> None:
    _signals_while_sealing(monkeypatch, signal.SIGINT, signal.SIGINT)
    (tmp_path / "r.json").write_text('{"earlier": 1}')
    assert run(bundle, *pictures, "--json", tmp_path / "r.json") == 130
    assert _document(tmp_path / "r.json") == {"earlier": 1}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_video(bundle: Path, tmp_path: Path, number: int, status: int) -> None:
    """In a process of its own, which is stopped by the pipe that is full until the signal is sent."""
    clip, other = film(tmp_path / "clip.mp4", [BRIGHT] * 1500), film(tmp_path / "other.mp4", [DARK])
    process = program(bundle, clip, other, "--json", tmp_path / "r.json", "--jsonl", "-")
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(number)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == status
    *lines, last = lines_of(first + rest)
    document = _document(tmp_path / "r.json")
    assert 1 <= len(document["images"]) < 1500
    assert [line["frame"] for line in lines] == [image["frame"] for image in document["images"]]
    assert [line["frame"] for line in lines] == list(range(len(lines)))
    assert [line["time_s"] for line in lines] == [pytest.approx(frame / 10) for frame in range(len(lines))]
    assert document["complete"] is False
    assert document["not_done"] == {"count": 2, "inputs": [str(clip), str(other)]}
    assert last["error"].startswith(f"stopped by {signal.Signals(number).name}: 2 inputs not done")
    assert b"stopped before the end: 0 inputs done, 0 failed, 2 not done" in errors


def test_a_pipe_that_nobody_reads_does_not_keep_a_service_from_ending(bundle: Path, tmp_path: Path) -> None:
    clip = film(tmp_path / "clip.mp4", [BRIGHT] * 1500)
    read, write = os.pipe()
    process = program(bundle, clip, "--json", tmp_path / "r.json", "--jsonl", "-", stdout=write)
    os.close(write)
    assert os.read(read, 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    os.close(read)
    assert process.returncode == 143
    assert b"Traceback" not in errors
    document = _document(tmp_path / "r.json")
    assert document["stopped_by"] == "SIGTERM"
    assert len(document["images"]) >= 1


def test_a_signal_and_a_reader_that_goes_away_with_it(bundle: Path, tmp_path: Path) -> None:
    """Ctrl-C in a shell ends both ends of a pipe: that is an interruption, and nothing to complain about."""
    clip = film(tmp_path / "clip.mp4", [BRIGHT] * 1500)
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    process = program(bundle, clip, "--json", "-", "-q", env=environment)
    assert process.stdout is not None
    assert process.stdout.read(20)
    # The pipe is full by now, or soon, and the run waits for its reader.
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 130
    assert errors.splitlines() == [
        b"warning: stopped before the end: 0 inputs done, 0 failed, 1 not done",
        b"error: interrupted",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_before_the_end_is_written_leaves_no_hidden_file(
    bundle: Path, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, sigint: None, number: int
) -> None:
    monkeypatch.setattr(RunJob, "_end", lambda *_: os.kill(os.getpid(), number))
    _at_call(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    words = ["--json", tmp_path / "r.json", "--jsonl", tmp_path / "r.jsonl"]
    assert run(bundle, *pictures, *words) == 128 + number
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "r.jsonl"]
    assert len(lines_of((tmp_path / "r.jsonl").read_bytes())) == 1


# --- streams and folders that are not what they were ------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_standard_stream_that_is_closed(bundle: Path, tmp_path: Path, pictures: list[Path], number: int) -> None:
    damaged = pictures[0].with_name("e.jpg")
    damaged.write_bytes(cv2.imencode(".jpg", np.zeros((90, 90, 3), np.uint8))[1].tobytes()[:-40] + b"\xff\xd9")
    out = tmp_path / "r.jsonl"
    words = (bundle, damaged.parent, "--jsonl", out)
    with program(*words, preexec_fn=lambda: os.close(number), stdin=None) as process:
        _, errors = process.communicate(timeout=60)
    # What decoders say of the damaged picture is not in the file of results, whose number would be that of the stream.
    lines = lines_of(out.read_bytes())
    assert [line["error"] is None for line in lines] == [True] * 4 + [False]
    assert process.returncode == 1
    if number != 2:
        assert b"error: 1 input failed, 4 done" in errors


def test_results_for_a_stdout_that_is_closed(bundle: Path, pictures: list[Path]) -> None:
    with program(bundle, *pictures, preexec_fn=lambda: os.close(1)) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == b"error: cannot write stdout: Bad file descriptor"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_log_on_a_full_disk_costs_no_result(bundle: Path, tmp_path: Path, pictures: list[Path]) -> None:
    out = tmp_path / "r.json"
    # Where Python buffers, it tries once more to write its log when it ends.
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    words = (bundle, *pictures, "--json", out)
    with Path("/dev/full").open("w") as full, program(*words, stderr=full, env=buffered) as process:
        process.communicate(timeout=60)
    assert len(_document(out)["images"]) == 4
    assert process.returncode == 0


def test_pictures_that_are_removed_meanwhile(
    bundle: Path, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, results = tmp_path / "out", tmp_path / "r.json"
    _at_call(monkeypatch, 3, lambda: [path.unlink() for path in out.iterdir()])
    assert run(bundle, *pictures, "-o", out, "--json", results) == 1
    errors = capsys.readouterr().err
    assert f"wrote 2 files to {out} (" in errors
    assert f"error: 2 files that were written to {out} cannot be found there any more" in errors
    assert _document(results)["complete"] is True


def test_a_device_for_results_has_no_size(bundle: Path, pictures: list[Path], capsys: Any) -> None:
    assert run(bundle, *pictures, "--json", os.devnull) == 0
    assert f"wrote {os.devnull}\n" in capsys.readouterr().err


def test_a_video_that_is_broken_off_overwrites_no_input_and_no_result(
    bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    there = film(out / f"a.incomplete{video_suffix()}", [0, 128])
    other = film(tmp_path / f"a{video_suffix()}", [0, 128])
    assert run(bundle, other, there, "-o", out) == 1
    assert f"{there} is an input, and an incomplete {other} would overwrite it if the run is interrupted" in (
        capsys.readouterr().err
    )
    # The name of one while it is incomplete is that of another when it is done.
    second = there.rename(tmp_path / there.name)
    folder = PictureFolder(tmp_path / "new", frozenset())
    names = [folder.video_of(path, ".mp4").name for path in (other, second)]
    assert names == ["a.mp4", "a.incomplete-2.mp4"]


def test_the_hint_at_pictures_is_for_those_who_lack_nothing_else(
    bundle: Path, tmp_path: Path, pictures: list[Path], capsys: Any
) -> None:
    assert run(bundle, *pictures) == 0
    assert "to see the masks: " in capsys.readouterr().err
    assert run(bundle, *pictures, tmp_path / "missing.png") == 1
    assert "to see the masks: " not in capsys.readouterr().err
