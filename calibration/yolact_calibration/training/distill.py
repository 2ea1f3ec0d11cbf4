"""Distillation: a narrow model learns the outputs of the dense one, on images that need no labels.

Three things are compared: the class of each prior, its box, and the masks of the objects that the teacher finds.
Prototypes and coefficients are *not* compared one by one. A mask is the sigmoid of their product, which stays the same
if the prototypes are permuted or scaled and the coefficients follow; requiring the teacher's own basis would exclude
all others.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from yolact_calibration.training.pseudo_instances import (
    PseudoInstanceOptions,
    PseudoInstances,
    RawOutputs,
    assemble_logit,
    class_log_probability,
    find_pseudo_instances,
)
from yolact_runtime.option_numbers import MAX_WEIGHT, keep_between

__all__ = ["Distillation", "DistillationOptions", "HasImage", "distillation_terms"]


class HasImage(Protocol):
    """Batch with the attribute that a distillation needs."""

    @property
    def image(self) -> torch.Tensor:
        """``(B, 3, H, W)`` float32 pixels, normalised."""


@dataclasses.dataclass(frozen=True)
class DistillationOptions:
    """Weights of the terms, by default those of YOLACT's training for the corresponding terms.

    Attributes:
        class_weight: Weight of the class term.
        box_weight: Weight of the box term.
        mask_weight: Weight of the mask term.
        instances: Options for the objects whose masks are compared.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    class_weight: float = 1.0
    box_weight: float = 1.5
    mask_weight: float = 6.125
    instances: PseudoInstanceOptions = dataclasses.field(default_factory=PseudoInstanceOptions)

    def __post_init__(self) -> None:
        keep_between(self, real=dict.fromkeys(("class_weight", "box_weight", "mask_weight"), (0, MAX_WEIGHT)))


class Distillation:
    """Training objective: ``objective(model, batch)`` returns named terms whose sum is to be minimised.

    Args:
        teacher: Dense model. It is switched to eval mode, and its parameters no longer require gradients.
        priors: ``(P, 4)`` float32 priors of both models, centre-size, relative to the input.
        options: Weights, and the objects whose masks are compared.
    """

    def __init__(self, teacher: nn.Module, priors: torch.Tensor, options: DistillationOptions | None = None) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.priors = priors
        self.options = options or DistillationOptions()

    def __call__(self, model: Any, batch: HasImage) -> dict[str, torch.Tensor]:
        """Compute ``distill_class``, ``distill_box`` and ``distill_mask``: weighted float32 scalars.

        Args:
            model: Student, in the mode that the training set; ``model(image)`` returns raw outputs.
            batch: Batch of images, on the device of both models; labels are not used.
        """
        with torch.no_grad():
            teacher = self.teacher(batch.image)
        student = model(batch.image)
        # The terms sum over thousands of priors: in float32, whatever the precision of the networks.
        with torch.autocast(batch.image.device.type, enabled=False):
            return distillation_terms(student, teacher, self.priors.to(batch.image.device), self.options)


def distillation_terms(
    student: RawOutputs, teacher: RawOutputs, priors: torch.Tensor, options: DistillationOptions
) -> dict[str, torch.Tensor]:
    """Compute the terms from raw outputs; all are 0 if both models agree.

    The class term is the divergence of the class distributions, with each prior weighted by the larger probability of
    an object that either model gives it: the student should find what the teacher finds, and nothing else; the
    thousands of background priors would otherwise dominate. The box term is smooth L1, weighted by the teacher's
    probability of an object. Both are divided by the expected number of the teacher's priors with an object. The
    mask term is the divergence of assembled masks inside the teacher's boxes, divided by the box's area, averaged
    over the objects.

    Args:
        student: Raw outputs with gradients, of any float type.
        teacher: Raw outputs without gradients.
        priors: ``(P, 4)`` float32 centre-size priors on the same device.
        options: Weights of the terms.
    """
    student_log = class_log_probability(student.class_logit)
    with torch.no_grad():
        teacher_log = class_log_probability(teacher.class_logit)
        probability = teacher_log.exp()
        teacher_sees = 1 - probability[:, 0]
        either_sees = torch.maximum(teacher_sees, 1 - student_log[:, 0].exp())
        num_positive = teacher_sees.sum().clamp(min=1)
        instances = find_pseudo_instances(teacher, probability, priors, options.instances)
    divergence = (probability * (teacher_log - student_log)).sum(dim=1)
    regressions = student.box_regression.float(), teacher.box_regression.float()
    distance = functional.smooth_l1_loss(*regressions, reduction="none").sum(dim=2)
    return {
        "distill_class": (either_sees * divergence).sum() * (options.class_weight / num_positive),
        "distill_box": (teacher_sees * distance).sum() * (options.box_weight / num_positive),
        "distill_mask": _mask_term(student, teacher, instances) * options.mask_weight,
    }


def _mask_term(student: RawOutputs, teacher: RawOutputs, instances: PseudoInstances) -> torch.Tensor:
    """Return the binary divergence of the masks in nats; zero with a zero gradient if the teacher finds nothing."""
    # Only pixels inside boxes are compared: typically a tenth of all.
    place = instances.inside.nonzero(as_tuple=True)
    student_logit = assemble_logit(student, instances.prior)[place]
    with torch.no_grad():
        teacher_logit = assemble_logit(teacher, instances.prior)[place]
        target = teacher_logit.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(teacher_logit, target, reduction="none")
        weight = instances.weight[place[0], place[1]] / instances.valid.sum().clamp(min=1)
    divergence = functional.binary_cross_entropy_with_logits(student_logit, target, reduction="none") - entropy
    return (weight * divergence).sum()
