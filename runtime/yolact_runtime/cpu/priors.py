"""Priors: the default boxes that box regressions refer to.

Source: the published configurations of YOLACT. The order is levels from fine to coarse, rows before columns (x
fastest), and inside a cell scales before aspect ratios.
"""

import numpy as np
import numpy.typing as npt

from yolact_runtime.model.manifest import PriorSpec

__all__ = ["make_priors"]


def make_priors(spec: PriorSpec, height: int, width: int) -> npt.NDArray[np.float32]:
    """Lay the priors of every level over the image.

    Args:
        spec: Feature map sizes, scales, aspect ratios and the square quirk.
        height: Number of rows of the network input.
        width: Number of columns of the network input.

    Returns:
        Priors ``(P, 4)`` as ``(cx, cy, w, h)``, relative to the image, not clipped. Computed in float64 and rounded
        once, as upstream does. A new array that the caller owns.
    """
    priors = np.empty((spec.num_priors, 4), np.float32)
    begin = 0
    for (rows, columns), scales in zip(spec.feature_sizes, spec.scales_px, strict=True):
        per_cell = len(scales) * len(spec.aspect_ratios)
        end = begin + rows * columns * per_cell
        _fill_level(priors[begin:end].reshape(rows, columns, per_cell, 4), scales, spec, height, width)
        begin = end
    return priors


def _fill_level(
    priors: npt.NDArray[np.float32], scales_px: tuple[float, ...], spec: PriorSpec, height: int, width: int
) -> None:
    rows, columns = priors.shape[:2]
    scale, ratio = (axis.ravel() for axis in np.meshgrid(scales_px, np.sqrt(spec.aspect_ratios), indexing="ij"))
    width_px = scale * ratio
    height_px = width_px if spec.square else scale / ratio
    priors[..., 0] = ((np.arange(columns) + 0.5) / columns)[None, :, None]
    priors[..., 1] = ((np.arange(rows) + 0.5) / rows)[:, None, None]
    priors[..., 2] = width_px / width
    priors[..., 3] = height_px / height
