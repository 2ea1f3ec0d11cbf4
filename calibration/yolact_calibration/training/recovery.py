"""Recovery: a pruned model learns from the dense one, on images with or without labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from yolact_calibration.data.batch import Batch
from yolact_calibration.training.distill import Distillation, DistillationOptions, distillation_terms
from yolact_calibration.training.loss import YolactLoss

__all__ = ["Recovery"]


class Recovery:
    """Training objective with the teacher's outputs, and the labels if a batch has them.

    Args:
        teacher: Dense model; switched to eval mode, and its parameters no longer require gradients.
        priors: ``(P, 4)`` float32 priors of both models, centre-size, relative to the input.
        options: Weights of the distillation.
    """

    def __init__(self, teacher: nn.Module, priors: torch.Tensor, options: DistillationOptions | None = None) -> None:
        self._distillation = Distillation(teacher, priors, options)
        self._loss = YolactLoss(priors)

    def __call__(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Compute the terms of :class:`Distillation`, and with labels those of :class:`YolactLoss`: float32 scalars."""
        if not batch.truths:
            return self._distillation(model, batch)
        with torch.no_grad():
            teacher = self._distillation.teacher(batch.image)
        levels = model.features(batch.image)
        student, semantic = model.predict(levels), model.semantic_logit(levels)
        with torch.autocast(batch.image.device.type, enabled=False):
            priors = self._distillation.priors.to(batch.image.device)
            terms = distillation_terms(student, teacher, priors, self._distillation.options)
            return {**terms, **self._loss.terms(student, semantic.float(), batch, model.mask_iou)}
