"""Configuration of a model: its structure, and the properties that a checkpoint's tensors do not determine.

Source: the published configurations of YOLACT, YOLACT++ and YolactEdge. This module needs no torch.
"""

from __future__ import annotations

import dataclasses

from yolact_export.errors import ConfigError, ManifestError
from yolact_runtime.model.manifest import InputSpec, PriorSpec

__all__ = [
    "LEAST_SIDE_PX",
    "NUM_LEVELS",
    "BackboneConfig",
    "Normalisation",
    "YolactConfig",
    "plus_scales",
    "scales_for_size",
]

NUM_LEVELS = 5
"""Number of pyramid levels, P3 to P7."""
LEAST_SIDE_PX = 32
"""Minimum side of an input in pixels."""
_ASPECT_RATIOS = (1.0, 0.5, 2.0)
# Sides of the priors of P3 to P7 in pixels, at the input of 550 pixels.
_SIDES_PX = (24, 48, 96, 192, 384)


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Structure of a backbone; each family of backbones has a type of its own."""


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Normalisation of pixels in 0..255: ``(value - mean) / std`` in BGR order, then a swap to ``channel_order``."""

    mean_bgr: tuple[float, float, float]
    std_bgr: tuple[float, float, float]
    channel_order: str = "RGB"


# Not torchvision's numbers times 255: the difference is small, and breaks bit parity.
_RESNET_NORMALISATION = Normalisation((103.94, 116.78, 123.68), (57.38, 57.12, 58.40))


@dataclasses.dataclass(frozen=True)
class YolactConfig:
    """Configuration of a YOLACT model: its structure, and the settings that its weights were trained for.

    Attributes:
        name: Name of the configuration.
        backbone: Structure of the backbone.
        num_classes: Number of classes including the background, which is class 0.
        num_prototypes: Number of prototypes.
        fpn_channels: Number of channels of the pyramid, of the prototype network and of the prediction head.
        input_height: Number of rows of the network input in pixels.
        input_width: Number of columns of the network input in pixels.
        prior_scales_px: Prior sides in pixels of the network input, for each of the levels P3..P7.
        aspect_ratios: Width divided by height of the priors, applied inside each scale.
        square_priors: Whether the width of a prior is also its height (the published COCO models of YOLACT).
        mask_rescoring: Whether the model has a mask-IoU network (YOLACT++).
        normalisation: Normalisation of the pixel values.
    """

    name: str
    backbone: BackboneConfig
    num_classes: int = 81
    num_prototypes: int = 32
    fpn_channels: int = 256
    input_height: int = 550
    input_width: int = 550
    prior_scales_px: tuple[tuple[float, ...], ...] = ((24.0,), (48.0,), (96.0,), (192.0,), (384.0,))
    aspect_ratios: tuple[float, ...] = _ASPECT_RATIOS
    square_priors: bool = True
    mask_rescoring: bool = False
    normalisation: Normalisation = _RESNET_NORMALISATION

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ConfigError(
                f"{self.name}: num_classes includes the background and must be at least 2, found {self.num_classes}"
            )
        if min(self.input_height, self.input_width) < LEAST_SIDE_PX:
            raise ConfigError(
                f"{self.name}: input of {self.input_height} x {self.input_width}; at least {LEAST_SIDE_PX} x "
                f"{LEAST_SIDE_PX} is needed"
            )
        counts = {len(scales) for scales in self.prior_scales_px}
        if len(self.prior_scales_px) != NUM_LEVELS or len(counts) != 1 or 0 in counts:
            raise ConfigError(
                f"{self.name}: prior_scales_px needs {NUM_LEVELS} levels with equally many scales, "
                f"found {self.prior_scales_px}"
            )
        if any(scale <= 0 for scales in self.prior_scales_px for scale in scales):
            raise ConfigError(f"{self.name}: prior scales must be above 0 pixels, found {self.prior_scales_px}")
        try:
            # A bundle needs a valid manifest: checked here, before anything is trained or exported.
            self.input_spec()
            self.prior_spec()
        except ManifestError as error:
            raise ConfigError(f"{self.name}: {error}") from error

    @property
    def priors_per_cell(self) -> int:
        """Number of priors at each position of a feature map."""
        return len(self.prior_scales_px[0]) * len(self.aspect_ratios)

    @property
    def feature_sizes(self) -> tuple[tuple[int, int], ...]:
        """Sizes ``(height, width)`` of P3..P7 in pixels.

        Every layer of stride 2 of every backbone, and of the pyramid, halves a side and rounds up.
        """
        sizes = [(self.input_height, self.input_width)]
        for _ in range(2 + NUM_LEVELS):
            height, width = sizes[-1]
            sizes.append(((height + 1) // 2, (width + 1) // 2))
        return tuple(sizes[3:])

    @property
    def prototype_size(self) -> tuple[int, int]:
        """Size ``(Hp, Wp)`` of the prototypes in pixels: twice the size of P3."""
        height, width = self.feature_sizes[0]
        return 2 * height, 2 * width

    def prior_spec(self) -> PriorSpec:
        """Return the specification from which the runtime generates the priors of this model."""
        return PriorSpec(self.feature_sizes, self.prior_scales_px, self.aspect_ratios, self.square_priors)

    def input_spec(self, *, normalised_in_graph: bool = False) -> InputSpec:
        """Return the specification of the input that the runtime prepares for this model.

        Args:
            normalised_in_graph: If True, the graph was exported to take raw BGR values, 0..255.
        """
        if normalised_in_graph:
            return InputSpec(self.input_height, self.input_width, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "BGR")
        norm = self.normalisation
        return InputSpec(self.input_height, self.input_width, norm.mean_bgr, norm.std_bgr, norm.channel_order)


def plus_scales() -> tuple[tuple[float, ...], ...]:
    """Return the prior scales of YOLACT++ in pixels, three for each level."""
    return tuple(tuple(side * 2 ** (j / 3) for j in range(3)) for side in _SIDES_PX)


def scales_for_size(size: int) -> tuple[tuple[float, ...], ...]:
    """Return the prior scales of a model trained at another input size; upstream truncates them to whole pixels."""
    return tuple((float(int(side / 550 * size)),) for side in _SIDES_PX)
