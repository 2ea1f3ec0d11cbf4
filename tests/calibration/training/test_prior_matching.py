"""Matching against plain loops written from the published description."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.training_data import make_truth
from support.training_loops import match_by_loops
from yolact_calibration.training.prior_matching import MatchingOptions, match_priors
from yolact_plugins.reference import decode

OPTIONS = MatchingOptions()
Array = np.ndarray[Any, Any]


def random_boxes(rng: np.random.Generator, count: int) -> Array:
    centre, size = rng.uniform(0.1, 0.9, (count, 2)), rng.uniform(0.05, 0.5, (count, 2))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)


def random_priors(rng: np.random.Generator, count: int) -> Array:
    return np.concatenate([rng.uniform(0, 1, (count, 2)), rng.uniform(0.05, 0.5, (count, 2))], axis=1).astype(
        np.float32
    )


@examples(60)
@given(
    seed=st.integers(0, 2**31),
    num_boxes=st.integers(0, 6),
    num_ignored=st.integers(0, 3),
    num_priors=st.integers(1, 60),
)
def test_matching_equals_loops(seed: int, num_boxes: int, num_ignored: int, num_priors: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, ignored, priors = (
        random_boxes(rng, num_boxes),
        random_boxes(rng, num_ignored),
        random_priors(rng, num_priors),
    )
    # Priors right on an object and right in an ignored region, or few would match.
    for place, box in enumerate([*boxes, *ignored][:num_priors]):
        priors[place] = [*(box[:2] + box[2:]) / 2, *(box[2:] - box[:2]) * rng.uniform(0.6, 1, 2)]
    class_id = rng.integers(0, 3, num_boxes)
    truth = make_truth(boxes.tolist(), class_id.tolist(), ignored=ignored.tolist())
    found = match_priors(truth, torch.from_numpy(priors), OPTIONS)
    target, index = match_by_loops(boxes, class_id, ignored, priors)
    assert found.class_target.tolist() == target
    positive = [place for place, value in enumerate(target) if value > 0]
    assert found.positive.nonzero()[:, 0].tolist() == positive
    assert found.truth_index[positive].tolist() == [index[place] for place in positive]
    if positive:
        regression = found.box_target[positive].numpy()
        expected = np.stack([boxes[index[place]] for place in positive])
        np.testing.assert_allclose(decode(regression, priors[positive]), expected, atol=1e-5)


def prior_of(iou: float) -> list[float]:
    """A prior inside the box (0, 0, 0.5, 0.5) that covers this part of it."""
    return [0.25, 0.25 * iou, 0.5, 0.5 * iou]


def test_the_thresholds() -> None:
    # The first prior is the object's own; then 0.51, 0.49, 0.41, 0.39, and one far away.
    priors = torch.tensor([prior_of(iou) for iou in (1.0, 0.51, 0.49, 0.41, 0.39)] + [[0.9, 0.9, 0.1, 0.1]])
    found = match_priors(make_truth([[0, 0, 0.5, 0.5]], [4]), priors, OPTIONS)
    assert found.class_target.tolist() == [5, 5, -1, -1, 0, 0]


def test_an_overlap_of_exactly_a_half_is_positive_and_of_exactly_the_lower_threshold_neutral() -> None:
    priors = torch.tensor([prior_of(1.0), prior_of(0.5), prior_of(0.25)])
    found = match_priors(make_truth([[0, 0, 0.5, 0.5]], [0]), priors, MatchingOptions(0.5, 0.25))
    assert found.class_target.tolist() == [1, 1, -1]


def test_every_object_gets_a_prior_even_below_the_thresholds() -> None:
    priors = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.1, 0.1, 0.05, 0.05]])
    found = match_priors(make_truth([[0.4, 0.4, 0.6, 0.6]], [2]), priors, OPTIONS)
    assert found.class_target.tolist() == [3, 0]


def test_two_objects_that_like_the_same_prior_share_by_overlap() -> None:
    # Both objects overlap most with the first prior; the better pair keeps it, the other takes the next best.
    priors = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.45, 0.25, 0.5, 0.5]])
    truth = make_truth([[0.02, 0, 0.52, 0.5], [0, 0, 0.5, 0.5]], [0, 1])
    found = match_priors(truth, priors, OPTIONS)
    assert found.truth_index.tolist() == [1, 0]
    assert found.class_target.tolist() == [2, 1]


def test_ties_go_to_the_first_object_and_the_first_prior() -> None:
    priors = torch.tensor([[0.25, 0.25, 0.5, 0.5]] * 3)
    truth = make_truth([[0, 0, 0.5, 0.5]] * 2, [0, 1])
    found = match_priors(truth, priors, OPTIONS)
    assert found.truth_index.tolist() == [0, 1, 0]
    assert found.class_target.tolist() == [1, 2, 1]


def test_more_objects_than_priors_leave_the_rest_without() -> None:
    truth = make_truth([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0.5, 0.5, 1]], [0, 1, 2])
    found = match_priors(truth, torch.tensor([[0.75, 0.75, 0.5, 0.5]]), OPTIONS)
    assert found.class_target.tolist() == [2]


def test_an_image_without_objects_is_background_but_for_its_ignored_regions() -> None:
    priors = torch.tensor([[0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.2, 0.2]])
    found = match_priors(make_truth([], [], ignored=[[0.1, 0.1, 0.4, 0.4]]), priors, OPTIONS)
    assert found.class_target.tolist() == [-1, 0]
    assert not found.positive.any()
    assert found.box_target.shape == (2, 4)


@pytest.mark.parametrize(("cover", "neutral"), [(0.69, False), (0.71, True)])
def test_a_prior_is_neutral_when_enough_of_it_lies_in_an_ignored_region(cover: float, neutral: bool) -> None:
    # A crowd is much larger than the prior: what counts is the part of the prior, not the IoU.
    priors = torch.tensor([[0.1, 0.1, 0.2, 0.2]])
    region = [[0.0, -5.0, 0.2 * cover, 5.0]]
    found = match_priors(make_truth([], [], ignored=region), priors, OPTIONS)
    assert found.class_target.tolist() == [-1 if neutral else 0]


def test_positives_stay_positive_in_an_ignored_region() -> None:
    priors = torch.tensor([[0.25, 0.25, 0.5, 0.5]])
    truth = make_truth([[0, 0, 0.5, 0.5]], [1], ignored=[[0, 0, 1, 1]])
    assert match_priors(truth, priors, OPTIONS).class_target.tolist() == [2]


def test_matching_needs_no_gradient_and_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    truth = make_truth(random_boxes(rng, 4).tolist(), [0, 1, 2, 0], ignored=random_boxes(rng, 2).tolist())
    priors = torch.from_numpy(random_priors(rng, 30))
    before = [tensor.clone() for tensor in (truth.xyxy, truth.class_id, truth.ignored_xyxy, priors)]
    match_priors(truth, priors, OPTIONS)
    for tensor, copy in zip((truth.xyxy, truth.class_id, truth.ignored_xyxy, priors), before, strict=True):
        assert torch.equal(tensor, copy)
