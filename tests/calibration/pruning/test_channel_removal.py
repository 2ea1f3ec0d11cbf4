import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.goldens import relative_error
from support.properties import examples
from support.pruning import FAMILIES, SMALL, random_image, random_model, shuffled
from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.channel_groups import WidthGrid, find_channel_groups
from yolact_calibration.pruning.channel_removal import choose_kept, remove_channels
from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint
from yolact_export.graph.export import export_network
from yolact_runtime.backends.onnxruntime_session import open_cpu_session

OUTPUTS = ("box_regression", "class_logit", "mask_coefficient", "prototype")


def random_choice(groups, seed):
    """Some of each group's widths, and any channels."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for number, group in enumerate(groups):
        width = group.widths[int(torch.randint(len(group.widths), (), generator=generator))]
        kept[group.name] = shuffled(group.width, seed + number)[:width].sort().values
    return kept


def with_deaf_consumers(model, groups, kept):
    """The dense model whose layers do not listen to the channels that are to go."""
    deaf = copy.deepcopy(model)
    for group in groups:
        gone = torch.ones(group.width, dtype=torch.bool)
        gone[kept[group.name]] = False
        for name in group.consumers:
            deaf.get_submodule(name).weight.data[:, gone] = 0.0
    return deaf


def pruned(model, groups, kept):
    narrow = copy.deepcopy(model)
    remove_channels(narrow, groups, kept)
    return narrow


def assert_equal_outputs(actual, expected, tolerance):
    for name, one, other in zip(OUTPUTS, actual, expected, strict=True):
        assert relative_error(np.asarray(one), np.asarray(other)) < tolerance, name


@pytest.mark.parametrize("name", FAMILIES)
def test_a_removed_channel_is_one_that_nobody_reads(name):
    model = random_model(FAMILIES[name])
    groups = find_channel_groups(model)
    kept = random_choice(groups, 3)
    narrow = pruned(model, groups, kept)
    image = random_image(FAMILIES[name], 2)
    with torch.no_grad():
        expected, actual = with_deaf_consumers(model, groups, kept)(image), narrow(image)
        assert_equal_outputs(actual, expected, 1e-5)
        assert relative_error(expected.class_logit.numpy(), model(image).class_logit.numpy()) > 1e-3
        level = narrow.features(image)
        assert narrow.semantic_logit(level).shape[1] == FAMILIES[name].num_classes - 1


@examples(10)
@given(seed=st.integers(0, 1000), round_to=st.sampled_from([1, 8, 16]))
def test_any_channels_of_any_widths_can_go(seed, round_to):
    model = random_model(SMALL, seed)
    groups = find_channel_groups(model, WidthGrid(round_to, 0.01))
    kept = random_choice(groups, seed)
    image = random_image(SMALL, 1, seed)
    with torch.no_grad():
        assert_equal_outputs(pruned(model, groups, kept)(image), with_deaf_consumers(model, groups, kept)(image), 1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_checkpoint_loads_and_its_graph_computes_the_same(name, tmp_path):
    model = random_model(FAMILIES[name], 1)
    groups = find_channel_groups(model)
    narrow = pruned(model, groups, random_choice(groups, 5))
    path = tmp_path / f"{name}_1_2.pth"
    torch.save(narrow.state_dict(), path)
    options = CheckpointOptions(input_size=64, prior_scales=FAMILIES[name].prior_scales_px)
    loaded = load_checkpoint(path, options)
    assert any("a pruned model" in finding for finding in loaded.findings)
    image = random_image(FAMILIES[name])
    with torch.no_grad():
        expected = narrow(image)
        assert all(torch.equal(one, other) for one, other in zip(loaded.model(image), expected, strict=True))
    session = open_cpu_session(export_network(loaded).SerializeToString())
    assert_equal_outputs(session.run(None, {"image": image.numpy()}), expected, 5e-5)


def test_a_pruned_model_can_be_pruned_again():
    model = random_model(SMALL)
    for seed in range(2):
        groups = find_channel_groups(model)
        kept = random_choice(groups, seed)
        remove_channels(model, groups, kept)
        assert {group.name: group.width for group in find_channel_groups(model, WidthGrid(1))} == {
            **{group.name: group.width for group in find_channel_groups(model, WidthGrid(1))},
            **{name: len(keep) for name, keep in kept.items()},
        }


def test_the_most_important_channels_stay_and_equals_keep_their_order():
    group = dataclasses.replace(find_channel_groups(random_model(SMALL))[0], name="g", width=6, widths=(2, 4, 6))
    importance = {"g": torch.tensor([1.0, 5.0, 1.0, 3.0, 1.0, 0.0])}
    assert choose_kept([group], importance, {"g": 4})["g"].tolist() == [0, 1, 2, 3]
    assert choose_kept([group], importance, {"g": 2})["g"].tolist() == [1, 3]


@pytest.mark.parametrize("indices", [[], [1, 0], [0, 0], [-1, 2], [0, 16]])
def test_wrong_indices_change_nothing(indices):
    model = random_model(SMALL)
    groups = find_channel_groups(model)
    before = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    kept = {groups[1].name: torch.arange(8), groups[0].name: torch.tensor(indices, dtype=torch.int64)}
    with pytest.raises(PruningError, match=r"backbone\.conv1: the channels to keep are ascending"):
        remove_channels(model, groups, kept)
    assert before == {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_trainable_and_frozen_parameters_stay_so():
    model = random_model(SMALL)
    model.backbone.requires_grad_(False)
    groups = find_channel_groups(model)
    remove_channels(model, groups, random_choice(groups, 0))
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert all(flag != name.startswith("backbone.") for name, flag in flags.items())
