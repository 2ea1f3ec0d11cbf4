"""Channel groups: the sets of channels of a YOLACT model that can only be removed together.

A channel that a convolution writes is read by others, normalised, and added to channels of other layers, which then
have to go as well. Torch-Pruning follows these dependencies; the result is plain data, by the names of the layers.
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
"""The parts of a YOLACT model whose channels can be removed, by their names in the state dict."""

# Dependencies do not depend on the size of the image; P7 is a single pixel here.
_PROBE_SIZE = 64
# More channels than any layer has.
_MAX_WIDTH = 4096


@dataclasses.dataclass(frozen=True)
class WidthGrid:
    """Which widths a group may get.

    Attributes:
        round_to: Pruned widths are multiples of it: kernels work on blocks of 8 or 16 channels.
        min_share: No group gets narrower than this share of its width.
        max_widths: At most so many widths, the full one included; every one costs measurements.

    Raises:
        UsageError: A field is no number of its kind; the message names it.
        PruningError: A share or a width makes no sense.
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
                f"round_to is at least 1, max_widths at least 2 and min_share above 0 up to 1; found "
                f"{shown_number(self.round_to)}, {shown_number(self.max_widths)} and {self.min_share}"
            )

    def of(self, width: int) -> tuple[int, ...]:
        """The widths that a group of `width` channels may get, ascending; the last is `width` itself.

        The full width need not be a multiple. Where there are too many multiples, evenly spread ones are taken.
        """
        lowest = max(-(-width * self.min_share // self.round_to), 1)
        multiples = list(range(int(lowest) * self.round_to, width, self.round_to))
        room = self.max_widths - 1
        if len(multiples) > room:
            multiples = [multiples[index * len(multiples) // room] for index in range(room)]
        return (*multiples, width)


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels that are removed together: channel ``c`` of every member is one and the same.

    Attributes:
        name: The first of its producers.
        width: Channels now.
        widths: What it may get, ascending; see :meth:`WidthGrid.of`.
        producers: Convolutions that write the channels.
        norms: Batch norms on them.
        depthwise: Depthwise convolutions that they pass.
        consumers: Convolutions that read them.
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
        """The part of the network that writes it; one of :data:`BLOCKS`."""
        return self.name.partition(".")[0]


def find_channel_groups(
    model: nn.Module, grid: WidthGrid | None = None, blocks: tuple[str, ...] = BLOCKS
) -> tuple[ChannelGroup, ...]:
    """The groups of a YOLACT model that can be narrowed, in the order of its modules.

    The outputs of the network, the image, the mask-IoU network and layers that inference never computes are in none.

    Args:
        model: A YOLACT model (``features``, ``predict``, ``semantic_logit``, ``output_layers``), pruned or not. Not
            changed.
        grid: The widths that are allowed.
        blocks: Only groups of these parts, of :data:`BLOCKS`.

    Raises:
        PruningError: A part is unknown, nothing is left to narrow, or the dependencies cannot be followed.
        MissingDependencyError: Torch-Pruning is not installed.
    """
    grid = grid or WidthGrid()
    if unknown := set(blocks) - set(BLOCKS):
        raise PruningError(f"no part of the network is called {sorted(unknown)}; choose among {', '.join(BLOCKS)}")
    place = {name: index for index, (name, _) in enumerate(model.named_modules())}
    groups = [_narrow_later(model, group, grid) for group in _trace_groups(model, place)]
    # The numbers of boxes, classes, coefficients and prototypes are not ours to change.
    any_model: Any = model
    groups = [
        group for group in groups if group.block in blocks and not set(group.producers) & set(any_model.output_layers)
    ]
    groups = [group for group in groups if len(group.widths) > 1]
    if not groups:
        raise PruningError(
            f"no channels of {', '.join(blocks)} can be removed: no layer there is wider than {grid.round_to} "
            f"channels, of which {grid.min_share:.0%} have to stay. Prune to smaller multiples, or other parts"
        )
    return tuple(sorted(groups, key=lambda group: place[group.name]))


def _narrow_later(model: nn.Module, members: Mapping[str, tuple[str, ...]], grid: WidthGrid) -> ChannelGroup:
    """A group with its widths; the offsets of a deformable convolution are predicted from what it reads itself."""
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
    """Members of every group, by their part in it, in the order of the modules."""
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingDependencyError("torch-pruning", "Pruning", "train") from error
    stand_in = _stand_in(model)
    names = {module: name for name, module in stand_in.named_modules()}
    image = torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE)
    try:
        # It warns and prints about what it meets on the way; what it finds is checked below.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(stand_in, image, forward_fn=_run_all, verbose=False)
            found = list(graph.get_all_groups(root_module_types=[nn.Conv2d]))
    except Exception as error:
        raise PruningError(
            f"the channels of this model cannot be followed through its layers: {type(error).__name__}: {error}. Only "
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
    """Nothing in this network joins channels of several layers, so that every member has the same ones."""
    if list(indices) != list(range(len(indices))):
        raise PruningError(f"{name} reads the channels of several layers side by side: no YOLACT model does")


def _run_all(model: Any, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The whole network with the semantic head, which reads channels that may go."""
    levels = model.features(image)
    return (*model.predict(levels), model.semantic_logit(levels))


def _stand_in(model: nn.Module) -> nn.Module:
    """A copy on the CPU in which deformable convolutions are plain: the same channels, but known to Torch-Pruning."""
    copied = copy.deepcopy(model).cpu().eval().requires_grad_(True)
    for name, module in list(copied.named_modules()):
        if is_deformable(module):
            any_module: Any = module
            plain = nn.Conv2d(any_module.in_channels, any_module.out_channels, 3, any_module.stride, padding=1)
            parent, _, child = name.rpartition(".")
            setattr(copied.get_submodule(parent), child, plain)
    return copied
