"""Synthetic pictures for trying a network, without copyright, and the same on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["draw_frame"]

_NUM_THINGS = 9


def draw_frame(height: int, width: int, variant: int = 0, grain: bool = True) -> npt.NDArray[np.uint8]:
    """Draw a frame with something in it: coloured discs and bars on a gradient.

    Args:
        height: Number of rows.
        width: Number of columns.
        variant: Number of the picture, which determines the positions and colours of the objects.
        grain: If True, add noise, as a camera does; without it the frame compresses well.

    Returns:
        ``(height, width, 3)`` uint8 BGR pixels.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = y / height, x / width
    image = np.stack([x, y, 1 - (x + y) / 2], axis=-1) * 160 + 40
    for i in range(_NUM_THINGS * variant, _NUM_THINGS * (variant + 1)):
        centre_y, centre_x = (0.37 * i + 0.2) % 1, (0.61 * i + 0.15) % 1
        colour = np.array([(i * 67) % 256, (i * 131 + 60) % 256, (i * 29 + 120) % 256])
        distance = np.hypot(y - centre_y, x - centre_x)
        shape = (
            distance < 0.05 + 0.02 * (i % 4) if i % 2 else np.maximum(abs(y - centre_y), abs(x - centre_x) / 2) < 0.06
        )
        image[shape] = colour
    if grain:
        # A multiplicative hash instead of a random number library, whose stream could change with a release.
        index = np.arange(height * width * 3, dtype=np.uint64) * np.uint64(2654435761) & np.uint64(2**32 - 1)
        image += (index >> np.uint64(27)).astype(np.float64).reshape(height, width, 3) - 16
    frame: npt.NDArray[np.uint8] = np.clip(image, 0, 255).astype(np.uint8)
    return frame
