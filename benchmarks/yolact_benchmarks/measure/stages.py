"""The stages of a frame, and the interface of the timers that measure them.

A :class:`FrameTimer` runs whole frames and times their stages. The timer of :mod:`yolact_benchmarks.measure.host_timer`
is for backends that leave their outputs in host memory. The timer of a device has other stages, and events of the
device as its clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from yolact_runtime.segmenter import Segmenter

__all__ = ["CANDIDATES", "MASKS", "MASK_IOU", "NETWORK", "NMS", "PREPROCESS", "FrameTimer", "FrameTimes", "Stage"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a frame's time.

    Attributes:
        name: Short name, for tables.
        what: Human-readable description, one line.
        clock: Clock of the stage: ``"wall"`` is the host's; ``"device"`` stands for events on the device. Stages of
            different clocks may overlap and do not add up to the frame.
    """

    name: str
    what: str
    clock: Literal["wall", "device"] = "wall"


PREPROCESS = Stage("preprocess", "frame to network input: stretch, normalise, planes")
NETWORK = Stage("network", "the inference library, from its input to its outputs")
CANDIDATES = Stage("candidates", "scores above the threshold, and their boxes")
NMS = Stage("nms", "suppression")
MASKS = Stage("masks", "prototypes x coefficients to masks in the frame, and the result's arrays")
MASK_IOU = Stage("mask iou", "the mask-IoU network of YOLACT++")


@dataclasses.dataclass(frozen=True)
class FrameTimes:
    """Times of one frame.

    Attributes:
        total_ms: Time from the frame in memory to its instances, through the segmenter, by the wall clock.
        stage_ms: Time of each stage by its name; those of the wall clock add up to `total_ms`.
        num_instances: Number of instances found.
    """

    total_ms: float
    stage_ms: Mapping[str, float]
    num_instances: int


class FrameTimer(Protocol):
    """Interface of a timer that runs frames of one model in one configuration."""

    @property
    def segmenter(self) -> Segmenter:
        """Segmenter that is timed."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stages in the order of the frame."""

    def time(self, frame: npt.NDArray[np.uint8]) -> FrameTimes:
        """Run one frame and return its times."""
