"""Start model of a training: a configuration with fresh weights, or a checkpoint adapted to other classes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import torch
from torch import nn

from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint
from yolact_export.checkpoint.findings import Assumption
from yolact_export.checkpoint.imagenet import load_imagenet
from yolact_export.errors import CheckpointError, ConfigError
from yolact_export.model.config import LEAST_SIDE_PX, BackboneConfig, YolactConfig
from yolact_export.model.prediction_head import PredictionHead
from yolact_export.model.registry import CONFIGS, family_of
from yolact_export.model.yolact import Yolact, create_model
from yolact_plugins.text import unprintable
from yolact_runtime.model.bundle import MANIFEST_NAME
from yolact_runtime.model.manifest_limits import MAX_SIDE
from yolact_runtime.option_numbers import MAX_SEED, keep_between

__all__ = ["Start", "StartOptions", "has_trained_backbone", "start_model"]

# The mask-IoU network halves its input five times without padding.
_LEAST_MASK_IOU_SIDE = 63


@dataclasses.dataclass(frozen=True)
class StartOptions:
    """Options of the start model.

    Attributes:
        source: Name of a configuration, or path of a checkpoint.
        class_names: Class names of the data set.
        input_size: Side of the square input in pixels; None keeps that of the source. Prior scales follow it.
        prior_scales: Prior sides in pixels for each of P3..P7; None keeps those of the source.
        backbone_weights: Path of ImageNet weights for a fresh backbone; None looks for an installed package with them.
        seed: Seed of fresh weights.
        checkpoint: Known properties of a checkpoint as the source that it does not state.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    source: str
    class_names: tuple[str, ...]
    input_size: int | None = None
    prior_scales: tuple[tuple[float, ...], ...] | None = None
    backbone_weights: Path | None = None
    seed: int = 0
    checkpoint: CheckpointOptions = dataclasses.field(default_factory=CheckpointOptions)

    def __post_init__(self) -> None:
        keep_between(self, {"input_size": (LEAST_SIDE_PX, MAX_SIDE), "seed": (0, MAX_SEED)})


@dataclasses.dataclass(frozen=True)
class Start:
    """Model ready to be trained.

    Attributes:
        model: Model in training mode, on the CPU; its configuration has the classes of the data set.
        findings: Readable lines about the origin of the weights.
        identity: Origin of the weights, as text that identifies them.
    """

    model: Yolact
    findings: tuple[str, ...]
    identity: str


def start_model(options: StartOptions) -> Start:
    """Create or load the start model.

    Raises:
        ConfigError: The source is neither a configuration nor a file, or a class name has control characters, with
            which the trained model could not be exported.
        CheckpointError: The checkpoint or the ImageNet weights cannot be used.
    """
    torch.manual_seed(options.seed)
    for name in options.class_names:
        if (character := unprintable(name)) is not None:
            raise ConfigError(f"the class {json.dumps(name)[:60]} has the character {character}; correct it first")
    if options.source in CONFIGS:
        start = _fresh(CONFIGS[options.source], options)
    elif Path(options.source).is_file():
        start = _from_checkpoint(Path(options.source), options)
    else:
        if (Path(options.source) / MANIFEST_NAME).is_file():
            raise ConfigError(
                f"{options.source} is a bundle, which has no weights to train; name the checkpoint (.pth) that it "
                "was exported from"
            )
        raise ConfigError(
            f'"{options.source}" is neither a file nor a configuration; the configurations are: {", ".join(CONFIGS)}'
        )
    config = start.model.config
    if config.mask_rescoring and min(config.prototype_size) < _LEAST_MASK_IOU_SIDE:
        raise ConfigError(
            f"{config.name} re-scores masks, for which an input of {config.input_height} x {config.input_width} is too "
            f"small; give --input-size 249 or more, or a configuration without mask re-scoring"
        )
    return start


def has_trained_backbone(source: str, backbone_weights: Path | None) -> bool:
    """Return whether the batch norms of a start model, all of them in the backbone, were trained on images."""
    if source not in CONFIGS or backbone_weights is not None:
        return True
    return _installed_weights(CONFIGS[source].backbone) is not None


