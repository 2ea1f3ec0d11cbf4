import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.channel_groups import ChannelGroup, WidthGrid
from yolact_calibration.pruning.latency import LatencyTable, TimedLayer
from yolact_calibration.pruning.layer_shape import LayerCall, LayerShape
from yolact_calibration.pruning.width_search import choose_widths


def chain(widths, cost, round_to=8, min_share=0.25):
    """Layers one after the other, the groups between them, and their table; `cost` is of the two widths."""
    grid = WidthGrid(round_to, min_share)
    groups = [
        ChannelGroup(f"backbone.{i}", width, grid.of(width), (f"backbone.{i}",), (), (), (f"backbone.{i + 1}",))
        for i, width in enumerate(widths)
    ]
    channels = [3, *widths, 5]
    layers, ms = [], {}
    for index, (in_channels, out_channels) in enumerate(itertools.pairwise(channels)):
        # Maps of different sizes keep the layers apart.
        shape = LayerShape(in_channels, out_channels, (3, 3), (1, 1), 1, (1, index + 1), (1, index + 1))
        in_group = groups[index - 1] if index else None
        out_group = groups[index] if index < len(groups) else None
        layers.append(
            TimedLayer(LayerCall(f"backbone.{index}", shape), in_group and in_group.name, out_group and out_group.name)
        )
        for read in in_group.widths if in_group else (in_channels,):
            for written in out_group.widths if out_group else (out_channels,):
                ms[shape.with_channels(read, written)] = cost(index, read, written)
    return groups, LatencyTable("a table", tuple(layers), ms)


def product_cost(_, read, written):
    return read * written / 100


def random_importance(groups, seed):
    generator = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.width, generator=generator) for group in groups}


@examples(60)
@given(
    widths=st.lists(st.sampled_from([16, 24, 40, 64]), min_size=1, max_size=4),
    ratio=st.floats(0.4, 1.0),
    seed=st.integers(0, 10_000),
)
def test_the_target_holds_and_nothing_more_fits(widths, ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = {}

    def cost(index, read, written):
        # Not monotone: some widths are slower than wider ones.
        key = index, read, written
        return noise.setdefault(key, read * written / 100 * (0.7 + 0.6 * float(torch.rand((), generator=generator))))

    groups, table = chain(widths, cost)
    importance = random_importance(groups, seed)
    try:
        choice = choose_widths(groups, importance, table, ratio)
    except PruningError:
        narrowest = {group.name: group.widths[0] for group in groups}
        assert table.total_ms(narrowest) > ratio * table.total_ms({})
        return
    assert choice.latency_ms == pytest.approx(table.total_ms(choice.widths))
    assert choice.latency_ms <= ratio * choice.dense_ms + 1e-9
    lost = 0.0
    for group in groups:
        width = choice.widths[group.name]
        assert width in group.widths
        lost += float(importance[group.name].double().sort().values[: group.width - width].sum())
        for wider in group.widths:
            if wider > width:
                assert table.total_ms({**choice.widths, group.name: wider}) > ratio * choice.dense_ms
    assert choice.lost_importance == pytest.approx(lost)


@examples(30)
@given(ratio=st.floats(0.3, 0.95), seed=st.integers(0, 10_000))
def test_it_is_not_far_from_the_best_of_all(ratio, seed):
    groups, table = chain([64, 64, 64], product_cost)
    importance = random_importance(groups, seed)
    choice = choose_widths(groups, importance, table, ratio)
    names = [group.name for group in groups]
    least = {
        (group.name, width): float(importance[group.name].sort().values[: 64 - width].sum())
        for group in groups
        for width in group.widths
    }
    best = min(
        sum(least[pair] for pair in zip(names, widths, strict=True))
        for widths in itertools.product(*(group.widths for group in groups))
        if table.total_ms(dict(zip(names, widths, strict=True))) <= ratio * table.total_ms({})
    )
    everything = sum(float(values.sum()) for values in importance.values())
    assert choice.lost_importance - best <= 0.05 * everything


def test_all_of_the_latency_keeps_all_channels():
    groups, table = chain([64, 32], product_cost)
    choice = choose_widths(groups, random_importance(groups, 0), table, 1.0)
    assert choice.widths == {"backbone.0": 64, "backbone.1": 32}
    assert choice.lost_importance == 0.0


def test_channels_that_are_worth_nothing_go_first():
    groups, table = chain([64, 64, 64], product_cost)
    importance = {name: torch.ones(64) for name in ("backbone.0", "backbone.1", "backbone.2")}
    importance["backbone.1"][:32] = 0.0
    choice = choose_widths(groups, importance, table, 0.6)
    assert choice.widths == {"backbone.0": 64, "backbone.1": 32, "backbone.2": 64}
    assert choice.lost_importance == 0.0


def test_only_widths_that_save_time_are_chosen():
    """A staircase of 32 channels, as of kernels on blocks: 56, 48 and 40 take as long as 64."""
    groups, table = chain([64, 64], lambda _, read, written: math.ceil(read / 32) * math.ceil(written / 32))
    choice = choose_widths(groups, random_importance(groups, 1), table, 0.7)
    assert set(choice.widths.values()) <= {32, 64}
    assert 32 in choice.widths.values()


def test_slower_narrow_widths_are_passed_over():
    groups, table = chain([64], lambda index, read, written: 9.0 if 48 in (read, written) else read + written)
    choice = choose_widths(groups, random_importance(groups, 2), table, 0.8)
    assert choice.widths["backbone.0"] == 48  # here narrower is faster by far
    groups, table = chain([64], lambda index, read, written: 900.0 if 48 in (read, written) else read + written)
    choice = choose_widths(groups, random_importance(groups, 2), table, 0.8)
    assert choice.widths["backbone.0"] == 40


def test_groups_that_save_only_together_are_narrowed_together():
    """The middle layer is fast when both of its sides are narrow, and slower when only one is."""

    def cost(index, read, written):
        if index != 1:
            return 0.0
        return {0: 10.0, 1: 12.0, 2: 2.0}[(read < 64) + (written < 64)]

    groups, table = chain([64, 64], cost)
    choice = choose_widths(groups, random_importance(groups, 3), table, 0.5)
    assert choice.widths == {"backbone.0": 56, "backbone.1": 56}


def test_what_cannot_be_reached_is_said_with_what_can():
    groups, table = chain([64, 64], product_cost, min_share=0.5)
    narrowest = table.total_ms({"backbone.0": 32, "backbone.1": 32}) / table.total_ms({})
    with pytest.raises(
        PruningError, match=f"20% of the latency cannot be reached: .* takes {narrowest:.1%} on a table"
    ):
        choose_widths(groups, random_importance(groups, 0), table, 0.2)


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01])
def test_senseless_ratios_are_refused(ratio):
    groups, table = chain([64], product_cost)
    with pytest.raises(PruningError, match="above 0 and at most 1"):
        choose_widths(groups, random_importance(groups, 0), table, ratio)
