"""Latency of a model at given widths, as the sum of measured times of its convolutions.

Convolutions take 95 % or more of a YOLACT network's time on a CPU. The time of a layer is not proportional to its
width: kernels work on blocks of channels. Every width that can be chosen is therefore measured, and none is
interpolated.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from yolact_calibration.errors import PruningError, TextError
from yolact_calibration.pruning.channel_groups import ChannelGroup
from yolact_calibration.pruning.layer_shape import LayerCall, LayerShape
from yolact_plugins.files import write_atomically
from yolact_plugins.text import read_json
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["CachedTimer", "LatencyTable", "LayerTimer", "TimedLayer", "measure_latency", "positive_ms"]


class LayerTimer(Protocol):
    """Timer of single convolutions on the backend that the model is meant for."""

    @property
    def backend(self) -> str:
        """Measured backend: library, version, device, threads. Times of different backends cannot be mixed."""

    def times_ms(self, layers: Sequence[LayerShape]) -> list[float]:
        """Measure the milliseconds of each layer, interleaved, because they are compared with one another."""


class CachedTimer:
    """Timer that stores its measurements in a JSON file.

    Args:
        timer: Timer for layers that the file does not have. Entries of other backends in the file are kept, but not
            used.
        path: Path of the file, which is replaced atomically after every measurement.

    Raises:
        PruningError: The file exists but is not such a cache.
    """

    def __init__(self, timer: LayerTimer, path: Path) -> None:
        self._timer = timer
        self._path = path
        self._content = _read_cache(path)
        self._known = self._content.setdefault(timer.backend, {})

    @property
    def backend(self) -> str:
        return self._timer.backend

    def times_ms(self, layers: Sequence[LayerShape]) -> list[float]:
        """Return the milliseconds of each layer, from the file if it has them."""
        missing = [layer for layer in dict.fromkeys(layers) if layer.key not in self._known]
        if missing:
            measured = self._timer.times_ms(missing)
            self._known.update((layer.key, ms) for layer, ms in zip(missing, measured, strict=True))
            document = {_CACHE_FORMAT: self._content}
            write_atomically(self._path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
        return [self._known[layer.key] for layer in layers]


_CACHE_FORMAT = "layer_ms_v1"


def _read_cache(path: Path) -> dict[str, dict[str, float]]:
    if not path.exists():
        return {}
    try:
        document = read_json(path)
        # The name of the list includes the version of the format: an older file has no list of this name.
        return {
            str(backend): {str(key): positive_ms(ms) for key, ms in times.items()}
            for backend, times in document[_CACHE_FORMAT].items()
        }
    except (TextError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PruningError(
            f"{path} is not a file of layer times ({error}); delete it to measure again, or name another file"
        ) from error


def positive_ms(ms: Any) -> float:
    """Check a time of a cache in milliseconds; other values would be mistaken for fast layers.

    Raises:
        ValueError: The value is not a finite number above zero.
    """
    if isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 < ms < math.inf:
        raise ValueError(f"{ms!r} is not a positive time")
    return float(ms)


@dataclasses.dataclass(frozen=True)
class TimedLayer:
    """Use of a layer, with the groups that determine its widths.

    Attributes:
        call: Layer at the widths of the dense model.
        in_group: Name of the group that it reads; None if its input keeps its width.
        out_group: Name of the group that it writes; None if its output keeps its width.
    """

    call: LayerCall
    in_group: str | None
    out_group: str | None

    def shape_at(self, widths: Mapping[str, int]) -> LayerShape:
        """Return its shape with the given widths of groups; groups without an entry keep their width."""
        shape = self.call.shape
        in_channels = widths.get(self.in_group, shape.in_channels) if self.in_group else shape.in_channels
        out_channels = widths.get(self.out_group, shape.out_channels) if self.out_group else shape.out_channels
        return shape.with_channels(in_channels, out_channels)


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyTable:
    """Measured times of every layer at every width that its groups may get.

    Attributes:
        backend: Measured backend; see :attr:`LayerTimer.backend`.
        layers: Uses of all convolutions.
        ms: Milliseconds by shape.
    """

    backend: str
    layers: tuple[TimedLayer, ...]
    ms: Mapping[LayerShape, float]

    def layers_ms(self, layers: Iterable[TimedLayer], widths: Mapping[str, int]) -> float:
        """Sum the times of some layers in milliseconds.

        Raises:
            PruningError: A layer was not measured at these widths.
        """
        try:
            return sum(self.ms[layer.shape_at(widths)] for layer in layers)
        except KeyError as error:
            raise PruningError(
                f"{error.args[0].key} was not measured: choose widths among those of the groups"
            ) from None

    def total_ms(self, widths: Mapping[str, int]) -> float:
        """Return the milliseconds of all convolutions. Groups without an entry have their full width."""
        return self.layers_ms(self.layers, widths)

    def block_ms(self, widths: Mapping[str, int]) -> dict[str, float]:
        """Return the milliseconds of the convolutions in each part of the network."""
        blocks: dict[str, list[TimedLayer]] = {}
        for layer in self.layers:
            blocks.setdefault(layer.call.block, []).append(layer)
        return {block: self.layers_ms(layers, widths) for block, layers in blocks.items()}

    def macs(self, widths: Mapping[str, int]) -> int:
        """Return the number of multiply-accumulate operations for one image."""
        return sum(layer.shape_at(widths).macs for layer in self.layers)


def measure_latency(
    calls: Iterable[LayerCall],
    groups: Sequence[ChannelGroup],
    timer: LayerTimer,
    reporter: Reporter = SILENT,
) -> LatencyTable:
    """Measure every layer at every combination of the widths of its input and output groups.

    Args:
        calls: Layers of the dense model; see :func:`trace_layers`.
        groups: Groups of that model.
        timer: Timer of the backend.
        reporter: Reporter that shows the progress.
    """
    reads = {name: group.name for group in groups for name in (*group.consumers, *group.depthwise)}
    writes = {name: group.name for group in groups for name in (*group.producers, *group.depthwise)}
    layers = tuple(TimedLayer(call, reads.get(call.name), writes.get(call.name)) for call in calls)
    choices = {group.name: group.widths for group in groups}
    batches = [_shapes(layer, choices) for layer in layers]
    total = len({shape for batch in batches for shape in batch})
    ms: dict[LayerShape, float] = {}
    for batch in batches:
        missing = [shape for shape in dict.fromkeys(batch) if shape not in ms]
        if missing:
            ms.update(zip(missing, timer.times_ms(missing), strict=True))
            reporter.status(f"  latency {len(ms)}/{total}")
    return LatencyTable(timer.backend, layers, ms)


def _shapes(layer: TimedLayer, choices: Mapping[str, tuple[int, ...]]) -> list[LayerShape]:
    names = list(dict.fromkeys(name for name in (layer.in_group, layer.out_group) if name))
    combinations: list[dict[str, int]] = [{}]
    for name in names:
        combinations = [{**widths, name: width} for widths in combinations for width in choices[name]]
    return [layer.shape_at(widths) for widths in combinations]
