"""Scaling of samples with more than eight bits to the range 0 to 255 of network inputs.

One rule holds for files and frames: an ``n``-bit value ``v`` becomes ``round(v * 255 / (2**n - 1))``.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import FrameError, UsageError
from yolact_runtime.option_numbers import shown_number

__all__ = ["MAX_BIT_DEPTH", "MIN_BIT_DEPTH", "check_bit_depth", "scale_to_eight_bits", "to_eight_bits"]

MIN_BIT_DEPTH, MAX_BIT_DEPTH = 8, 16
"""Range of the number of significant bits of a 16-bit sample."""

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def check_bit_depth(bit_depth: object, name: str = "bit_depth") -> None:
    """Reject an invalid number of significant bits; None means "not stated".

    Raises:
        UsageError: The value is not an integer from 8 to 16.
    """
    if bit_depth is None:
        return
    if type(bit_depth) is not int or not MIN_BIT_DEPTH <= bit_depth <= MAX_BIT_DEPTH:
        found = shown_number(bit_depth) if isinstance(bit_depth, int) else repr(bit_depth)
        raise UsageError(
            f"{name} is the number of significant bits of a 16-bit sample, a whole number from {MIN_BIT_DEPTH} to "
            f"{MAX_BIT_DEPTH} such as 12; found {found}"
        )


def to_eight_bits(pixels: npt.NDArray[np.uint16], bit_depth: int) -> npt.NDArray[np.uint8]:
    """Scale samples to eight bits.

    Args:
        pixels: Array of uint16 and any shape with values below ``2**bit_depth``: the significant bits are the low ones.
            Not modified.
        bit_depth: Number of significant bits, 8 to 16.

    Returns:
        Array of uint8 and the same shape, owned by the caller.

    Raises:
        FrameError: A value needs more bits.
    """
    try:
        return scale_to_eight_bits(pixels, (1 << bit_depth) - 1)
    except FrameError as error:
        raise FrameError(f"a frame is not of {bit_depth} bits: {error}; correct bit_depth") from error


def scale_to_eight_bits(pixels: Samples, white: int) -> npt.NDArray[np.uint8]:
    """Scale samples so that `white` becomes 255; see :func:`to_eight_bits`.

    Args:
        pixels: Array of uint8 or uint16 and any shape. Not modified.
        white: The largest possible value, 1 to 65535.

    Raises:
        FrameError: A value is larger.
    """
    largest = int(pixels.max(initial=0))
    if largest > white:
        raise FrameError(f"it has the value {largest}, beyond {white}")
    return _table(white)[pixels]


@functools.lru_cache(maxsize=8)
def _table(white: int) -> npt.NDArray[np.uint8]:
    values = np.arange(white + 1, dtype=np.uint32)
    # White is odd if it is 2**n - 1, so no value lies exactly between two steps.
    table = ((values * 510 + white) // (2 * white)).astype(np.uint8)
    table.flags.writeable = False
    return table
