"""Input of a training step: images with their truth, and batches of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

__all__ = ["Batch", "Truth"]


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """The annotated objects of one network input.

    Attributes:
        xyxy: ``(n, 4)`` float32 boxes, relative to the input, tight around the masks.
        class_id: ``(n,)`` int64 classes from 0, without the background.
        mask: ``(n, H, W)`` bool masks at the size of the input.
        ignored_xyxy: ``(m, 4)`` float32 regions whose priors are neither object nor background (crowds, objects cut in
            two by a crop).
    """

    xyxy: torch.Tensor
    class_id: torch.Tensor
    mask: torch.Tensor
    ignored_xyxy: torch.Tensor

    def to(self, device: torch.device) -> Truth:
        """Return the same truth on another device."""
        return Truth(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Images of one training step.

    Attributes:
        image: ``(B, 3, S, S)`` float32 pixels, normalised.
        truths: Truth of each image; empty without labels.
        step: Number of the step, from 0, which seeds the randomness of a loss.
    """

    image: torch.Tensor
    truths: tuple[Truth, ...] = ()
    step: int = 0

    @classmethod
    def of(cls, samples: Sequence[tuple[torch.Tensor, Truth | None]], step: int = 0) -> Batch:
        """Stack ``(3, S, S)`` images of one size."""
        images = torch.stack([image for image, _ in samples])
        return cls(images, tuple(truth for _, truth in samples if truth is not None), step)

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.channels_last) -> Batch:
        """Return the same batch on another device, with images in the memory format of the model."""
        image = self.image.to(device, memory_format=memory_format)
        return Batch(image, tuple(truth.to(device) for truth in self.truths), self.step)
