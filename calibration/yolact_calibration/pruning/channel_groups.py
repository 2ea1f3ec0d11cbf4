"""Channel groups: the sets of channels of a YOLACT model that can only be removed together.

A channel that a convolution writes is read by others, normalised, and added to channels of other layers, which must
then be removed as well. Torch-Pruning follows these dependencies; the result is plain data, with the names of the
layers.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from yolact_calibration.errors import MissingDependencyError, PruningError
from yolact_calibration.pruning.layer_shape import is_deformable
from yolact_runtime.option_numbers import check_most, keep_numbers, shown_number

__all__ = ["BLOCKS", "ChannelGroup", "WidthGrid", "find_channel_groups"]

BLOCKS = ("backbone", "fpn", "proto_net", "prediction_layers")
"""Names, in the state dict, of the parts of a YOLACT model whose channels can be removed."""

# Dependencies do not depend on the size of the image; P7 is a single pixel here.
_PROBE_SIZE = 64
# Greater than the number of channels of any layer.
_MAX_WIDTH = 4096


@dataclasses.dataclass(frozen=True)
class WidthGrid:
    """Widths that a group may be pruned to.

    Attributes:
        round_to: Divisor of pruned widths: kernels work on blocks of 8 or 16 channels.
        min_share: Minimum width as a share of the group's original width.
        max_widths: Maximum number of widths, including the full one; every width costs measurements.

    Raises:
        UsageError: A field has the wrong type; the message names it.
        PruningError: A share or a width is out of range.
    """

    round_to: int = 8
    min_share: float = 0.25
    max_widths: int = 8

    def __post_init__(self) -> None:
        keep_numbers(self, whole=("round_to", "max_widths"), real=("min_share",))
        for name in ("round_to", "max_widths"):
            check_most(name, getattr(self, name), _MAX_WIDTH)
        if self.round_to < 1 or self.max_widths < 2 or not 0 < self.min_share <= 1:
            raise PruningError(
                f"round_to must be at least 1, max_widths at least 2 and min_share above 0 up to 1; found "
                f"{shown_number(self.round_to)}, {shown_number(self.max_widths)} and {self.min_share}"
            )

    def of(self, width: int) -> tuple[int, ...]:
        """Return the ascending widths that a group of `width` channels may get; the last is `width` itself.

        The full width need not be a multiple. If there are too many multiples, evenly spaced ones are chosen.
        """
        lowest = max(-(-width * self.min_share // self.round_to), 1)
        multiples = list(range(int(lowest) * self.round_to, width, self.round_to))
        room = self.max_widths - 1
        if len(multiples) > room:
            multiples = [multiples[index * len(multiples) // room] for index in range(room)]
        return (*multiples, width)


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels that are removed together: channel ``c`` of every member is the same channel.

    Attributes:
        name: Name of the group: that of its first producer.
        width: Current number of channels.
        widths: Widths that it may get, ascending; see :meth:`WidthGrid.of`.
        producers: Names of the convolutions that write the channels.
        norms: Names of the batch norms that normalise them.
        depthwise: Names of the depthwise convolutions that they pass through.
        consumers: Names of the convolutions that read them.
    """

    name: str
    width: int
    widths: tuple[int, ...]
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    depthwise: tuple[str, ...]
    consumers: tuple[str, ...]

    @property
    def block(self) -> str:
        """Part of the network that writes it, one of :data:`BLOCKS`."""
        return self.name.partition(".")[0]


def find_channel_groups(
    model: nn.Module, grid: WidthGrid | None = None, blocks: tuple[str, ...] = BLOCKS
) -> tuple[ChannelGroup, ...]:
    """Find the groups of a YOLACT model that can be narrowed, in the order of its modules.

    The outputs of the network, the image, the mask-IoU network and layers that inference does not compute are in no
    group.

    Args:
        model: YOLACT model (``features``, ``predict``, ``semantic_logit``, ``output_layers``), pruned or not. Not
            modified.
        grid: Widths that are allowed.
        blocks: Parts of the network to include, from :data:`BLOCKS`.

    Raises:
        PruningError: A part is unknown, nothing is left to narrow, or the dependencies cannot be traced.
        MissingDependencyError: Torch-Pruning is not installed.
    """
    grid = grid or WidthGrid()
    if unknown := set(blocks) - set(BLOCKS):
        raise PruningError(f"the network has no part {sorted(unknown)}; choose from {', '.join(BLOCKS)}")
    place = {name: index for index, (name, _) in enumerate(model.named_modules())}
    groups = [_narrow_later(model, group, grid) for group in _trace_groups(model, place)]
    # The numbers of boxes, classes, coefficients and prototypes must not change.
    any_model: Any = model
    groups = [
        group for group in groups if group.block in blocks and not set(group.producers) & set(any_model.output_layers)
    ]
    groups = [group for group in groups if len(group.widths) > 1]
    if not groups:
        raise PruningError(
            f"no channels of {', '.join(blocks)} can be removed: no layer in them is wider than {grid.round_to} "
            f"channels, of which {grid.min_share:.0%} must stay. Prune to smaller multiples, or other parts"
        )
    return tuple(sorted(groups, key=lambda group: place[group.name]))