def _fresh(base: YolactConfig, options: StartOptions) -> Start:
    config = _with_input(dataclasses.replace(base, num_classes=len(options.class_names) + 1), options)
    model = create_model(config)
    findings = [f"fresh weights of {config.name}, seed {options.seed}"]
    weights = options.backbone_weights
    if weights is None:
        weights = _installed_weights(config.backbone)
    identity = f"{config.name}, seed {options.seed}"
    if weights is None:
        findings.append(
            Assumption(
                "ASSUMED: the backbone starts from random weights, too, which needs many images and a long training. "
                "Give ImageNet weights with --backbone-weights, or start from a checkpoint"
            )
        )
    else:
        sha256 = load_imagenet(model.backbone, weights)
        findings.append(f"backbone: ImageNet weights of {weights.name} (sha256 {sha256[:16]}…)")
        identity += f", ImageNet {sha256}"
    return Start(model.train(), tuple(findings), identity)


def _installed_weights(backbone: BackboneConfig) -> Path | None:
    """Return ImageNet weights of this family from their optional package, if it is installed."""
    imagenet = family_of(backbone).imagenet
    if imagenet is None or imagenet.package is None:
        return None
    spec = importlib.util.find_spec(imagenet.package)
    folders = spec.submodule_search_locations if spec is not None else None
    files = [path for folder in folders or () for path in Path(folder).rglob("*.pth")]
    return files[0] if len(files) == 1 else None


def _from_checkpoint(path: Path, options: StartOptions) -> Start:
    if options.backbone_weights is not None:
        raise ConfigError(f"--backbone-weights is for fresh models; {path} has its own backbone: leave the option out")
    loaded = load_checkpoint(path, options.checkpoint)
    model = loaded.model
    findings = [f"weights of {path}", *(type(finding)(f"  {finding}") for finding in loaded.findings)]
    if tuple(options.class_names) != loaded.class_names:
        _replace_classes(model, len(options.class_names))
        findings.append(
            f"classes: {_some(loaded.class_names)} in the checkpoint, {_some(options.class_names)} in the data set: "
            f"class_layer and semantic head are initialised again, everything else is kept"
        )
    model.config = _with_input(dataclasses.replace(model.config, num_classes=len(options.class_names) + 1), options)
    # The tensors may be backed by the file, which training must not modify.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    identity = f"checkpoint {loaded.identity}"
    if options.checkpoint.config is not None:
        identity += f", --config {options.checkpoint.config}"
    return Start(model.train().requires_grad_(True), tuple(findings), identity)


def _some(names: tuple[str, ...]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


def _with_input(config: YolactConfig, options: StartOptions) -> YolactConfig:
    size = config.input_height if options.input_size is None else options.input_size
    scales = options.prior_scales
    if scales is None:
        # As upstream does for its other sizes; a training can adapt to it, unlike an export.
        factor = size / config.input_height
        scales = tuple(
            tuple(float(int(side * factor)) if factor != 1 else side for side in level)
            for level in config.prior_scales_px
        )
    if scales and len(scales[0]) != len(config.prior_scales_px[0]):
        raise CheckpointError(
            f"{config.name} has {len(config.prior_scales_px[0])} prior scales per level, {len(scales[0])} were given"
        )
    width = config.input_width if options.input_size is None else size
    return dataclasses.replace(config, input_height=size, input_width=width, prior_scales_px=scales)


def _replace_classes(model: Yolact, count: int) -> None:
    """Create layers for another number of classes, initialised as by :func:`create_model`."""
    head = model.prediction_layers[0]
    assert isinstance(head, PredictionHead)
    priors = head.conf_layer.out_channels // head.num_classes
    head.conf_layer = _xavier(head.conf_layer.in_channels, priors * (count + 1), 3)
    head.num_classes = count + 1
    model.semantic_seg_conv = _xavier(model.semantic_seg_conv.in_channels, count, 1)
    if model.maskiou_net is not None:
        last = [module for module in model.maskiou_net.modules() if isinstance(module, nn.Conv2d)][-1]
        fresh = _xavier(last.in_channels, count, 1)
        last.out_channels, last.weight, last.bias = count, fresh.weight, fresh.bias


def _xavier(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    nn.init.xavier_uniform_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
