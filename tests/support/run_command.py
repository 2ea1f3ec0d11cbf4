"""Inputs for ``yolact-run``, and functions that run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from support.scenes import Thing
from yolact_runtime.commands.run_cli import main
from yolact_runtime.media.images import write_image
from yolact_runtime.media.video_writer import VideoWriter

__all__ = ["BRIGHT", "DARK", "THINGS", "film", "lines_of", "picture", "program", "run"]

THINGS = [
    Thing((0.25, 0.25, 0.75, 0.75), class_id=0, confidence=0.9),
    Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1),
    Thing((0.25, 0.25, 0.74, 0.75), class_id=1, confidence=0.4),
]
BRIGHT, DARK = 255, 0
_START = """
import signal, sys
# A suite that a shell started in the background is deaf to it, and so would be its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
from yolact_runtime.commands.run_cli import main
sys.exit(main())
"""


def picture(path: Path, level: int = BRIGHT, size: tuple[int, int] = (40, 60)) -> Path:
    """Write an image of one grey, and create its folder; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((*size, 3), level, np.uint8))
    return path


def film(path: Path, levels: list[int], size: tuple[int, int] = (40, 60)) -> Path:
    """Write a video of frames of one grey each, ten per second; return its path."""
    with VideoWriter(path, 10) as writer:
        for level in levels:
            writer.write(np.full((*size, 3), level, np.uint8))
    return path


def run(*words: object) -> int:
    """Run the command in this process and return its status."""
    return main([str(word) for word in words])


def lines_of(content: bytes) -> list[dict[str, Any]]:
    """Decode JSON Lines."""
    return [json.loads(line) for line in content.splitlines()]


def program(*words: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own, with pipes, which SIGINT reaches."""
    # Without a buffer on this side, from which communicate() would not take.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0, **options}
    return subprocess.Popen([sys.executable, "-c", _START, *map(str, words)], **pipes)
