"""What the kernels say of a frame in its status word; ``kernels/status.cuh`` has the same bits."""

from __future__ import annotations

import enum

__all__ = ["FrameStatus"]


class FrameStatus(enum.IntFlag):
    """Bits of the status word, named as in ``status.cuh`` without ``STATUS_``. A frame's result is valid where it is 0.

    A frame with nothing but :attr:`ARENA_OVERFLOW` and :attr:`RUN_OVERFLOW` has one when it is run again with as much
    memory as it asks for.

    Attributes:
        NOT_FINITE: An output of the network holds NaN or infinity, or a mask follows from one.
        CANDIDATE_OVERFLOW: There are more candidates than their buffers hold.
        LIMIT: A setting is beyond what a kernel is built for.
        ARENA_OVERFLOW: The masks need more words than the arena has.
        RUN_OVERFLOW: The masks need more runs than their buffer has.
        MASK_IOU_NOT_FINITE: The mask-IoU network predicts NaN or infinity.
    """

    NOT_FINITE = 1
    CANDIDATE_OVERFLOW = 2
    LIMIT = 4
    ARENA_OVERFLOW = 8
    RUN_OVERFLOW = 16
    MASK_IOU_NOT_FINITE = 32
