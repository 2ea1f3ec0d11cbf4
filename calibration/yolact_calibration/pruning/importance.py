"""Importance of channels: the estimated loss of a model without each of them, computed without removing any.

Sources: the first-order Taylor criterion is that of Molchanov et al., "Importance Estimation for Neural Network
Pruning" (2019); the batch-norm gain that of Liu et al., "Learning Efficient Convolutional Networks through Network
Slimming" (2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.channel_groups import ChannelGroup
from yolact_calibration.training.distill import DistillationOptions
from yolact_calibration.training.pseudo_instances import (
    RawOutputs,
    assemble_logit,
    class_log_probability,
    find_pseudo_instances,
)

__all__ = ["CurvatureProbe", "batch_norm_importance", "taylor_importance"]


class CurvatureProbe:
    """Scalar function of raw outputs whose squared derivatives are, on average, the curvature of the distillation loss.

    A distillation of a model against itself has no gradient to use for an estimate: it is at its minimum. The cost of a
    small change is the second derivative ``J' H J``, where ``J`` is the Jacobian of the outputs and ``H`` the
    curvature of the distillation loss in its outputs. With random weights ``n`` of covariance ``H``, the derivative
    of ``n . outputs`` is ``n' J``, and its square has the mean ``J' H J``. For the class term, ``n`` is the
    difference between a class sampled from the model's own distribution and that distribution, so this is the
    Fisher information, the expected square of the log-likelihood's gradient; boxes and masks are treated alike.

    Args:
        priors: ``(P, 4)`` float32 priors, centre-size, relative to the input.
        options: Options of the later distillation: weights, and the objects whose masks count.
        seed: Seed of the random weights; every call draws new ones.
    """

    def __init__(self, priors: torch.Tensor, options: DistillationOptions | None = None, seed: int = 0) -> None:
        self.priors = priors
        self.options = options or DistillationOptions()
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, raw: RawOutputs) -> torch.Tensor:
        """Compute the float32 scalar from raw outputs with gradients."""
        options = self.options
        logit = raw.class_logit.float()
        with torch.no_grad():
            probability = class_log_probability(logit).exp()
            sees = 1 - probability[:, 0]
            num_positive = sees.sum().clamp(min=1)
            class_scale = (sees * options.class_weight / num_positive).sqrt()[..., None]
            box_scale = (sees * options.box_weight / num_positive).sqrt()[..., None]
            class_weight = class_scale * self._sampled_class_error(logit, probability.transpose(1, 2))
            box_weight = box_scale * self._normal(raw.box_regression)
        return (
            (class_weight * logit).sum()
            + (box_weight * raw.box_regression.float()).sum()
            + self._masks(raw, probability)
        )

    def _sampled_class_error(self, logit: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
        """Return ``(B, P, C)``: one-hot samples of the distribution, minus the distribution."""
        uniform = torch.rand(probability.shape, generator=self._generator).clamp(min=1e-12).to(logit.device)
        # The argmax of logit + Gumbel noise is a sample of the softmax.
        sample = (logit - (-uniform.log()).log()).argmax(dim=2, keepdim=True)
        return -probability.scatter_add(2, sample, -torch.ones_like(sample, dtype=probability.dtype))

    def _masks(self, raw: RawOutputs, class_probability: torch.Tensor) -> torch.Tensor:
        options = self.options
        priors = self.priors.to(raw.prototype.device)
        instances = find_pseudo_instances(raw, class_probability, priors, options.instances)
        place = instances.inside.nonzero(as_tuple=True)
        mask_logit = assemble_logit(raw, instances.prior)[place]
        with torch.no_grad():
            probability = mask_logit.sigmoid()
            share = instances.weight[place[0], place[1]] * options.mask_weight / instances.valid.sum().clamp(min=1)
            weight = (share * probability * (1 - probability)).sqrt() * self._normal(mask_logit)
        return (weight * mask_logit).sum()

    def _normal(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self._generator).to(like.device)


def taylor_importance(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    images: Iterable[torch.Tensor],
    loss: Callable[[Any], torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Estimate first-order Taylor importance with gates on the channels.

    Every consumer of a channel reads it times a gate of value 1. The derivative with respect to the gate is the sum of
    weight times gradient over all weights that read the channel: the first-order estimate of the effect of its removal.
    Gates are placed where channels are *read*, so that the biases, batch norms, activations and additions before them
    count; all layers that read a channel share its gate. Squares are taken per image and summed over a batch.

    With a :class:`CurvatureProbe`, half the square is the expected second-order increase of the distillation loss. It
    is a loss, so groups can be compared with one another; they are not normalised.

    Args:
        model: Model in eval mode; gradients and flags are not modified.
        groups: Groups of this model.
        images: Batches ``(B, 3, H, W)`` float32, normalised, on the model's device; no labels.
        loss: Function from the model's raw outputs to a scalar: a :class:`CurvatureProbe`, or a loss against labels.

    Returns:
        ``(width,)`` float64 importance on the CPU, 0 or more, by group name: the mean over the batches.

    Raises:
        PruningError: There are no images, or an importance is not finite.
    """
    total = {group.name: torch.zeros(group.width, dtype=torch.float64) for group in groups}
    num_batches = 0
    for image in images:
        gates = {
            group.name: torch.ones(len(image), group.width, 1, 1, device=image.device, requires_grad=True)
            for group in groups
        }
        with _gated(model, groups, gates), torch.enable_grad():
            slopes = torch.autograd.grad(
                loss(model(image)), list(gates.values()), allow_unused=True, materialize_grads=True
            )
        for name, slope in zip(gates, slopes, strict=True):
            total[name] += slope[:, :, 0, 0].double().square().sum(dim=0).cpu() / 2
        num_batches += 1
    if num_batches == 0:
        raise PruningError("importance is estimated on images, but there are none; give 32 or more")
    broken = [name for name, values in total.items() if not bool(values.isfinite().all())]
    if broken:
        raise PruningError(
            f"the importance of {len(broken)} groups is not finite, {broken[0]} first: the model's outputs overflow on "
            f"these images. Are they normalised as the model expects?"
        )
    return {name: values / num_batches for name, values in total.items()}


