"""Distillation: teach a narrow model to say what the dense one says, on images that need no labels.

Three things are compared: what each prior sees, where, and the masks of the objects that the teacher sees. Prototypes
and coefficients are *not* compared one by one. A mask is the sigmoid of their product, which stays the same when the
prototypes are exchanged or scaled and the coefficients follow; to ask for the teacher's own basis would forbid the
student all others.
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
    """A batch, as far as a distillation is concerned."""

    @property
    def image(self) -> torch.Tensor:
        """``(B, 3, H, W)`` float32, normalised."""


@dataclasses.dataclass(frozen=True)
class DistillationOptions:
    """Weights of the terms; those of YOLACT's training for the same three things.

    Attributes:
        class_weight: Of the class term.
        box_weight: Of the box term.
        mask_weight: Of the mask term.
        instances: Whose masks are compared.

    Raises:
        UsageError: A field is no number of its kind, or out of its range; the message names it.
    """

    class_weight: float = 1.0
    box_weight: float = 1.5
    mask_weight: float = 6.125
    instances: PseudoInstanceOptions = dataclasses.field(default_factory=PseudoInstanceOptions)

    def __post_init__(self) -> None:
        keep_between(self, real=dict.fromkeys(("class_weight", "box_weight", "mask_weight"), (0, MAX_WEIGHT)))


class Distillation:
    """A training objective: ``objective(model, batch)`` gives named terms whose sum is to be minimised.

    Args:
        teacher: The dense model. It is put into eval mode and its parameters stop requiring gradients.
        priors: ``(P, 4)`` float32, centre-size, relative to the input; of both models.
        options: Weights, and which masks are compared.
    """

    def __init__(self, teacher: nn.Module, priors: torch.Tensor, options: DistillationOptions | None = None) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.priors = priors
        self.options = options or DistillationOptions()

    def __call__(self, model: Any, batch: HasImage) -> dict[str, torch.Tensor]:
        """Terms ``distill_class``, ``distill_box`` and ``distill_mask``: weighted scalars, float32.

        Args:
            model: The student, in whichever mode the training wants; ``model(image)`` gives raw outputs.
            batch: Its images, on the device of both models; labels are not read.
        """
        with torch.no_grad():
            teacher = self.teacher(batch.image)
        student = model(batch.image)
        # What follows sums over thousands of priors: in float32, whatever the networks compute in.
        with torch.autocast(batch.image.device.type, enabled=False):
            return distillation_terms(student, teacher, self.priors.to(batch.image.device), self.options)


def distillation_terms(
    student: RawOutputs, teacher: RawOutputs, priors: torch.Tensor, options: DistillationOptions
) -> dict[str, torch.Tensor]:
    """The terms from raw outputs; all are 0 where both models say the same.

    The class term is the divergence of the class distributions, with a prior counting as much as either model sees an
    object there: what the teacher sees has to be found, and nothing else; the thousands of priors on plain background
    would otherwise drown both. The box term is smooth L1, where the teacher sees objects. Both are divided by
    the number of priors that see an object, to the teacher. The mask term is the divergence of assembled masks inside
    the teacher's boxes, divided by the box's area, averaged over the objects.

    Args:
        student: Raw outputs with gradients, of any float type.
        teacher: Raw outputs without.
        priors: ``(P, 4)`` float32 on the same device.
        options: Weights.
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
    """Binary divergence of the masks, in nats; zero with a zero gradient where the teacher sees nothing."""
    # Only pixels inside boxes are looked at: a tenth of all, typically.
    place = instances.inside.nonzero(as_tuple=True)
    student_logit = assemble_logit(student, instances.prior)[place]
    with torch.no_grad():
        teacher_logit = assemble_logit(teacher, instances.prior)[place]
        target = teacher_logit.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(teacher_logit, target, reduction="none")
        weight = instances.weight[place[0], place[1]] / instances.valid.sum().clamp(min=1)
    divergence = functional.binary_cross_entropy_with_logits(student_logit, target, reduction="none") - entropy
    return (weight * divergence).sum()
