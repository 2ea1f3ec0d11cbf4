from __future__ import annotations

import copy

import torch

from support.pruning import SMALL, priors_of, random_image, random_model
from support.training_data import make_truth
from yolact_calibration.data.batch import Batch
from yolact_calibration.training.distill import Distillation
from yolact_calibration.training.loss import YolactLoss
from yolact_calibration.training.recovery import Recovery

PRIORS = priors_of(SMALL)


def _batch(labelled: bool) -> Batch:
    truth = make_truth([[0.1, 0.1, 0.6, 0.7]], [2], size=64)
    return Batch(random_image(SMALL, 2), (truth, truth) if labelled else ())


def test_without_labels_it_is_the_distillation() -> None:
    teacher, student = random_model(SMALL, 0), random_model(SMALL, 1)
    found = Recovery(copy.deepcopy(teacher), PRIORS)(student, _batch(labelled=False))
    expected = Distillation(teacher, PRIORS)(student, _batch(labelled=False))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_labels_add_the_training_loss() -> None:
    teacher, student = random_model(SMALL, 0), random_model(SMALL, 1)
    batch = _batch(labelled=True)
    found = Recovery(teacher, PRIORS)(student, batch)
    expected = {**Distillation(teacher, PRIORS)(student, batch), **YolactLoss(PRIORS)(student, batch)}
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-6) for name in expected)


def test_only_the_student_learns() -> None:
    teacher, student = random_model(SMALL, 0), random_model(SMALL, 1)
    student.requires_grad_(True)
    sum(Recovery(teacher, PRIORS)(student, _batch(labelled=True)).values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    named = dict(student.named_parameters())
    assert all(named[name].grad is not None for name in ("backbone.conv1.weight", "semantic_seg_conv.weight"))
