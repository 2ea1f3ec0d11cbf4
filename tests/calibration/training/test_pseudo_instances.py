import numpy as np
import pytest
import torch

from support.pruning import SMALL, priors_of
from yolact_calibration.training.pseudo_instances import (
    PseudoInstanceOptions,
    assemble_logit,
    class_log_probability,
    find_pseudo_instances,
)
from yolact_export.model.yolact import RawOutput
from yolact_runtime.cpu.mask_assembly import soft_masks

OPTIONS = PseudoInstanceOptions(max_instances=5)


def quiet_outputs(priors, num_classes=4, num_prototypes=6, size=16, batch=1):
    """A model that sees nothing."""
    generator = torch.Generator().manual_seed(0)
    logit = torch.zeros(batch, len(priors), num_classes)
    logit[..., 0] = 12.0
    return RawOutput(
        torch.zeros(batch, len(priors), 4),
        logit,
        torch.randn(batch, len(priors), num_prototypes, generator=generator).tanh(),
        torch.randn(batch, num_prototypes, size, size, generator=generator).relu(),
    )


def see(raw, prior, class_id=1, logit=15.0, image=0):
    raw.class_logit[image, prior, class_id] = logit


def find(raw, priors, options=OPTIONS):
    return find_pseudo_instances(raw, class_log_probability(raw.class_logit).exp(), priors, options)


def test_probabilities_are_a_softmax_with_classes_first():
    logit = torch.randn(2, 30, 7, generator=torch.Generator().manual_seed(1)) * 5
    torch.testing.assert_close(class_log_probability(logit), logit.log_softmax(dim=2).transpose(1, 2))
    assert class_log_probability(logit.bfloat16()).dtype == torch.float32


def test_nothing_seen_is_no_instance():
    priors = priors_of(SMALL)
    found = find(quiet_outputs(priors, batch=2), priors)
    assert not found.valid.any()
    assert not found.inside.any()
    assert found.weight.sum() == 0


def test_objects_are_found_with_their_boxes():
    priors = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.75, 0.5, 0.25, 0.5], [0.3, 0.8, 0.1, 0.1]])
    raw = quiet_outputs(priors)
    see(raw, 0)
    see(raw, 1, class_id=3, logit=20.0)
    found = find(raw, priors)
    assert found.prior[found.valid].tolist() == [1, 0]
    # From 0.625 to 0.875 of 16 columns is 10 to 14, and a pixel on each side; rows from 4 to 12.
    mask = found.inside[0, 0]
    assert (mask.any(dim=0).nonzero()[:, 0].tolist(), mask.any(dim=1).nonzero()[:, 0].tolist()) == (
        list(range(9, 15)),
        list(range(3, 13)),
    )
    assert found.weight[0, :2].tolist() == pytest.approx([1 / (4 * 8), 1 / (4 * 4)])


def test_regressions_move_boxes():
    priors = torch.tensor([[0.5, 0.5, 0.25, 0.25]])
    raw = quiet_outputs(priors)
    see(raw, 0)
    raw.box_regression[0, 0] = torch.tensor([10.0, 0.0, 0.0, 5.0])  # a box width to the right, e times as high
    found = find(raw, priors)
    height = 0.25 * np.e * 16
    assert float(found.weight[0, 0]) == pytest.approx(1 / (4 * height))
    assert found.inside[0, 0].any(dim=0).nonzero()[:, 0].tolist() == list(range(9, 15))


def test_one_object_counts_once_whatever_its_classes():
    priors = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.52, 0.5, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]])
    raw = quiet_outputs(priors)
    see(raw, 0, 1, 16.0)
    see(raw, 1, 2, 17.0)
    see(raw, 2, 2, 14.0)
    found = find(raw, priors)
    assert found.prior[found.valid].tolist() == [1, 2]


def test_the_surest_objects_of_each_image_are_taken():
    grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), dim=-1).reshape(-1, 2)
    priors = torch.cat([(grid + 0.5) / 8, torch.full_like(grid, 0.1)], dim=1)
    raw = quiet_outputs(priors, batch=2)
    for prior in range(10):
        see(raw, prior, 1, 12.0 + prior)
    see(raw, 63, image=1)
    found = find(raw, priors)
    assert found.prior[0].tolist() == [9, 8, 7, 6, 5]
    assert found.valid.tolist() == [[True] * 5, [True] + [False] * 4]
    assert found.prior[1, 0] == 63


def test_boxes_outside_the_image_do_not_count():
    priors = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    raw = quiet_outputs(priors)
    see(raw, 0)
    raw.box_regression[0, 0, 0] = 100.0
    assert not find(raw, priors).valid.any()


def test_masks_are_those_of_the_runtime():
    priors = priors_of(SMALL)
    raw = quiet_outputs(priors)
    chosen = torch.tensor([[3, 100, 50]])
    found = assemble_logit(raw, chosen).sigmoid()[0].numpy()
    whole = np.tile(np.array([0, 0, 1, 1], np.float32), (3, 1))
    expected = soft_masks(raw.prototype[0].numpy(), raw.mask_coefficient[0][chosen[0]].numpy(), whole)
    np.testing.assert_allclose(found, expected, atol=1e-5)
