import dataclasses

import pytest
import torch

from support.pruning import SMALL, priors_of, random_image, random_model
from yolact_calibration.training.distill import Distillation, DistillationOptions, distillation_terms
from yolact_calibration.training.pseudo_instances import PseudoInstanceOptions
from yolact_calibration.training.torch_device import has_safe_bfloat16
from yolact_export.model.yolact import RawOutput

TERMS = {"distill_class", "distill_box", "distill_mask"}
OPTIONS = DistillationOptions()
PRIORS = priors_of(SMALL)


@dataclasses.dataclass(frozen=True)
class Images:
    image: torch.Tensor


def random_outputs(seed, background=2.0):
    generator = torch.Generator().manual_seed(seed)
    logit = torch.randn(2, len(PRIORS), 7, generator=generator)
    logit[..., 0] += background
    return RawOutput(
        torch.randn(2, len(PRIORS), 4, generator=generator),
        logit,
        torch.randn(2, len(PRIORS), 16, generator=generator).tanh(),
        torch.randn(2, 16, 16, 16, generator=generator).relu(),
    )


def tracked(raw):
    return RawOutput(*(value.clone().requires_grad_() for value in raw))


def numbers(terms):
    return {name: value.detach().item() for name, value in terms.items()}


def test_equal_models_have_nothing_to_learn():
    student = tracked(random_outputs(0))
    terms = distillation_terms(student, random_outputs(0), PRIORS, OPTIONS)
    assert set(terms) == TERMS
    assert all(abs(value) < 1e-6 for value in numbers(terms).values())
    sum(terms.values()).backward()
    # The minimum of all terms: nothing pulls.
    assert all(value.grad.abs().max() < 1e-6 for value in student)


def test_different_models_have_something_to_learn_about_everything():
    student = tracked(random_outputs(1))
    terms = distillation_terms(student, random_outputs(0), PRIORS, OPTIONS)
    assert all(value > 0.01 for value in numbers(terms).values())
    sum(terms.values()).backward()
    for value in student:
        assert value.grad.isfinite().all()
        assert value.grad.abs().max() > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_another_basis_of_the_prototypes_changes_nothing(seed):
    teacher, student = random_outputs(2), random_outputs(3)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(16, generator=generator)
    scale = torch.rand(16, generator=generator) + 0.5
    other = student._replace(
        prototype=student.prototype[:, order] * scale[:, None, None],
        mask_coefficient=student.mask_coefficient[..., order] / scale,
    )
    before, after = (distillation_terms(raw, teacher, PRIORS, OPTIONS) for raw in (student, other))
    for name in TERMS:
        torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-6)
    moved = student._replace(prototype=student.prototype[:, order])
    assert distillation_terms(moved, teacher, PRIORS, OPTIONS)["distill_mask"] != before["distill_mask"]


def test_priors_that_see_nothing_pull_at_nothing():
    teacher = random_outputs(4, background=50.0)
    student = tracked(random_outputs(5, background=50.0))
    terms = distillation_terms(student, teacher, PRIORS, OPTIONS)
    assert all(abs(value) < 1e-6 for value in numbers(terms).values())
    sum(terms.values()).backward()
    assert student.prototype.grad.abs().max() == 0.0


def test_what_only_the_student_sees_counts():
    teacher, student = random_outputs(4, background=50.0), random_outputs(5, background=50.0)
    student.class_logit[0, 7, 3] = 60.0
    assert float(distillation_terms(student, teacher, PRIORS, OPTIONS)["distill_class"]) > 1.0


def test_what_only_the_teacher_sees_counts():
    teacher, student = random_outputs(4, background=50.0), random_outputs(5, background=50.0)
    teacher.class_logit[0, 7, 3] = 60.0
    terms = distillation_terms(student, teacher, PRIORS, OPTIONS)
    assert all(value > 0.01 for value in numbers(terms).values())


def test_masks_are_compared_inside_the_box_only():
    teacher = random_outputs(6, background=50.0)
    prior = 0  # at the upper left corner
    teacher.class_logit[0, prior, 3] = 60.0
    student = random_outputs(6, background=50.0)
    student.prototype[0, :, 12:, 12:] += 5.0
    student.prototype[1] += 5.0
    assert abs(float(distillation_terms(student, teacher, PRIORS, OPTIONS)["distill_mask"])) < 1e-6
    student.prototype[0, :, :2, :2] += 5.0
    assert float(distillation_terms(student, teacher, PRIORS, OPTIONS)["distill_mask"]) > 0.01


def test_weights_scale_their_terms():
    student, teacher = random_outputs(1), random_outputs(0)
    before = distillation_terms(student, teacher, PRIORS, OPTIONS)
    doubled = DistillationOptions(2 * OPTIONS.class_weight, 3 * OPTIONS.box_weight, 4 * OPTIONS.mask_weight)
    after = distillation_terms(student, teacher, PRIORS, doubled)
    for name, factor in {"distill_class": 2, "distill_box": 3, "distill_mask": 4}.items():
        torch.testing.assert_close(after[name], factor * before[name])


def test_a_model_with_fewer_priors_than_candidates():
    few = RawOutput(*(value[:, :3] if value.ndim == 3 else value for value in random_outputs(0)))
    options = DistillationOptions(instances=PseudoInstanceOptions(max_instances=24))
    assert float(distillation_terms(few, few, PRIORS[:3], options)["distill_mask"]) == pytest.approx(0, abs=1e-6)


def test_half_precision_is_compared_in_single():
    student = RawOutput(*(value.bfloat16() for value in random_outputs(1)))
    terms = distillation_terms(student, random_outputs(0), PRIORS, OPTIONS)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in terms.values())


def test_the_objective_teaches_the_student_and_not_the_teacher():
    teacher, student = random_model(SMALL, 1).train(), random_model(SMALL, 2).train()
    objective = Distillation(teacher, PRIORS)
    assert not teacher.training
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    batch = Images(random_image(SMALL, 2))
    optimiser = torch.optim.Adam((p for p in student.parameters() if p.requires_grad), 1e-3)
    losses = []
    for _ in range(4):
        terms = objective(student, batch)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
        losses.append(sum(numbers(terms).values()))
    assert losses[-1] < losses[0]
    assert student.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def test_the_objective_under_autocast():
    # Large enough that P7 is no single pixel, where the CPU's gradients in bfloat16 are garbage (has_safe_bfloat16).
    config = dataclasses.replace(SMALL, input_height=160, input_width=160)
    assert has_safe_bfloat16("cpu", config.feature_sizes[-1])
    objective = Distillation(random_model(config, 1), priors_of(config))
    student = random_model(config, 2)
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective(student, Images(random_image(config, 2)))
    assert all(value.dtype == torch.float32 for value in terms.values())
    sum(terms.values()).backward()
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    assert len(gradients) > 20
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_copy_of_the_teacher_starts_with_nothing_to_learn():
    model = random_model(SMALL, 1)
    terms = Distillation(random_model(SMALL, 1), PRIORS)(model, Images(random_image(SMALL)))
    assert sum(numbers(terms).values()) == pytest.approx(0, abs=1e-5)
