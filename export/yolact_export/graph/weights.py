"""Folded weights: batch norms and the input's normalisation become part of convolutions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from yolact_export.model.config import Normalisation
from yolact_export.model.layer_writer import Convolution

__all__ = ["Float32", "folded_weights"]

Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]


def folded_weights(
    module: Convolution, batch_norm: nn.BatchNorm2d | None = None, normalisation: Normalisation | None = None
) -> tuple[Float32, Float32 | None]:
    """Fold everything linear around a convolution into its weight and bias.

    The arithmetic is in float64 and rounded once. With ``g = gamma / sqrt(variance + eps)``, the batch norm gives
    ``weight * g`` and ``(bias - mean) * g + beta``; only deformable convolutions have a bias of their own.

    Args:
        module: Convolution with a weight ``(out, in, kh, kw)``.
        batch_norm: Batch norm after the convolution, in eval mode.
        normalisation: Normalisation before it, whose means are subtracted elsewhere: the division by the standard
            deviations, and the swap of channels, so that the input is ``value - mean`` in BGR order.

    Returns:
        New float32 arrays: the weight, of the module's shape, and the bias ``(out,)``, or None if there is no bias.
    """
    weight: _Float64 = module.weight.detach().double().numpy()
    bias: _Float64 | None = None if module.bias is None else module.bias.detach().double().numpy()
    if normalisation is not None:
        weight = _fold_normalisation(weight, normalisation)
    if batch_norm is not None:
        gain, mean, shift = _batch_norm_terms(batch_norm)
        weight = weight * gain[:, None, None, None]
        bias = ((0.0 if bias is None else bias) - mean) * gain + shift
    return weight.astype(np.float32), None if bias is None else bias.astype(np.float32)


def _fold_normalisation(weight: _Float64, normalisation: Normalisation) -> _Float64:
    if normalisation.channel_order == "RGB":
        weight = weight[:, ::-1]
    deviation: _Float64 = np.asarray(normalisation.std_bgr, np.float64)
    return weight / deviation[None, :, None, None]


def _batch_norm_terms(batch_norm: nn.BatchNorm2d) -> tuple[_Float64, _Float64, _Float64]:
    mean, variance = batch_norm.running_mean, batch_norm.running_var
    assert mean is not None
    assert variance is not None
    deviation = np.sqrt(variance.double().numpy() + batch_norm.eps)
    gain = batch_norm.weight.detach().double().numpy() / deviation
    return gain, mean.double().numpy(), batch_norm.bias.detach().double().numpy()
