"""Configuration of a model: its structure, and what a checkpoint's tensors cannot say.

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
"""P3 to P7."""
LEAST_SIDE_PX = 32
"""Of an input."""
_ASPECT_RATIOS = (1.0, 0.5, 2.0)
# Of the priors of P3 to P7, at the input of 550 pixels.
_SIDES_PX = (24, 48, 96, 192, 384)


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Structure of a backbone; each family of backbones has a type of its own."""


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """``(value - mean) / std`` on the 0..255 scale, in the order blue, green, red; then a swap to ``channel_order``."""

    mean_bgr: tuple[float, float, float]
    std_bgr: tuple[float, float, float]
    channel_order: str = "RGB"


# Not torchvision's numbers times 255: the difference is small, and breaks bit parity.
_RESNET_NORMALISATION = Normalisation((103.94, 116.78, 123.68), (57.38, 57.12, 58.40))


@dataclasses.dataclass(frozen=True)
class YolactConfig:
    """One YOLACT model: its structure, and the settings its weights were trained for.

    Attributes:
        name: Name of the configuration.
        backbone: Structure of the backbone.
        num_classes: C, with the background, which is class 0.
        num_prototypes: K.
        fpn_channels: Width of the pyramid, of the prototype network and of the prediction head.
        input_height: Rows of the network input, pixels.
        input_width: Columns of the network input, pixels.
        prior_scales_px: For each of the levels P3..P7, the prior sides in pixels of the network input.
        aspect_ratios: Width over height of the priors, applied inside each scale.
        square_priors: The width of a prior is also its height (the published COCO models of YOLACT).
        mask_rescoring: The model has a mask-IoU network (YOLACT++).
        normalisation: What becomes of the pixel values.
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
                f"{self.name}: num_classes counts the background and is at least 2, not {self.num_classes}"
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
            raise ConfigError(f"{self.name}: prior scales are pixels above 0, found {self.prior_scales_px}")
        try:
            # What no manifest can say no bundle can have: found here, before anything is trained or exported.
            self.input_spec()
            self.prior_spec()
        except ManifestError as error:
            raise ConfigError(f"{self.name}: {error}") from error

    @property
    def priors_per_cell(self) -> int:
        """A: priors at each position of a feature map."""
        return len(self.prior_scales_px[0]) * len(self.aspect_ratios)

    @property
    def feature_sizes(self) -> tuple[tuple[int, int], ...]:
        """``(height, width)`` of P3..P7, pixels.

        Every layer of stride 2 of every backbone, and of the pyramid, halves and rounds up.
        """
        sizes = [(self.input_height, self.input_width)]
        for _ in range(2 + NUM_LEVELS):
            height, width = sizes[-1]
            sizes.append(((height + 1) // 2, (width + 1) // 2))
        return tuple(sizes[3:])

    @property
    def prototype_size(self) -> tuple[int, int]:
        """``(Hp, Wp)``: twice the size of P3, pixels."""
        height, width = self.feature_sizes[0]
        return 2 * height, 2 * width

    def prior_spec(self) -> PriorSpec:
        """How the runtime lays the priors of this model."""
        return PriorSpec(self.feature_sizes, self.prior_scales_px, self.aspect_ratios, self.square_priors)

    def input_spec(self, *, normalised_in_graph: bool = False) -> InputSpec:
        """How the runtime feeds this model.

        Args:
            normalised_in_graph: The graph was exported to take raw BGR values, 0..255.
        """
        if normalised_in_graph:
            return InputSpec(self.input_height, self.input_width, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "BGR")
        norm = self.normalisation
        return InputSpec(self.input_height, self.input_width, norm.mean_bgr, norm.std_bgr, norm.channel_order)


def plus_scales() -> tuple[tuple[float, ...], ...]:
    """Return the prior scales of YOLACT++, pixels: three a level."""
    return tuple(tuple(side * 2 ** (j / 3) for j in range(3)) for side in _SIDES_PX)


def scales_for_size(size: int) -> tuple[tuple[float, ...], ...]:
    """Return the prior scales of a model trained at another input size; upstream truncates them to whole pixels."""
    return tuple((float(int(side / 550 * size)),) for side in _SIDES_PX)
