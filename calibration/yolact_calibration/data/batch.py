"""What a training step is given: images with their truth, and how several become one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

__all__ = ["Batch", "Truth"]


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """The annotated objects of one network input.

    Attributes:
        xyxy: ``(n, 4)`` float32, relative to the input, tight around the mask.
        class_id: ``(n,)`` int64, 0-based; the background has no number.
        mask: ``(n, H, W)`` bool at the size of the input.
        ignored_xyxy: ``(m, 4)`` float32: regions whose priors are neither object nor background (crowds, objects that
            a crop cut in two).
    """

    xyxy: torch.Tensor
    class_id: torch.Tensor
    mask: torch.Tensor
    ignored_xyxy: torch.Tensor

    def to(self, device: torch.device) -> Truth:
        """The same truth on another device."""
        return Truth(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """One step's images.

    Attributes:
        image: ``(B, 3, S, S)`` float32, normalised.
        truths: One for each image; empty without labels.
        step: Number of the step, from 0: what is random in a loss is seeded by it.
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
        """The same batch on another device; images in the memory format of the model."""
        image = self.image.to(device, memory_format=memory_format)
        return Batch(image, tuple(truth.to(device) for truth in self.truths), self.step)
