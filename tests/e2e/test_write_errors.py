"""Whatever the file system says to a command that writes: one line with the file's name, and the earlier file stays."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from support.file_system_steps import in_a_child, steps_of
from yolact_calibration.quantisation.observation_file import write_observation
from yolact_calibration.quantisation.observer import Observation
from yolact_calibration.training.training_state import Curve, TrainingState, write_state
from yolact_export.bundle_writer import staged_bundle, write_manifest
from yolact_plugins.command_line import CommandParser
from yolact_plugins.files import write_atomically
from yolact_runtime.media.documents import ResultDocument
from yolact_runtime.media.images import write_image
from yolact_runtime.media.result_lines import ResultLineWriter
from yolact_runtime.media.video_writer import VideoWriter
from yolact_runtime.model.bundle import read_manifest
from yolact_runtime.model.manifest import InputSpec, Manifest, PriorSpec
from yolact_runtime.terminal import add_common_options, run_command, write_json

IMAGE = np.full((32, 32, 3), 100, np.uint8)


def write_document(path: Path) -> None:
    document = ResultDocument(str(path), "model")
    document.add({"file": "a.png"})
    document.finish({"complete": True})


def write_lines(path: Path) -> None:
    with ResultLineWriter(str(path)) as writer:
        writer.write({"source": "a.png"})


def write_video(path: Path) -> None:
    with VideoWriter(path, 10) as writer:
        writer.write(IMAGE)


def write_bundle(path: Path) -> None:
    spec = InputSpec(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    manifest = Manifest("tiny", ("thing",), spec, PriorSpec(((1, 1),), ((4.0,),), (1.0,), True))
    with staged_bundle(path) as folder:
        (folder / "model.fp32.onnx").write_bytes(b"weights")
        write_manifest(folder, manifest, {"model.fp32.onnx": "network"})


def write_training(path: Path) -> None:
    weights = {"weight": torch.zeros(3)}
    write_state(path, TrainingState(1, {}, weights, {}, Curve({}, {})))


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "yolact-run -o, a picture": ("a.png", lambda path: write_image(path, IMAGE)),
    "yolact-run -o, a video": ("a.webm", write_video),
    "yolact-run --json": ("a.json", write_document),
    "yolact-run --jsonl": ("a.jsonl", write_lines),
    "yolact-eval --json": ("a.json", lambda path: write_json({}, str(path))),
    "yolact-bench --html": ("a.html", lambda path: write_atomically(path, b"page")),
    "yolact-export -o": ("a.bundle", write_bundle),
    "yolact-export --calibration-cache": ("a.npz", lambda path: write_observation(path, "key", Observation({}, set()))),
    "yolact-finetune -o": ("a.state", write_training),
}
ERRORS = [
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENAMETOOLONG, errno.EXDEV, errno.EIO, errno.ENOENT),
]


def as_command(write: Callable[[], None]) -> int:
    parser = CommandParser("writer", "A writer.")
    add_common_options(parser)

    def run(options: argparse.Namespace, terminal: object) -> int:
        write()
        return 0

    return run_command(parser, run, [])


@pytest.mark.parametrize("writer", WRITERS)
def test_an_error_at_every_step(
    tmp_path: Path, writer: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # waits for the disk, which only a loss of power shows
    name, write = WRITERS[writer]
    path = tmp_path / name
    write(path)
    size_bytes = path.stat().st_size
    if path.is_file():
        path.write_bytes(b"{earlier}")
    is_stream = name.endswith(".jsonl")
    told = 0
    for number in range(500):
        code = ERRORS[number % len(ERRORS)]

        def work(number: int = number, code: int = code) -> None:
            # The streams of this process belong to the tests.
            sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
            statuses: list[int] = []
            there = steps_of(lambda: statuses.append(as_command(lambda: write(path))), number, code, tmp_path)
            sys.stderr.flush()
            os._exit(10 * (not there) + statuses[0])

        capfd.readouterr()
        status = in_a_child(work)
        words = capfd.readouterr().err
        assert status in {0, 1, 10}, words
        if status == 1:
            told += 1
            assert words.startswith("error: ")
            assert words.count("\n") == 1
            assert str(path) in words
            assert f".{name}." not in words
            # A video is read back with other words.
            assert os.strerror(code) in words or "cannot be read back" in words
            # When only its folder cannot be flushed, the new one is there.
            is_earlier = path.is_file() and path.read_bytes() == b"{earlier}"
            assert path.is_dir() or is_stream or is_earlier or path.stat().st_size == size_bytes
        else:
            assert not words
        if path.is_dir():
            assert list(read_manifest(path).artefacts) == ["model.fp32.onnx"]
            assert (path / "model.fp32.onnx").read_bytes() == b"weights"
        write(path)
        if path.is_file():
            path.write_bytes(b"{earlier}")
        (tmp_path / "a.incomplete.webm").unlink(missing_ok=True)
        assert [entry.name for entry in tmp_path.iterdir()] == [name]
        if status == 10:
            break
    assert told
