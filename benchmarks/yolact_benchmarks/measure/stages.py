"""What a frame's time is made of, and who measures it.

A :class:`FrameTimer` runs whole frames and tells their stages. There is one for backends whose outputs lie in host
memory (:mod:`yolact_benchmarks.measure.host_timer`); one for a device has other stages, and events of the device as a
clock.
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
        name: For tables.
        what: For people, one line.
        clock: ``"wall"`` of the host, or ``"device"``: events between which the device was busy with it. Stages of
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
    """Of one frame.

    Attributes:
        total_ms: From the frame in memory to its instances, through the segmenter, by the wall clock.
        stage_ms: By name of stage; stages of the wall clock add up to `total_ms`.
        num_instances: That were found.
    """

    total_ms: float
    stage_ms: Mapping[str, float]
    num_instances: int


class FrameTimer(Protocol):
    """Runs and times frames of one model in one configuration."""

    @property
    def segmenter(self) -> Segmenter:
        """What is timed."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In the order of the frame."""

    def time(self, frame: npt.NDArray[np.uint8]) -> FrameTimes:
        """Run one frame."""
