"""Search for the widths that lose the least importance at a given measured latency."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.channel_groups import ChannelGroup
from yolact_calibration.pruning.latency import LatencyTable, TimedLayer

__all__ = ["WidthChoice", "choose_widths"]


@dataclasses.dataclass(frozen=True)
class WidthChoice:
    """Result of a search for widths.

    Attributes:
        widths: Width by group name.
        latency_ms: Milliseconds of the convolutions at these widths, from the table.
        dense_ms: Milliseconds of the convolutions of the dense model.
        lost_importance: Sum over the removed channels.
    """

    widths: Mapping[str, int]
    latency_ms: float
    dense_ms: float
    lost_importance: float


def choose_widths(
    groups: Sequence[ChannelGroup],
    importance: Mapping[str, torch.Tensor],
    table: LatencyTable,
    latency_ratio: float,
) -> WidthChoice:
    """Choose a width for each group, so that the latency falls to a share of the dense model's.

    Greedy: among all ways to narrow one group, to any of its widths and not only the next, the one with the least
        importance lost per millisecond is chosen, until the target is met. A width that saves nothing by itself is thus
        skipped on the way to one that does. If the target is not met that way, the search starts from the narrowest
        model instead and widens it. In either case, groups are then widened again as long as the target holds.

    Args:
        groups: Groups of the dense model.
        importance: ``(width,)`` importance by group name, not negative, on one scale.
        table: Times measured at all widths of the groups.
        latency_ratio: Target latency divided by dense latency, above 0 and at most 1.

    Raises:
        PruningError: The ratio is out of range or cannot be reached; the message states the lowest possible one.
    """
    if not 0 < latency_ratio <= 1:
        raise PruningError(
            f"latency_ratio, a share of the dense latency, must be above 0 and at most 1; found {latency_ratio}"
        )
    search = _Search(groups, importance, table)
    dense = {group.name: group.width for group in groups}
    target = table.total_ms(dense) * latency_ratio
    widths = search.narrow(dense, target)
    if table.total_ms(widths) > target:
        narrowest = {group.name: group.widths[0] for group in groups}
        best = min(table.total_ms(widths), table.total_ms(narrowest)) / table.total_ms(dense)
        if table.total_ms(narrowest) > target:
            raise PruningError(
                f"{latency_ratio:.0%} of the latency cannot be reached: the narrowest model still takes {best:.1%} on "
                f"{table.backend}. Remove less, allow narrower layers, or prune more parts"
            )
        widths = narrowest
    widths = search.widen(widths, target)
    lost = sum(search.lost(name, width) for name, width in widths.items())
    return WidthChoice(widths, table.total_ms(widths), table.total_ms(dense), lost)


class _Search:
    """Costs of changing one group's width, with the others unchanged."""

    def __init__(
        self, groups: Sequence[ChannelGroup], importance: Mapping[str, torch.Tensor], table: LatencyTable
    ) -> None:
        self._groups = groups
        self._table = table
        # Importance lost by removing the k least important channels, for each k.
        self._cost = {}
        for group in groups:
            ascending = importance[group.name].double().sort().values
            self._cost[group.name] = [0.0, *ascending.cumsum(dim=0).tolist()]
        self._widths = {group.name: group.width for group in groups}
        self._layers: dict[str, list[TimedLayer]] = {group.name: [] for group in groups}
        for layer in table.layers:
            for name in {layer.in_group, layer.out_group} & set(self._layers):
                self._layers[str(name)].append(layer)

    def lost(self, name: str, width: int) -> float:
        """Return the importance lost if the group has that width."""
        return float(self._cost[name][self._widths[name] - width])

    def narrow(self, widths: Mapping[str, int], target_ms: float) -> dict[str, int]:
        """Narrow one group after the other until the target is met or no step saves time."""
        current = dict(widths)
        while self._table.total_ms(current) > target_ms:
            moves = []
            for group in self._groups:
                before = self._layers_ms(current, group.name)
                for width in group.widths:
                    if width < current[group.name]:
                        saved = before - self._layers_ms({**current, group.name: width}, group.name)
                        price = self.lost(group.name, width) - self.lost(group.name, current[group.name])
                        if saved > 0:
                            moves.append((price / saved, -saved, group.name, width))
            if not moves:
                break
            _, _, name, width = min(moves)
            current[name] = width
        return current

    def widen(self, widths: Mapping[str, int], target_ms: float) -> dict[str, int]:
        """Widen groups while the target holds: the most importance per millisecond first."""
        current = dict(widths)
        while True:
            total = self._table.total_ms(current)
            moves = []
            for group in self._groups:
                before = self._layers_ms(current, group.name)
                for width in group.widths:
                    if width > current[group.name]:
                        added = self._layers_ms({**current, group.name: width}, group.name) - before
                        gain = self.lost(group.name, current[group.name]) - self.lost(group.name, width)
                        if gain > 0 and total + added <= target_ms:
                            # A width that costs no time at all comes first.
                            moves.append((gain / max(added, 1e-9), width, group.name))
            if not moves:
                return current
            _, width, name = max(moves)
            current[name] = width

    def _layers_ms(self, widths: Mapping[str, int], name: str) -> float:
        return self._table.layers_ms(self._layers[name], widths)
