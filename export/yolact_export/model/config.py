"""Model configurations: what a checkpoint's tensors cannot say, and the table of the published models.

Source: the published configurations of YOLACT, YOLACT++ and YolactEdge. This module needs no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from yolact_export.errors import ConfigError, ManifestError
from yolact_runtime.model.manifest import InputSpec, PriorSpec

__all__ = [
    "CONFIGS",
    "LEAST_SIDE_PX",
    "NUM_LEVELS",
    "OWN",
    "PUBLISHED",
    "YOLACT_EDGE",
    "BackboneConfig",
    "DarkNetConfig",
    "EfficientNetLite0Config",
    "MobileNetV2Config",
    "Normalisation",
    "ResNetConfig",
    "SmallResNetConfig",
    "YolactConfig",
    "find_config",
]

NUM_LEVELS = 5
"""P3 to P7."""
LEAST_SIDE_PX = 32
"""Of an input."""
_ASPECT_RATIOS = (1.0, 0.5, 2.0)


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """A ResNet of bottleneck blocks.

    Attributes:
        blocks: Bottleneck blocks of each of the four stages.
        deformable: For each stage, the indices of the blocks whose 3x3 convolution is deformable (YOLACT++).
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    deformable: tuple[tuple[int, ...], ...] = ((), (), (), ())


@dataclasses.dataclass(frozen=True)
class DarkNetConfig:
    """DarkNet-53. ``blocks`` counts the residual blocks of each of the five stages."""

    blocks: tuple[int, ...] = (1, 2, 8, 8, 4)


@dataclasses.dataclass(frozen=True)
class MobileNetV2Config:
    """MobileNetV2 1.0, as in the image checkpoints of YolactEdge."""


@dataclasses.dataclass(frozen=True)
class EfficientNetLite0Config:
    """EfficientNet-Lite0: no squeeze-and-excitation and only ReLU6, so that INT8 holds its accuracy."""


@dataclasses.dataclass(frozen=True)
class SmallResNetConfig:
    """A small ResNet of basic blocks for weak hardware.

    Attributes:
        width: Channels of the first stage; the others have 2, 4 and 8 times as many.
        blocks: Basic blocks of each of the four stages; (2, 2, 2, 2) is the depth of ResNet-18.
    """

    width: int = 32
    blocks: tuple[int, ...] = (2, 2, 2, 2)


BackboneConfig = ResNetConfig | DarkNetConfig | MobileNetV2Config | EfficientNetLite0Config | SmallResNetConfig


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """``(value - mean) / std`` on the 0..255 scale, in the order blue, green, red; then a swap to ``channel_order``."""

    mean_bgr: tuple[float, float, float]
    std_bgr: tuple[float, float, float]
    channel_order: str = "RGB"


# Not torchvision's numbers times 255: the difference is small, and breaks bit parity.
_RESNET_NORMALISATION = Normalisation((103.94, 116.78, 123.68), (57.38, 57.12, 58.40))
_UNIT_NORMALISATION = Normalisation((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
_LITE0_NORMALISATION = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


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


def _plus_scales() -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(side * 2 ** (j / 3) for j in range(3)) for side in (24, 48, 96, 192, 384))


def _rescaled(size: int) -> tuple[tuple[float, ...], ...]:
    """The scales of the models trained at another size: upstream truncates them to whole pixels."""
    return tuple((float(int(side / 550 * size)),) for side in (24, 48, 96, 192, 384))


def _table(*configs: YolactConfig) -> Mapping[str, YolactConfig]:
    return {config.name: config for config in configs}


_R50 = ResNetConfig()
_R101 = ResNetConfig((3, 4, 23, 3))
_R50_DEFORMABLE = ResNetConfig(_R50.blocks, ((), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5), (0, 1, 2)))
_R101_DEFORMABLE = ResNetConfig(_R101.blocks, ((), (0, 3), (0, 3, 6, 9, 12, 15, 18, 21), (0,)))

PUBLISHED: Mapping[str, YolactConfig] = _table(
    YolactConfig("yolact_resnet50", _R50),
    YolactConfig("yolact_base", _R101),
    YolactConfig("yolact_im400", _R101, input_height=400, input_width=400, prior_scales_px=_rescaled(400)),
    YolactConfig("yolact_im700", _R101, input_height=700, input_width=700, prior_scales_px=_rescaled(700)),
    YolactConfig("yolact_darknet53", DarkNetConfig(), normalisation=_UNIT_NORMALISATION),
    YolactConfig(
        "yolact_resnet50_pascal",
        _R50,
        num_classes=21,
        prior_scales_px=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
        square_priors=False,
    ),
    YolactConfig(
        "yolact_plus_resnet50",
        _R50_DEFORMABLE,
        prior_scales_px=_plus_scales(),
        square_priors=False,
        mask_rescoring=True,
    ),
    YolactConfig(
        "yolact_plus_base",
        _R101_DEFORMABLE,
        prior_scales_px=_plus_scales(),
        square_priors=False,
        mask_rescoring=True,
    ),
)
"""The published models of YOLACT and YOLACT++, by name."""

YOLACT_EDGE: Mapping[str, YolactConfig] = _table(
    YolactConfig("yolact_edge", _R101),
    YolactConfig("yolact_edge_resnet50", _R50),
    YolactConfig("yolact_edge_mobilenetv2", MobileNetV2Config()),
)
"""The image models of YolactEdge, by name."""

OWN: Mapping[str, YolactConfig] = _table(
    YolactConfig(
        "yolact_lite0",
        EfficientNetLite0Config(),
        fpn_channels=128,
        square_priors=False,
        normalisation=_LITE0_NORMALISATION,
    ),
    YolactConfig(
        "yolact_lite0_im384",
        EfficientNetLite0Config(),
        fpn_channels=64,
        input_height=384,
        input_width=384,
        prior_scales_px=_rescaled(384),
        square_priors=False,
        normalisation=_LITE0_NORMALISATION,
    ),
    YolactConfig("yolact_small", SmallResNetConfig(), fpn_channels=96, square_priors=False),
    YolactConfig(
        "yolact_tiny",
        SmallResNetConfig(16, (2, 2, 2, 1)),
        num_prototypes=16,
        fpn_channels=64,
        input_height=256,
        input_width=256,
        prior_scales_px=((16.0,), (32.0,), (64.0,), (110.0,), (180.0,)),
        square_priors=False,
    ),
)
"""Configurations of this project for weak hardware, by name; there are no published weights."""

CONFIGS: Mapping[str, YolactConfig] = {**PUBLISHED, **YOLACT_EDGE, **OWN}
"""Every known configuration, by name."""


def find_config(name: str) -> YolactConfig:
    """The configuration called `name`.

    Raises:
        ConfigError: There is none of that name; the message lists those there are.
    """
    try:
        return CONFIGS[name]
    except KeyError:
        raise ConfigError(f'no configuration is called "{name}"; there are: {", ".join(CONFIGS)}') from None