def _narrow_later(model: nn.Module, members: Mapping[str, tuple[str, ...]], grid: WidthGrid) -> ChannelGroup:
    """Return a group with its widths; a deformable convolution predicts its offsets from the input that it reads."""
    producer: Any = model.get_submodule(members["producers"][0])
    consumers = []
    for name in members["consumers"]:
        consumers.append(name)
        if is_deformable(model.get_submodule(name)):
            consumers.append(f"{name}.conv_offset_mask")
    width = int(producer.out_channels)
    return ChannelGroup(
        name=members["producers"][0],
        width=width,
        widths=grid.of(width),
        producers=members["producers"],
        norms=members["norms"],
        depthwise=members["depthwise"],
        consumers=tuple(consumers),
    )


def _trace_groups(model: nn.Module, place: Mapping[str, int]) -> Iterator[dict[str, tuple[str, ...]]]:
    """Yield the members of every group by their role, in the order of the modules."""
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingDependencyError("torch-pruning", "Pruning", "train") from error
    stand_in = _stand_in(model)
    names = {module: name for name, module in stand_in.named_modules()}
    image = torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE)
    try:
        # It warns and prints about intermediate findings; the result is checked below.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(stand_in, image, forward_fn=_run_all, verbose=False)
            found = list(graph.get_all_groups(root_module_types=[nn.Conv2d]))
    except Exception as error:
        raise PruningError(
            f"cannot trace the channels of this model through its layers: {type(error).__name__}: {error}. Only "
            f"the architectures that yolact-export reads can be pruned"
        ) from error
    for group in found:
        members: dict[str, set[str]] = {"producers": set(), "norms": set(), "depthwise": set(), "consumers": set()}
        for dependency, indices in group:
            module = dependency.target.module
            if module in names:
                reads = graph.is_in_channel_pruning_fn(dependency.handler)
                role = _role(module, names[module], reads=reads)
                members[role].add(names[module])
                if role != "producers":
                    _check_indices(names[module], indices)
        yield {role: tuple(sorted(found, key=place.__getitem__)) for role, found in members.items()}


def _role(module: nn.Module, name: str, *, reads: bool) -> str:
    if isinstance(module, nn.BatchNorm2d):
        return "norms"
    if isinstance(module, nn.Conv2d) and module.groups == 1:
        return "consumers" if reads else "producers"
    if isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels:
        return "depthwise"
    raise PruningError(
        f"{name} is a {type(module).__name__}, whose channels cannot be removed: convolutions, depthwise ones and "
        f"batch norms can"
    )


def _check_indices(name: str, indices: list[int]) -> None:
    """Check that a member has the same channels: no layer of this network concatenates those of several layers."""
    if list(indices) != list(range(len(indices))):
        raise PruningError(f"{name} reads the channels of several layers side by side: no YOLACT model does")


def _run_all(model: Any, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Run the whole network with the semantic head, which reads channels that may be removed."""
    levels = model.features(image)
    return (*model.predict(levels), model.semantic_logit(levels))


def _stand_in(model: nn.Module) -> nn.Module:
    """Copy a model to the CPU with plain instead of deformable convolutions, which Torch-Pruning does not know."""
    copied = copy.deepcopy(model).cpu().eval().requires_grad_(True)
    for name, module in list(copied.named_modules()):
        if is_deformable(module):
            any_module: Any = module
            plain = nn.Conv2d(any_module.in_channels, any_module.out_channels, 3, any_module.stride, padding=1)
            parent, _, child = name.rpartition(".")
            setattr(copied.get_submodule(parent), child, plain)
    return copied
