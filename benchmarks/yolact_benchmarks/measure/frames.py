"""Frames to measure with: pictures of a folder, what a camera sees, or drawn scenes of a given size.

They are in memory before anything is timed: a robot's frames are, too.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yolact_plugins.files import counted
from yolact_runtime.errors import MediaError
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["FrameSet", "camera_frames", "drawn_frames", "read_frames"]

Frame = npt.NDArray[np.uint8]
_MAX_FRAMES = 32
"""Of a folder: more would only fill the memory, and cycling through these empties the caches as a camera does."""
_DRAWN = 4
_SETTLE = 5
"""Frames that a camera may take to find its exposure."""


@dataclasses.dataclass(frozen=True, eq=False)
class FrameSet:
    """Frames that take turns.

    Attributes:
        name: For people: ``"1920x1080"``.
        source: Where they are from: ``"drawn scenes"`` or the folder.
        frames: ``(H, W, 3)`` uint8 each, blue first.
    """

    name: str
    source: str
    frames: tuple[Frame, ...]

    def cycle(self) -> Iterator[Frame]:
        """The frames, over and over."""
        return itertools.cycle(self.frames)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Different (width, height), pixels."""
        return sorted({(frame.shape[1], frame.shape[0]) for frame in self.frames})


def drawn_frames(width: int, height: int, count: int = _DRAWN, seed: int = 0) -> FrameSet:
    """Scenes of shapes, always the same for a seed and size; pixels that nobody has in a cache.

    Args:
        width: Pixels.
        height: Pixels.
        count: How many.
        seed: Of the first.
    """
    from yolact_calibration.shapes.scene import SceneOptions, make_scene

    options = SceneOptions(height=height, width=width)
    frames = tuple(make_scene(seed + i, options).image for i in range(count))
    return FrameSet(f"{width}x{height}", f"drawn scenes, seeds {seed} to {seed + count - 1}", frames)


def camera_frames(number: int, count: int = _MAX_FRAMES) -> FrameSet:
    """What a camera sees now, as its driver gives it to OpenCV; waiting for the camera is no part of what is timed.

    Args:
        number: Of the camera: 0 is ``/dev/video0``.
        count: Frames.

    Raises:
        MediaError: There is no such camera, or it gives no frames.
        MissingDependencyError: OpenCV is not installed.
    """
    from yolact_runtime.media.cameras import read_camera

    frames = tuple(read_camera(number, count, _SETTLE))
    height, width = frames[0].shape[:2]
    return FrameSet(f"{width}x{height}", f"camera {number}, {counted(count, 'frame')}", frames)


def read_frames(
    words: Sequence[str], reader: ImageReader, reporter: Reporter = SILENT
) -> tuple[FrameSet, tuple[Path, ...]]:
    """Pictures of folders, files and globs; at most 32.

    Args:
        words: As on a command line.
        reader: Reads the pictures.
        reporter: Is told what is left out.

    Returns:
        The frames, and their files in the same order.

    Raises:
        MediaError: A word stands for nothing, or a file is no picture.
    """
    from yolact_runtime.media.inputs import find_inputs

    inputs = find_inputs(words)
    if inputs.failures:
        word, reason = inputs.failures[0]
        raise MediaError(f"--images {word}: {reason}")
    for sentence in inputs.left_out:
        reporter.say(sentence)
    if inputs.videos:
        count = counted(len(inputs.videos), "video")
        reporter.say(f"left out, because only pictures are measured with: {count}, {inputs.videos[0]} first")
    paths = inputs.images[:_MAX_FRAMES]
    if len(inputs.images) > len(paths):
        reporter.say(f"the first {len(paths)} of {len(inputs.images)} pictures are used")
    if not paths:
        raise MediaError(f"--images {' '.join(words)}: no picture there; name a folder of pictures, or synthetic")
    frames = tuple(reader.read(path) for path in paths)
    frame_set = FrameSet("", f"{counted(len(paths), 'picture')} of {' '.join(words)}", frames)
    sizes = frame_set.sizes
    name = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} sizes"
    return dataclasses.replace(frame_set, name=name), paths
