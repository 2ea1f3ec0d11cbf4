"""The status word in which the kernels report errors of a frame; ``kernels/status.cuh`` defines the same bits."""

from __future__ import annotations

import enum

__all__ = ["FrameStatus"]


class FrameStatus(enum.IntFlag):
    """Bits of the status word, named as in ``status.cuh`` without ``STATUS_``. A frame's result is valid if it is 0.

    A frame whose only bits are :attr:`ARENA_OVERFLOW` and :attr:`RUN_OVERFLOW` succeeds when it is run again with the
    amount of memory that it requested.

    Attributes:
        NOT_FINITE: A network output is NaN or infinite, or leads to a mask that is.
        CANDIDATE_OVERFLOW: The candidates exceed the capacity of their buffers.
        LIMIT: A setting exceeds a compile-time limit of a kernel.
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
