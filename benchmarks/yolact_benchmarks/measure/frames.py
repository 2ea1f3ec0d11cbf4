"""Frames to measure with: images of a folder, frames of a camera, or drawn scenes of a given size.

They are in memory before any timing starts, as the frames of a robot are.
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
"""Most images read of a folder: cycling through them already evicts the caches as a camera does."""
_DRAWN = 4
_SETTLE = 5
"""Frames that are dropped while a camera adjusts its exposure."""


@dataclasses.dataclass(frozen=True, eq=False)
class FrameSet:
    """Frames that are segmented over and over.

    Attributes:
        name: Human-readable name: ``"1920x1080"``.
        source: Origin of the frames: ``"drawn scenes"`` or the folder.
        frames: Frames, ``(H, W, 3)`` uint8 each, BGR.
    """

    name: str
    source: str
    frames: tuple[Frame, ...]

    def cycle(self) -> Iterator[Frame]:
        """Iterate over the frames without end."""
        return itertools.cycle(self.frames)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Distinct sizes of the frames, (width, height) in pixels, sorted."""
        return sorted({(frame.shape[1], frame.shape[0]) for frame in self.frames})


def drawn_frames(width: int, height: int, count: int = _DRAWN, seed: int = 0) -> FrameSet:
    """Draw scenes of shapes, always the same ones for a seed and a size.

    Args:
        width: Width of each frame, pixels.
        height: Height of each frame, pixels.
        count: Number of frames.
        seed: Seed of the first frame; the next ones count up.
    """
    from yolact_calibration.shapes.scene import SceneOptions, make_scene

    options = SceneOptions(height=height, width=width)
    frames = tuple(make_scene(seed + i, options).image for i in range(count))
    return FrameSet(f"{width}x{height}", f"drawn scenes, seeds {seed} to {seed + count - 1}", frames)


def camera_frames(number: int, count: int = _MAX_FRAMES) -> FrameSet:
    """Read frames from a camera through OpenCV; waiting for the camera is not part of any measured time.

    Args:
        number: Index of the camera: 0 is ``/dev/video0``.
        count: Number of frames.

    Raises:
        MediaError: The camera does not exist, or delivers no frames.
        MissingDependencyError: OpenCV is not installed.
    """
    from yolact_runtime.media.cameras import read_camera

    frames = tuple(read_camera(number, count, _SETTLE))
    height, width = frames[0].shape[:2]
    return FrameSet(f"{width}x{height}", f"camera {number}, {counted(count, 'frame')}", frames)


def read_frames(
    words: Sequence[str], reader: ImageReader, reporter: Reporter = SILENT
) -> tuple[FrameSet, tuple[Path, ...]]:
    """Read images of folders, files and globs; at most 32.

    Args:
        words: Folders, files and globs from a command line.
        reader: Reader of image files.
        reporter: Reporter that receives what is left out.

    Returns:
        The frames, and their files in the same order.

    Raises:
        MediaError: A folder, file or glob matches nothing, or a file is not an image.
    """
    from yolact_runtime.media.inputs import find_inputs

    inputs = find_inputs(words)
    if inputs.failures:
        word, reason = inputs.failures[0]
        raise MediaError(f"images: {word}: {reason}")
    for sentence in inputs.left_out:
        reporter.say(sentence)
    if inputs.videos:
        count = counted(len(inputs.videos), "video")
        reporter.say(f"left out, because only pictures are measured with: {count}, {inputs.videos[0]} first")
    paths = inputs.images[:_MAX_FRAMES]
    if len(inputs.images) > len(paths):
        reporter.say(f"the first {len(paths)} of {len(inputs.images)} pictures are used")
    if not paths:
        raise MediaError(f"images: no picture there: {' '.join(words)}; name a folder of pictures, or synthetic")
    frames = tuple(reader.read(path) for path in paths)
    frame_set = FrameSet("", f"{counted(len(paths), 'picture')} of {' '.join(words)}", frames)
    sizes = frame_set.sizes
    name = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} sizes"
    return dataclasses.replace(frame_set, name=name), paths