@contextmanager
def _gated(model: nn.Module, groups: Sequence[ChannelGroup], gates: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Make each consumer read its input times the gate of its group, inside the block."""
    handles = []
    for group in groups:
        for name in group.consumers:
            # The offsets of a deformable convolution are predicted inside it, from the input that has the gate.
            if name.rpartition(".")[0] in group.consumers:
                continue
            gate = gates[group.name]

            def scale(_: nn.Module, inputs: tuple[torch.Tensor, ...], gate: torch.Tensor = gate) -> torch.Tensor:
                return inputs[0] * gate

            handles.append(model.get_submodule(name).register_forward_pre_hook(scale))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def batch_norm_importance(model: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, torch.Tensor]:
    """Compute importance from the gains of batch norms: needs no images, but does not cover layers without batch norm.

    Args:
        model: Model to read; not modified.
        groups: Groups of this model, each with a batch norm behind every convolution that writes it.

    Returns:
        ``(width,)`` float64 importance on the CPU, by group name: the mean of ``|gain|`` over the group's norms, as a
        share of the group's sum, because gains of different layers have no common scale.

    Raises:
        PruningError: A group has no batch norm.
    """
    bare = [group.name for group in groups if len(group.norms) < len(group.producers) + len(group.depthwise)]
    if bare:
        raise PruningError(
            f"{len(bare)} groups have no batch norm from which to derive the importance of their channels, {bare[0]} "
            f"first. Prune the backbone only, or use the Taylor importance"
        )
    importance = {}
    for group in groups:
        norms: list[Any] = [model.get_submodule(name) for name in group.norms]
        gain = torch.stack([norm.weight.detach().double().abs().cpu() for norm in norms]).mean(dim=0)
        importance[group.name] = gain / gain.sum().clamp(min=1e-300)
    return importance
