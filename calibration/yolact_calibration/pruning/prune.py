"""Pruning: a narrower copy of a model with a given share of its measured latency.

The steps: which channels belong together (:mod:`~yolact_calibration.pruning.channel_groups`), the importance of each
(:mod:`~yolact_calibration.pruning.importance`), the time of every width (:mod:`~yolact_calibration.pruning.latency`),
the choice of widths (:mod:`~yolact_calibration.pruning.width_search`), and the removal
(:mod:`~yolact_calibration.pruning.channel_removal`). A pruned model has lost accuracy;
:mod:`~yolact_calibration.training.distill` restores it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.channel_groups import BLOCKS, ChannelGroup, WidthGrid, find_channel_groups
from yolact_calibration.pruning.channel_removal import choose_kept, remove_channels
from yolact_calibration.pruning.importance import CurvatureProbe, batch_norm_importance, taylor_importance
from yolact_calibration.pruning.latency import LatencyTable, LayerTimer, measure_latency
from yolact_calibration.pruning.layer_shape import trace_layers
from yolact_calibration.pruning.width_search import WidthChoice, choose_widths
from yolact_calibration.training.distill import DistillationOptions
from yolact_runtime.option_numbers import MAX_SEED, check_between, keep_numbers
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["GroupReport", "PruneOptions", "PruneReport", "Pruned", "prune"]

_TAYLOR, _BATCH_NORM = "taylor", "batch-norm"


@dataclasses.dataclass(frozen=True)
class PruneOptions:
    """Amount of pruning, and the measure of importance.

    Attributes:
        removed_latency: Share of the measured latency to remove: 0.4 leaves 60 % of the milliseconds. It is not a share
            of the channels, the parameters or the FLOPs.
        importance: Measure ``taylor``, from images; or ``batch-norm``, from the gains, for the backbone only.
        grid: Widths that are allowed.
        blocks: Parts to prune, from :data:`~yolact_calibration.pruning.channel_groups.BLOCKS`.
        distillation: Options of the later recovery; Taylor importance estimates its loss.
        seed: Seed of the random weights of the Taylor importance.
        rest_share: Share of the dense network's latency outside convolutions. It is assumed to stay constant, so that
            convolutions are pruned more. On ONNX Runtime, on a CPU, 5 % (ResNet-50) to 8 % (a network of 12 ms) were
            measured.

    Raises:
        UsageError: A field has the wrong type; the message names it.
        PruningError: A value is out of range.
    """

    removed_latency: float = 0.4
    importance: str = _TAYLOR
    grid: WidthGrid = dataclasses.field(default_factory=WidthGrid)
    blocks: tuple[str, ...] = BLOCKS
    distillation: DistillationOptions = dataclasses.field(default_factory=DistillationOptions)
    seed: int = 0
    rest_share: float = 0.07

    def __post_init__(self) -> None:
        keep_numbers(self, whole=("seed",), real=("removed_latency", "rest_share"))
        check_between("seed", self.seed, 0, MAX_SEED)
        if not 0 <= self.rest_share < 1:
            raise PruningError(
                f"rest_share, the share outside convolutions, must be 0 or more and below 1; found {self.rest_share}"
            )
        if not 0 <= self.removed_latency < 1 - self.rest_share:
            raise PruningError(
                f"removed_latency must be a share, for instance 0.4, of 0 or more and below {1 - self.rest_share:.2f}, "
                f"the share of the convolutions; found {self.removed_latency}"
            )
        if self.importance not in (_TAYLOR, _BATCH_NORM):
            raise PruningError(f'importance must be "{_TAYLOR}" or "{_BATCH_NORM}", found "{self.importance}"')

    @property
    def convolution_ratio(self) -> float:
        """Target latency of the convolutions, as a share of their latency in the dense model."""
        return (1 - self.removed_latency - self.rest_share) / (1 - self.rest_share)


@dataclasses.dataclass(frozen=True)
class GroupReport:
    """Result for one channel group.

    Attributes:
        name: Name of its first layer.
        num_layers: Number of layers whose shapes changed with it.
        width_before: Number of channels in the dense model.
        width_after: Number of channels left.
        lost_share: Importance lost, as a share of the group's.
    """

    name: str
    num_layers: int
    width_before: int
    width_after: int
    lost_share: float


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """Report of a pruning; in pairs of numbers, the first is that of the dense model.

    Attributes:
        backend: Backend on which layers were measured.
        groups: Reports of the groups, in the order of the network.
        num_parameters: Numbers of parameters in the layers that inference computes.
        gflops: Floating-point operations of the convolutions for one image in units of 1e9, two for each
            multiply-accumulate.
        block_ms: Sums of measured layer times in milliseconds, by part of the network.
        measured_ms: Times of the whole exported networks, measured interleaved; None if they were not measured.
    """

    backend: str
    groups: tuple[GroupReport, ...]
    num_parameters: tuple[int, int]
    gflops: tuple[float, float]
    block_ms: Mapping[str, tuple[float, float]]
    measured_ms: tuple[float, float] | None = None

    @property
    def estimated_ms(self) -> tuple[float, float]:
        """Times of all convolutions: the sum of :attr:`block_ms`."""
        before, after = zip(*self.block_ms.values(), strict=True)
        return sum(before), sum(after)

    def with_measured_ms(self, dense_ms: float, pruned_ms: float) -> PruneReport:
        """Return a copy with the measured times of the whole exported networks."""
        return dataclasses.replace(self, measured_ms=(dense_ms, pruned_ms))

    def document(self) -> dict[str, Any]:
        """Return a JSON object of the report."""
        return {**dataclasses.asdict(self), "estimated_ms": self.estimated_ms}


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned:
    """Pruned model with its report.

    Attributes:
        model: New model, in eval mode, with the state-dict keys of the dense one. Its ``config`` is still that of the
            dense model: the checkpoint's reader takes widths from shapes.
        report: Report of what was removed, and what it saves.
    """

    model: nn.Module
    report: PruneReport


def prune(
    model: nn.Module,
    images: Sequence[torch.Tensor],
    priors: torch.Tensor,
    options: PruneOptions | None = None,
    *,
    timer: LayerTimer | None = None,
    reporter: Reporter = SILENT,
) -> Pruned:
    """Prune a YOLACT model that is in memory.

    For a checkpoint, ``yolact_export.export(checkpoint, images=..., pruning=PruningOptions())`` does the rest too: it
    reads the model and the images, restores the accuracy and exports the result.

    Args:
        model: Dense model (or one pruned before); not modified.
        images: Batches ``(B, 3, H, W)`` float32, normalised, on the model's device; no labels. 32 images or more give a
            stable importance. Latency is measured at their size.
        priors: ``(P, 4)`` float32 priors, centre-size, relative to the input, for images of that size.
        options: Amount of pruning, and the measure of importance.
        timer: Timer of layers on the target; by default ONNX Runtime on one thread of this machine.
        reporter: Reporter that shows the progress.

    Raises:
        PruningError: Nothing can be removed, the latency cannot be reached, or the result is not finite.
        MissingDependencyError: Torch-Pruning, or the default timer's ONNX Runtime, is not installed.
    """
    options = options or PruneOptions()
    if not images:
        raise PruningError(
            "pruning needs images to find out which channels matter, but there are none; give 32 or more"
        )
    narrow = copy.deepcopy(model).eval()
    groups = find_channel_groups(narrow, options.grid, options.blocks)
    importance = _importance(narrow, groups, images, priors, options, reporter)
    calls = trace_layers(narrow, images[0][:1])
    table = measure_latency(calls, groups, timer or _default_timer(), reporter)
    choice = choose_widths(groups, importance, table, options.convolution_ratio)
    num_before = _num_parameters(narrow, images[0][:1])
    remove_channels(narrow, groups, choose_kept(groups, importance, choice.widths))
    _check_finite(narrow, images[0][:1])
    report = PruneReport(
        backend=table.backend,
        groups=tuple(_group_report(group, importance[group.name], choice.widths[group.name]) for group in groups),
        num_parameters=(num_before, _num_parameters(narrow, images[0][:1])),
        gflops=(2e-9 * table.macs({}), 2e-9 * table.macs(choice.widths)),
        block_ms=_block_ms(table, choice),
    )
    return Pruned(narrow, report)


def _importance(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    images: Sequence[torch.Tensor],
    priors: torch.Tensor,
    options: PruneOptions,
    reporter: Reporter,
) -> dict[str, torch.Tensor]:
    if options.importance == _BATCH_NORM:
        return batch_norm_importance(model, groups)

    probe = CurvatureProbe(priors, options.distillation, options.seed)
    importance = taylor_importance(model, groups, reporter.progress(images, "  importance", len(images)), probe)
    idle = [name for name, values in importance.items() if not bool(values.any())]
    if idle:
        raise PruningError(
            f"on these images nothing depends on {len(idle)} groups of channels, {idle[0]} first, so their importance "
            f"is unknown. Most likely the model finds no object: give images like those it was trained on"
        )
    return importance


def _default_timer() -> LayerTimer:
    from yolact_calibration.pruning.onnxruntime_timer import OnnxRuntimeTimer

    return OnnxRuntimeTimer()


@torch.no_grad()
def _num_parameters(model: nn.Module, image: torch.Tensor) -> int:
    """Count the parameters of the modules that a forward pass calls; the shared head counts once."""
    called: dict[nn.Module, int] = {}

    def note(module: nn.Module, *_: Any) -> None:
        called[module] = sum(parameter.numel() for parameter in module.parameters(recurse=False))

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return sum(called.values())


@torch.no_grad()
def _check_finite(model: nn.Module, image: torch.Tensor) -> None:
    broken = [name for name, value in model(image)._asdict().items() if not bool(value.isfinite().all())]
    if broken:
        raise PruningError(
            f"the pruned model's {', '.join(broken)} are not finite: the dense model is close to overflow. Fine-tune "
            f"it first, or remove less"
        )


def _group_report(group: ChannelGroup, importance: torch.Tensor, width: int) -> GroupReport:
    lost = importance.double().sort().values[: group.width - width].sum() / importance.sum().clamp(min=1e-300)
    members = {*group.producers, *group.norms, *group.depthwise, *group.consumers}
    return GroupReport(group.name, len(members), group.width, width, float(lost))


def _block_ms(table: LatencyTable, choice: WidthChoice) -> dict[str, tuple[float, float]]:
    before, after = table.block_ms({}), table.block_ms(choice.widths)
    return {block: (before[block], after[block]) for block in before}
