import sys

import pytest
import torch

from support.pruning import FAMILIES, SMALL, plant_dead_channels, priors_of, random_image, random_model
from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.channel_groups import WidthGrid, find_channel_groups
from yolact_calibration.pruning.importance import CurvatureProbe, batch_norm_importance, taylor_importance
from yolact_calibration.training.distill import DistillationOptions, distillation_terms


def measure(model, groups, images, priors, seed=0):
    return taylor_importance(model, groups, images, CurvatureProbe(priors, seed=seed))


def muffled(model, group, channel, gain):
    """Raw outputs when every reader of a channel hears it at that gain."""
    gate = torch.ones(1, group.width, 1, 1)
    gate[:, channel] = gain
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: inputs[0] * gate)
        for name in group.consumers
    ]
    with torch.no_grad():
        raw = model(random_image(SMALL, 2, 5))
    for handle in handles:
        handle.remove()
    return raw


def test_importance_is_the_second_order_increase_of_the_distillation_loss():
    model, priors, options = random_model(SMALL, 2), priors_of(SMALL), DistillationOptions()
    groups = [
        group
        for group in find_channel_groups(model)
        if group.name in {"proto_net.4", "fpn.pred_layers.0", "backbone.layers.1.0.conv2"}
    ]
    assert len(groups) == 3
    # One batch, looked at with many random weights: the mean of their squares is what counts.
    importance = measure(model, groups, [random_image(SMALL, 2, 5)] * 150, priors)
    step = 0.02
    for group in groups:
        dense = muffled(model, group, 0, 1.0)
        for channel in importance[group.name].argsort(descending=True)[:3].tolist():
            terms = distillation_terms(muffled(model, group, channel, 1 - step), dense, priors, options)
            increase = float(sum(terms.values()).detach()) / step**2
            assert importance[group.name][channel] == pytest.approx(increase, rel=0.35)


@pytest.mark.parametrize("name", FAMILIES)
def test_dead_channels_are_worth_nothing_and_the_others_something(name):
    config = FAMILIES[name]
    model = random_model(config)
    groups = find_channel_groups(model)
    alive = plant_dead_channels(model, groups)
    importance = measure(model, groups, [random_image(config, 2)], priors_of(config))
    for group in groups:
        values = importance[group.name]
        dead = sorted(set(range(group.width)) - set(alive[group.name]))
        assert values[dead].abs().max() == 0.0
        # ReLUs have silenced many of the others on these two images.
        assert (values[alive[group.name]] > 0).double().mean() > 0.2, group.name


def test_images_of_a_batch_are_squared_one_by_one():
    model = random_model(SMALL)
    groups = find_channel_groups(model, blocks=("proto_net",))

    def loss(raw):
        return raw.prototype.sum(dim=(1, 2, 3)).mul(torch.tensor([1.0, -1.0])).sum()

    image = random_image(SMALL).expand(2, -1, -1, -1)
    both = taylor_importance(model, groups, [image], loss)
    one = taylor_importance(model, groups, [image[:1]], lambda raw: raw.prototype.sum())
    assert groups
    for group in groups:
        torch.testing.assert_close(both[group.name], 2 * one[group.name], rtol=1e-2, atol=1e-12)


def test_a_seed_makes_it_repeatable():
    model, priors = random_model(SMALL), priors_of(SMALL)
    groups = find_channel_groups(model)
    images = [random_image(SMALL, 2, seed) for seed in range(2)]
    first, again, other = (measure(model, groups, images, priors, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_model_is_left_as_it_was():
    model = random_model(SMALL).requires_grad_(False)
    measure(model, find_channel_groups(model), [random_image(SMALL)], priors_of(SMALL))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())


def test_no_images_are_refused():
    model = random_model(SMALL)
    with pytest.raises(PruningError, match="there are none; give 32"):
        measure(model, find_channel_groups(model), [], priors_of(SMALL))


def test_outputs_that_overflow_are_refused():
    model = random_model(SMALL)
    groups = find_channel_groups(model)
    with pytest.raises(PruningError, match=r"18 groups is not finite, backbone\.conv1 first"):
        measure(model, groups, [random_image(SMALL) * 1e38], priors_of(SMALL))


def test_batch_norm_importance_is_the_share_of_the_gain():
    model = random_model(SMALL)
    (group, *_) = groups = find_channel_groups(model, WidthGrid(8), ("backbone",))
    model.backbone.layers[0][0].bn1.weight.data = torch.arange(-8.0, 8.0)
    inner = next(group for group in groups if group.name == "backbone.layers.0.0.conv1")
    importance = batch_norm_importance(model, groups)
    assert importance[inner.name].tolist() == pytest.approx([abs(gain) / 64 for gain in range(-8, 8)])
    gains = [model.get_submodule(name).weight.detach().abs() for name in group.norms]
    expected = torch.stack(gains).mean(dim=0)
    torch.testing.assert_close(importance[group.name].float(), expected / expected.sum())


def test_batch_norm_importance_needs_batch_norms():
    model = random_model(SMALL)
    with pytest.raises(
        PruningError, match=r"groups have no batch norm .*fpn\.lat_layers\.0 first\. Prune the backbone"
    ):
        batch_norm_importance(model, find_channel_groups(model))


def test_importance_needs_no_pruning_library(monkeypatch):
    model = random_model(SMALL)
    groups = find_channel_groups(model)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    assert measure(model, groups, [random_image(SMALL)], priors_of(SMALL))
