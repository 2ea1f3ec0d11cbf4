"""Postprocessing of raw network outputs to instances, for every backend that leaves its outputs in host memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_runtime.cpu.mask_assembly import assemble_masks, soft_masks
from yolact_runtime.cpu.nms import NmsSettings, find_candidates, select
from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.errors import OutputError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.network_outputs import require_finite, unpack_outputs

__all__ = ["MaskIou", "Postprocessor", "decode", "to_pixels"]

_log = logging.getLogger(__name__)

Float = npt.NDArray[np.float32]
MaskIou = Callable[[Float], Float]
"""Function from cropped soft masks ``(n, 1, Hp, Wp)`` to their predicted IoU with the object, ``(n, C - 1)``."""


def decode(box_regression: Float, priors: Float, variances: tuple[float, float]) -> Float:
    """Decode regressions ``(n, 4)`` at priors ``(n, 4)`` to relative xyxy boxes ``(n, 4)``, not clipped."""
    xyxy = np.empty((len(priors), 4), np.float32)
    # A regression far beyond training gives an infinite size; suppression drops such boxes as upstream does.
    with np.errstate(over="ignore", invalid="ignore"):
        centre = priors[:, :2] + box_regression[:, :2] * np.float32(variances[0]) * priors[:, 2:]
        size = priors[:, 2:] * np.exp(box_regression[:, 2:] * np.float32(variances[1]))
        xyxy[:, :2] = centre - size / 2
        xyxy[:, 2:] = xyxy[:, :2] + size
    return xyxy


@dataclass(frozen=True)
class Postprocessor:
    """Candidates, decode, suppression, mask assembly and mask re-scoring for one model. Stateless, so thread-safe.

    Attributes:
        manifest: Manifest of the model.
        priors: Centre-size priors, ``(P, 4)``, relative to the image.
        settings: Suppression method and thresholds.
        crop_margin: Fraction of a box added on each side before its mask is cropped; 0 is the published behaviour.
        mask_iou: The mask-IoU network of YOLACT++, if the model has one.
    """

    manifest: Manifest
    priors: Float
    settings: NmsSettings
    crop_margin: float = 0.0
    mask_iou: MaskIou | None = None

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        settings: NmsSettings | None = None,
        crop_margin: float = 0.0,
        mask_iou: MaskIou | None = None,
    ) -> Postprocessor:
        """Create a postprocessor for the model of a manifest; `settings` default to those of the manifest."""
        if settings is None:
            detection = manifest.detection
            settings = NmsSettings(
                score_threshold=detection.score_threshold,
                iou_threshold=detection.iou_threshold,
                top_k=detection.top_k,
                max_instances=detection.max_instances,
            )
        priors = make_priors(manifest.priors, manifest.input.height, manifest.input.width)
        return cls(manifest, priors, settings, crop_margin, mask_iou)

    def __call__(self, outputs: Mapping[str, npt.NDArray[np.floating]], height: int, width: int) -> Instances:
        """Compute the instances of one frame.

        Args:
            outputs: Outputs ``box_regression (1, P, 4)``, ``class_logit (1, P, C)``, ``mask_coefficient (1, P, K)`` and
                ``prototype (1, K, Hp, Wp)`` of a network that ran on that frame. Not kept.
            height: Number of rows of the frame.
            width: Number of columns of the frame.

        Raises:
            OutputError: The outputs do not fit the manifest, or hold values that are not finite.
        """
        raw = unpack_outputs(outputs, self.manifest)
        candidates = find_candidates(raw.class_logit, self.settings.score_threshold)
        regression = raw.box_regression[candidates.prior].astype(np.float32)
        xyxy = decode(regression, self.priors[candidates.prior], self.manifest.priors.variances)
        if not np.isfinite(xyxy).all():
            # Upstream continues, and so does this: such a box drops every lower-scoring box of its class.
            _log.warning(
                "%s: a box of infinite size suppresses others; the model is damaged or untrained", self.manifest.name
            )
        size = (self.manifest.input.height, self.manifest.input.width)
        selection = select(candidates, xyxy, self.settings, size)
        xyxy = xyxy[selection.candidate]
        chosen = raw.mask_coefficient[candidates.prior[selection.candidate]].astype(np.float32)
        prototype = raw.prototype.astype(np.float32, copy=False)
        masks = assemble_masks(prototype, chosen, xyxy, height, width, self.crop_margin)
        mask_confidence = None
        if self.mask_iou is not None:
            mask_confidence = selection.confidence * self._predicted_iou(prototype, chosen, xyxy, selection.class_id)
        return Instances(
            to_pixels(xyxy, height, width),
            masks,
            selection.confidence,
            selection.class_id.astype(np.int32),
            mask_confidence,
            self.manifest.class_names,
        )

    def _predicted_iou(
        self, prototype: Float, coefficient: Float, xyxy: Float, class_id: npt.NDArray[np.int64]
    ) -> Float:
        """Predict the IoU, ``(n,)``. Re-scoring uses the published crop, so scores do not depend on the crop margin."""
        if self.mask_iou is None or not len(xyxy):
            return np.zeros(len(xyxy), np.float32)
        predicted = self.mask_iou(soft_masks(prototype, coefficient, xyxy)[:, None])
        wanted = (len(xyxy), len(self.manifest.class_names))
        if predicted.shape != wanted:
            raise OutputError(
                f'the output "mask_iou" should have the shape {wanted} for this model, found {predicted.shape}'
            )
        require_finite(predicted, "mask_iou")
        return predicted[np.arange(len(xyxy)), class_id]


def to_pixels(xyxy: Float, height: int, width: int) -> Float:
    """Scale boxes to pixels with upstream's one-sided clamping; NaN becomes 0, as in an integer box."""
    scale = np.array([width, height, width, height], np.float32)
    with np.errstate(over="ignore"):  # coordinates of a box with an infinite size
        scaled = xyxy * scale
    pixels, one, other = np.empty_like(scaled), scaled[:, :2], scaled[:, 2:]
    np.maximum(np.minimum(one, other), 0, out=pixels[:, :2])
    np.minimum(np.maximum(one, other), scale[2:], out=pixels[:, 2:])
    # Checking costs a tenth of replacing, and frames of a sound model need no replacement.
    return pixels if np.isfinite(pixels).all() else np.nan_to_num(pixels, copy=False)
