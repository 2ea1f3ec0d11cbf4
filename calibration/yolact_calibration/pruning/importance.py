"""Importance of channels: how much worse a model gets without each of them, estimated without removing any.

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
    """A scalar of raw outputs whose squared derivatives are, on average, the curvature of the distillation.

    A distillation of a model against itself has no gradient to estimate anything with: it is at its minimum. What a
    small change costs there is the second derivative ``J' H J``: ``J`` is how the outputs change and ``H`` the
    curvature of the distillation loss in its outputs. With random weights ``n`` of covariance ``H``, the derivative of
    ``n . outputs`` is ``n' J``, and its square has the mean ``J' H J``. For the class term, ``n`` is the difference of
    a class sampled from the model's own distribution and that distribution, so this is the Fisher information, the
    expected square of the log-likelihood's gradient; boxes and masks are treated alike.

    Args:
        priors: ``(P, 4)`` float32, centre-size, relative to the input.
        options: The distillation that will follow: weights, and which masks count.
        seed: Of the random weights; every call draws others.
    """

    def __init__(self, priors: torch.Tensor, options: DistillationOptions | None = None, seed: int = 0) -> None:
        self.priors = priors
        self.options = options or DistillationOptions()
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, raw: RawOutputs) -> torch.Tensor:
        """The scalar, of raw outputs with gradients, in float32."""
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
        """``(B, P, C)``: one-hot samples of the distribution, less the distribution."""
        uniform = torch.rand(probability.shape, generator=self._generator).clamp(min=1e-12).to(logit.device)
        # The largest of logit + Gumbel noise is a sample of the softmax.
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
    """First-order Taylor importance, by gates on the channels.

    Every consumer of a channel reads it times a gate, which is 1. The derivative by the gate is the sum of weight times
    gradient over all weights that read the channel: the first-order estimate of what its removal changes. Gates sit
    where channels are *read*, so that the biases, batch norms, activations and additions before them count; all layers
    that read a channel share its gate. Squares are taken per image and summed over a batch.

    With a :class:`CurvatureProbe`, half the square is the expected second-order increase of the distillation loss. It
    is a loss, so groups may be compared with one another; they are not normalised.

    Args:
        model: In eval mode; gradients and flags are left as they were.
        groups: Of this model.
        images: Batches ``(B, 3, H, W)`` float32, normalised, on the model's device; no labels.
        loss: Scalar of the model's raw outputs: a :class:`CurvatureProbe`, or a loss against labels.

    Returns:
        By group name, ``(width,)`` float64 on the CPU, 0 or more: the mean over the batches.

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
        raise PruningError("importance is estimated on images, and there are none; 32 of them are a start")
    broken = [name for name, values in total.items() if not bool(values.isfinite().all())]
    if broken:
        raise PruningError(
            f"the importance of {len(broken)} groups is not finite, {broken[0]} first: the model's outputs overflow on "
            f"these images. Are they normalised as the model wants?"
        )
    return {name: values / num_batches for name, values in total.items()}


@contextmanager
def _gated(model: nn.Module, groups: Sequence[ChannelGroup], gates: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While it lasts, each consumer reads its input times the gate of its group."""
    handles = []
    for group in groups:
        for name in group.consumers:
            # The offsets of a deformable convolution are predicted inside it, from the input that its gate is on.
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
    """Gains of the batch norms: needs no image, and says nothing of layers without batch norm.

    Args:
        model: Not changed.
        groups: Of this model; every one normalised by a batch norm behind each convolution that writes it.

    Returns:
        By group name, ``(width,)`` float64 on the CPU: the mean of ``|gain|`` over the group's norms, as a share of the
        group's sum, since gains of different layers have no common scale.

    Raises:
        PruningError: A group has no batch norm.
    """
    bare = [group.name for group in groups if len(group.norms) < len(group.producers) + len(group.depthwise)]
    if bare:
        raise PruningError(
            f"{len(bare)} groups have no batch norm whose gain would tell the importance of their channels, {bare[0]} "
            f"first. Prune the backbone only, or use the Taylor importance"
        )
    importance = {}
    for group in groups:
        norms: list[Any] = [model.get_submodule(name) for name in group.norms]
        gain = torch.stack([norm.weight.detach().double().abs().cpu() for norm in norms]).mean(dim=0)
        importance[group.name] = gain / gain.sum().clamp(min=1e-300)
    return importance
