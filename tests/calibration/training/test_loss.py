"""The training loss against plain loops, and its gradients against differences."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from support.training_data import make_truth
from support.training_loops import (
    box_by_loops,
    class_by_loops,
    mask_by_loops,
    mask_iou_by_loops,
    match_by_loops,
    semantic_by_loops,
)
from yolact_calibration.data.batch import Batch, Truth
from yolact_calibration.errors import DatasetError
from yolact_calibration.training.loss import (
    AssembledMasks,
    LossOptions,
    YolactLoss,
    assemble_masks,
    box_loss,
    class_loss,
    crop_outside,
    mask_iou_loss,
    mask_loss,
    semantic_loss,
)
from yolact_calibration.training.prior_matching import Matches, MatchingOptions, match_priors
from yolact_plugins.reference import crop_window

NUM_CLASSES, NUM_PROTOTYPES = 3, 4
HEIGHT, WIDTH = 16, 12  # of the prototypes
BOXES = {
    "none": [],
    "one": [[0.1, 0.2, 0.7, 0.9]],
    "many": [[0.0, 0.0, 0.5, 0.6], [0.45, 0.3, 1.0, 1.0], [0.1, 0.55, 0.4, 0.95], [0.02, 0.0, 0.5, 0.55]],
}


def blob_masks(boxes: Any, rng: np.random.Generator) -> torch.Tensor:
    """Masks ``(n, 64, 48)`` of ellipses with a bite taken out, inside their boxes."""
    y, x = np.mgrid[:64, :48]
    masks = np.zeros((len(boxes), 64, 48), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        u, v = ((x + 0.5) / 48 - x1) / (x2 - x1), ((y + 0.5) / 64 - y1) / (y2 - y1)
        mask |= (2 * u - 1) ** 2 + (2 * v - 1) ** 2 < 1
        mask &= ~((abs(u - rng.uniform(0.2, 0.8)) < 0.15) & (v < 0.4))
    return torch.from_numpy(masks)


def make_truths(kinds: tuple[str, ...], seed: int = 0) -> tuple[Truth, ...]:
    rng = np.random.default_rng(seed)
    truths = []
    for number, kind in enumerate(kinds):
        boxes = BOXES[kind]
        ignored = [[0.55, 0.0, 1.0, 0.3]] if number % 2 else []
        class_id = rng.integers(0, NUM_CLASSES, len(boxes)).tolist()
        truths.append(make_truth(boxes, class_id, blob_masks(boxes, rng), ignored))
    return tuple(truths)


def make_priors_of(truths: tuple[Truth, ...], rng: np.random.Generator) -> torch.Tensor:
    """Two priors near every object, and a grid of others."""
    near = [
        [*(box[:2] + box[2:]) / 2 + rng.normal(0, 0.02, 2), *(box[2:] - box[:2]) * rng.uniform(0.75, 1.1, 2)]
        for truth in truths
        for box in truth.xyxy.numpy()
        for _ in range(2)
    ]
    grid = [[x, y, w, 0.3] for x in (0.15, 0.5, 0.85) for y in (0.15, 0.5, 0.85) for w in (0.2, 0.4)]
    return torch.tensor(np.array(near + grid), dtype=torch.float32)


def make_raw(batch: int, num_priors: int, rng: np.random.Generator) -> SimpleNamespace:
    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(0, 1, shape).astype(np.float32))

    return SimpleNamespace(
        box_regression=2 * normal(batch, num_priors, 4),
        class_logit=normal(batch, num_priors, NUM_CLASSES + 1),
        mask_coefficient=normal(batch, num_priors, NUM_PROTOTYPES).tanh(),
        prototype=normal(batch, NUM_PROTOTYPES, HEIGHT, WIDTH).relu(),
    )


def scene(kinds: tuple[str, ...], seed: int = 0) -> tuple[SimpleNamespace, torch.Tensor, Batch, torch.Tensor]:
    """Raw outputs, semantic logits, the batch and the priors of a made-up step."""
    rng = np.random.default_rng(seed)
    truths = make_truths(kinds, seed)
    priors = make_priors_of(truths, rng)
    raw = make_raw(len(kinds), len(priors), rng)
    semantic = torch.from_numpy(rng.normal(0, 1, (len(kinds), NUM_CLASSES, 8, 6)).astype(np.float32))
    return raw, semantic, Batch(torch.zeros(len(kinds), 3, 64, 48), truths), priors


def plain(truths: tuple[Truth, ...]) -> list[tuple[Any, ...]]:
    return [(t.xyxy.numpy(), t.class_id.numpy(), t.mask.numpy(), t.ignored_xyxy.numpy()) for t in truths]


def judge(masks: torch.Tensor) -> torch.Tensor:
    """Stands for a mask-IoU network: something of every class that depends on the mask."""
    mean = masks.mean(dim=(1, 2, 3))
    return torch.stack([mean, 2 * mean, 1.5 - mean], dim=1)


@pytest.mark.parametrize(
    "kinds",
    [("one",), ("none",), ("many",), ("many", "none", "one"), ("none", "none"), ("many", "one", "many", "none")],
    ids="-".join,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_terms_equal_plain_loops(kinds: tuple[str, ...], seed: int) -> None:
    raw, semantic, batch, priors = scene(kinds, seed)
    found = YolactLoss(priors).terms(raw, semantic, batch, judge)
    truths = plain(batch.truths)
    boxes = [truth[0] for truth in truths]
    targets = [match_by_loops(box, c, ignored, priors.numpy()) for box, c, _, ignored in truths]
    num_positive = max(sum(value > 0 for target, _ in targets for value in target), 1)
    arrays = {name: value.numpy() for name, value in vars(raw).items()}
    mask_iou, num_counted = mask_iou_by_loops(
        arrays["prototype"],
        arrays["mask_coefficient"],
        targets,
        truths,
        lambda soft: [soft.mean(), 2 * soft.mean(), 1.5 - soft.mean()],
    )
    expected = {
        "box": 1.5 * box_by_loops(arrays["box_regression"], targets, boxes, priors.numpy()) / num_positive,
        "class": class_by_loops(arrays["class_logit"], targets) / num_positive,
        "mask": 6.125 * mask_by_loops(arrays["prototype"], arrays["mask_coefficient"], targets, truths) / num_positive,
        "semantic": semantic_by_loops(semantic.numpy(), truths) / len(kinds),
        "mask_iou": 25 * mask_iou / num_positive,
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=2e-4, abs=1e-6), name
    if "many" in kinds:
        assert num_counted >= 3
        assert all(float(value) > 0 for value in found.values())


def test_without_a_mask_iou_network_there_is_no_such_term() -> None:
    raw, semantic, batch, priors = scene(("one",))
    assert set(YolactLoss(priors).terms(raw, semantic, batch)) == {"box", "class", "mask", "semantic"}


def test_weights_scale_their_terms() -> None:
    raw, semantic, batch, priors = scene(("many", "one"))
    options = LossOptions(3.0, 0.5, 1.0, 4.0, 5.0)
    plain_terms = YolactLoss(priors).terms(raw, semantic, batch, judge)
    weighted = YolactLoss(priors, options).terms(raw, semantic, batch, judge)
    factor = {"box": 2, "class": 0.5, "mask": 1 / 6.125, "semantic": 4, "mask_iou": 0.2}
    for name, value in plain_terms.items():
        assert float(weighted[name]) == pytest.approx(float(value) * factor[name], rel=1e-5)


def positive_matches(priors: torch.Tensor, truths: tuple[Truth, ...]) -> list[Matches]:
    return [match_priors(truth, priors, MatchingOptions()) for truth in truths]


def test_three_hardest_negatives_for_each_positive_and_image() -> None:
    # One positive in the first image, none in the second: three negatives, all of the first image.
    target = torch.tensor([[2, 0, 0, -1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    logit = torch.zeros(2, 7, 4)
    logit[0, :, 1] = torch.tensor([0.0, 5.0, 1.0, 9.0, 3.0, 2.0, 4.0])
    logit.requires_grad_()
    class_loss(logit, target, 3).backward()
    assert logit.grad is not None
    touched = logit.grad.abs().sum(dim=2) > 0
    assert touched.tolist() == [[True, True, False, False, True, False, True], [False] * 7]


def test_fewer_negatives_than_wanted_are_all_taken() -> None:
    target = torch.tensor([[1, 1, -1, 0]])
    logit = torch.zeros(1, 4, 3, requires_grad=True)
    loss = class_loss(logit, target, 3)
    assert float(loss.detach()) == pytest.approx(3 * np.log(3))


def test_negatives_that_tie_are_taken_in_the_order_of_the_priors() -> None:
    target = torch.tensor([[0, 0, 1, 0, 0, 0]])
    logit = torch.zeros(1, 6, 3, requires_grad=True)
    class_loss(logit, target, 3).backward()
    assert logit.grad is not None
    assert (logit.grad.abs().sum(dim=2) > 0).tolist() == [[True, True, True, True, False, False]]


def test_large_logits_give_finite_terms() -> None:
    raw, semantic, batch, priors = scene(("many",))
    raw.class_logit, raw.prototype, raw.box_regression = (
        200 * raw.class_logit,
        100 * raw.prototype,
        1e4 * raw.box_regression,
    )
    terms = YolactLoss(priors).terms(raw, 300 * semantic, batch, judge)
    assert all(bool(torch.isfinite(value)) for value in terms.values())


def doubled(matches: list[Matches]) -> list[Matches]:
    return [dataclasses.replace(match, box_target=match.box_target.double()) for match in matches]


def test_gradient_of_the_box_term() -> None:
    raw, _, batch, priors = scene(("many", "none", "one"))
    matches = doubled(positive_matches(priors, batch.truths))
    regression = raw.box_regression.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: box_loss(x, matches), (regression,))


def test_gradient_of_the_class_term() -> None:
    raw, _, batch, priors = scene(("many", "none", "one"))
    target = torch.stack([match.class_target for match in positive_matches(priors, batch.truths)])
    logit = raw.class_logit.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: class_loss(x, target, 3), (logit,))


def test_gradient_of_the_mask_term() -> None:
    raw, _, batch, priors = scene(("one", "many"))
    matches = positive_matches(priors, batch.truths)

    def term(prototype: torch.Tensor, coefficient: torch.Tensor) -> torch.Tensor:
        return mask_loss(assemble_masks(prototype, coefficient, matches, batch, 100), prototype.sum() * 0.0)

    # Some pixels and all coefficients: every pixel of every prototype would take minutes.
    prototype, coefficient = raw.prototype.double(), raw.mask_coefficient.double().requires_grad_()
    part = prototype[:, :, 4:7, 3:6].clone().requires_grad_()

    def with_part(part: torch.Tensor, coefficient: torch.Tensor) -> torch.Tensor:
        whole = prototype.clone()
        whole[:, :, 4:7, 3:6] = part
        return term(whole, coefficient)

    assert torch.autograd.gradcheck(with_part, (part, coefficient))


def test_gradient_of_the_semantic_term() -> None:
    _, semantic, batch, _ = scene(("many", "none"))
    assert torch.autograd.gradcheck(lambda x: semantic_loss(x, batch.truths), (semantic.double().requires_grad_(),))


def test_gradient_of_the_mask_iou_term_reaches_its_network_only() -> None:
    raw, _, batch, priors = scene(("many", "one"))
    matches = positive_matches(priors, batch.truths)
    prototype, coefficient = raw.prototype.double().requires_grad_(), raw.mask_coefficient.double().requires_grad_()
    assembled = assemble_masks(prototype, coefficient, matches, batch, 100)
    weight = torch.randn(HEIGHT, NUM_CLASSES, dtype=torch.float64, requires_grad=True)

    def term(weight: torch.Tensor) -> torch.Tensor:
        return mask_iou_loss(assembled, lambda masks: masks.mean(dim=(1, 3)) @ weight, weight.sum() * 0.0)

    assert torch.autograd.gradcheck(term, (weight,))
    (gradient,) = torch.autograd.grad(term(weight), [weight], retain_graph=True)
    assert float(gradient.abs().sum()) > 0
    unreached = torch.autograd.grad(term(weight), [prototype, coefficient], allow_unused=True)
    assert unreached == (None, None)


def one_mask(found: torch.Tensor, target: torch.Tensor, weight: float = 1.0) -> AssembledMasks:
    logit = torch.where(found, 4.0, -4.0)[None]
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    return AssembledMasks(logit, target[None].float(), whole, torch.tensor([1]), weight)


@pytest.mark.parametrize(("found_side", "true_side", "counts"), [(5, 8, False), (8, 5, False), (6, 6, True)])
def test_small_masks_and_small_objects_do_not_count_for_the_mask_iou(
    found_side: int, true_side: int, counts: bool
) -> None:
    found, target = torch.zeros(12, 12, dtype=torch.bool), torch.zeros(12, 12, dtype=torch.bool)
    found[:found_side, :found_side] = True
    target[:true_side, :true_side] = True
    zero = torch.zeros(())
    loss = mask_iou_loss([one_mask(found, target, 2.0)], lambda masks: torch.zeros(len(masks), 3), zero)
    # The masks are equal where they count: an IoU of 1, against a prediction of 0, twice.
    assert float(loss) == pytest.approx(2 * 0.5 if counts else 0.0)


def test_a_sample_of_the_masks_stands_for_all() -> None:
    raw, _, batch, priors = scene(("many",))
    matches = positive_matches(priors, batch.truths)
    num_positive = int(matches[0].positive.sum())
    assert num_positive >= 6

    def term(step: int, max_masks: int) -> float:
        stepped = dataclasses.replace(batch, step=step)
        assembled = assemble_masks(raw.prototype, raw.mask_coefficient, matches, stepped, max_masks)
        assert len(assembled[0].logit) == min(max_masks, num_positive)
        return float(mask_loss(assembled, torch.zeros(())))

    sampled = [term(step, 3) for step in range(300)]
    assert term(7, 3) == sampled[7]
    assert len(set(sampled)) > 10
    assert np.mean(sampled) == pytest.approx(term(0, 100), rel=0.05)
    assert term(0, num_positive) == term(5, 100)


def test_the_crop_is_the_one_of_the_deployed_pipeline() -> None:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(-0.2, 1.2, (40, 2, 2)), axis=1).reshape(40, 4).astype(np.float32)
    cropped = crop_outside(torch.ones(40, HEIGHT, WIDTH), torch.from_numpy(boxes))
    for box, values in zip(boxes, cropped, strict=True):
        expected = torch.zeros(HEIGHT, WIDTH)
        left, right = crop_window(box[0], box[2], WIDTH)
        top, bottom = crop_window(box[1], box[3], HEIGHT)
        expected[top:bottom, left:right] = 1
        assert torch.equal(values, expected)


class Heads(nn.Module):
    """The smallest model that the loss can train."""

    def __init__(self, num_priors: int) -> None:
        super().__init__()
        self.num_priors = num_priors
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.proto = nn.Conv2d(8, NUM_PROTOTYPES, 1)
        self.semantic = nn.Conv2d(8, NUM_CLASSES, 1)
        self.linear = nn.Linear(8, num_priors * (4 + NUM_CLASSES + 1 + NUM_PROTOTYPES))
        self.mask_iou = None

    def features(self, image: torch.Tensor) -> torch.Tensor:
        return self.stem(image)

    def predict(self, levels: torch.Tensor) -> SimpleNamespace:
        flat = self.linear(levels.mean(dim=(2, 3))).reshape(len(levels), self.num_priors, -1)
        box, logit, coefficient = flat.split([4, NUM_CLASSES + 1, NUM_PROTOTYPES], dim=2)
        return SimpleNamespace(
            box_regression=box,
            class_logit=logit,
            mask_coefficient=coefficient.tanh(),
            prototype=self.proto(levels).relu(),
        )

    def semantic_logit(self, levels: torch.Tensor) -> torch.Tensor:
        return self.semantic(levels)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kinds", [("many", "one"), ("none", "none")], ids="-".join)
def test_every_parameter_has_a_finite_gradient(kinds: tuple[str, ...], autocast: bool) -> None:
    _, _, batch, priors = scene(kinds)
    batch = dataclasses.replace(batch, image=torch.randn(len(kinds), 3, 64, 48))
    model = Heads(len(priors))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        terms = YolactLoss(priors)(model, batch)
    assert {value.dtype for value in terms.values()} == {torch.float32}
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    if kinds == ("none", "none"):
        values = {name: float(value.detach()) for name, value in terms.items()}
        assert values["box"] == values["class"] == values["mask"] == 0.0
        assert values["semantic"] > 0


def test_a_batch_without_labels_is_refused() -> None:
    with pytest.raises(DatasetError, match="a batch of 2 images with the truth of 0: this loss needs labels"):
        YolactLoss(torch.zeros(1, 4))(Heads(1), Batch(torch.zeros(2, 3, 8, 8)))
