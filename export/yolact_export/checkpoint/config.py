"""The part of a configuration that tensors cannot say: input size, prior scales, normalisation, class names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from yolact_export.checkpoint.note import CheckpointNote
from yolact_export.checkpoint.structure import Structure, describe_backbone
from yolact_export.errors import CheckpointError
from yolact_export.model import class_names
from yolact_export.model.config import (
    CONFIGS,
    DarkNetConfig,
    EfficientNetLite0Config,
    MobileNetV2Config,
    ResNetConfig,
    SmallResNetConfig,
    YolactConfig,
    find_config,
)

__all__ = ["CheckpointOptions", "choose_class_names", "choose_config", "config_name_of"]

_SUFFIX = re.compile(r"(_\d+_\d+)?(_interrupt)?$")


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """What the caller knows about a checkpoint that its file does not say. ``None``: take it from the file name.

    Attributes:
        config: Name of a known configuration (``--config``).
        input_size: One side of a square input, or ``(height, width)``; pixels (``--input-size``).
        class_names: Foreground classes in the order of the training (``--class-names``).
        prior_scales: For each of P3..P7, the prior sides in pixels (``--prior-scales``).
    """

    config: str | None = None
    input_size: int | tuple[int, int] | None = None
    class_names: Sequence[str] | None = None
    prior_scales: tuple[tuple[float, ...], ...] | None = None


def config_name_of(path: Path) -> str:
    """The configuration in a published file name, ``<config>_<epoch>_<iteration>[_interrupt].pth``."""
    return _SUFFIX.sub("", path.stem)


def choose_config(
    structure: Structure, path: Path, options: CheckpointOptions, note: CheckpointNote | None = None
) -> tuple[YolactConfig, tuple[str, ...]]:
    """Join what the tensors say with what the note in the file, the file name and the options say.

    Returns:
        The configuration, and a line for everything that was decided and why.

    Raises:
        CheckpointError: The name or an option contradicts the tensors.
        ConfigError: ``options.config`` is no known name, or the result makes no sense.
    """
    findings: list[str] = []
    base = _base_config(structure, path, options, note, findings)
    config = dataclasses.replace(
        base,
        backbone=structure.backbone,
        num_classes=structure.num_classes,
        num_prototypes=structure.num_prototypes,
        fpn_channels=structure.fpn_channels,
        mask_rescoring=structure.mask_rescoring,
        prior_scales_px=options.prior_scales or base.prior_scales_px,
    )
    if config.priors_per_cell != structure.priors_per_cell:
        raise CheckpointError(
            f"{path}: {structure.priors_per_cell} priors per cell in the tensors, "
            f"{config.priors_per_cell} in {'--prior-scales' if options.prior_scales else base.name} "
            f"({len(config.prior_scales_px[0])} scales x {len(config.aspect_ratios)} aspect ratios). Give the scales "
            f"the model was trained with (--prior-scales), or another --config"
        )
    if options.prior_scales is not None:
        findings.append(f"prior scales: {options.prior_scales} px, from --prior-scales")
    return _with_input_size(config, options, findings), tuple(findings)


def _base_config(
    structure: Structure, path: Path, options: CheckpointOptions, note: CheckpointNote | None, findings: list[str]
) -> YolactConfig:
    name = config_name_of(path)
    if note is not None and options.config is not None:
        findings.append(
            f'the note in the file says "{note.config.name}" and how it is fed; --config "{options.config}" takes '
            f"precedence"
        )
    if note is not None and options.config is None:
        findings.append(f"input size, prior scales and normalisation: from the note in the file ({note.config.name})")
        return note.over(_likely_config(structure))
    if options.config is not None:
        base, source = find_config(options.config), f'--config "{options.config}"'
        if name in CONFIGS and name != options.config:
            findings.append(f'the file name says "{name}"; --config "{options.config}" takes precedence')
    elif name in CONFIGS:
        base, source = CONFIGS[name], f'file name ("{name}")'
    else:
        base = _likely_config(structure)
        findings.append(
            f"ASSUMED: input {base.input_height} x {base.input_width}, prior scales {base.prior_scales_px} px, "
            f"square priors {base.square_priors} and the normalisation of {base.name}, the configuration of that "
            f'structure: neither the tensors nor the file name ("{path.name}") tell them. If the model was trained '
            f"otherwise its boxes will be wrong: say so with --config, --input-size, --prior-scales"
        )
        return base
    _check_backbone(base, structure, source, path)
    findings.append(f"input size, prior scales and normalisation: those of {base.name}, from the {source}")
    if base.mask_rescoring and not structure.mask_rescoring:
        findings.append(f"{base.name} re-scores masks, but the file has no maskiou_net: masks keep the box score")
    return base


def _check_backbone(base: YolactConfig, structure: Structure, source: str, path: Path) -> None:
    expected, found = base.backbone, structure.backbone
    same = type(expected) is type(found)
    if same and isinstance(found, ResNetConfig | DarkNetConfig) and isinstance(expected, ResNetConfig | DarkNetConfig):
        same = expected.blocks == found.blocks
    if not same:
        raise CheckpointError(
            f"{path}: the {source} means {describe_backbone(expected)}, the tensors are of a "
            f"{describe_backbone(found)}. Correct the name, or give the --config that the model was trained with"
        )


def _likely_config(structure: Structure) -> YolactConfig:
    backbone = structure.backbone
    match backbone:
        case DarkNetConfig():
            name = "yolact_darknet53"
        case MobileNetV2Config():
            name = "yolact_edge_mobilenetv2"
        case EfficientNetLite0Config():
            name = "yolact_lite0"
        case SmallResNetConfig():
            name = "yolact_small"
        case _:
            is_deep = backbone.blocks != ResNetConfig().blocks
            is_plus = structure.priors_per_cell == 9
            name = f"yolact_{'plus_' if is_plus else ''}{'base' if is_deep else 'resnet50'}"
    return CONFIGS[name]


def _with_input_size(config: YolactConfig, options: CheckpointOptions, findings: list[str]) -> YolactConfig:
    if options.input_size is None:
        return config
    size = options.input_size
    height, width = (size, size) if isinstance(size, int) else size
    if (height, width) != (config.input_height, config.input_width):
        findings.append(
            f"input {height} x {width}, from --input-size, where {config.name} has {config.input_height} x "
            f"{config.input_width}; the prior scales stay as they are in pixels, for which the weights were trained"
        )
    return dataclasses.replace(config, input_height=height, input_width=width)


def choose_class_names(
    config: YolactConfig, path: Path, options: CheckpointOptions, note: CheckpointNote | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the foreground classes, and a line that says where they come from.

    Raises:
        CheckpointError: As many names were given as the model does not have classes.
    """
    count = config.num_classes - 1
    if options.class_names is not None:
        if len(options.class_names) != count:
            raise CheckpointError(
                f"{path}: the model has {count} classes without the background, --class-names gives "
                f"{len(options.class_names)}"
            )
        return tuple(options.class_names), (f"{count} class names from --class-names",)
    if note is not None:
        if len(note.class_names) != count:
            raise CheckpointError(
                f"{path}: its note names {len(note.class_names)} classes, its tensors have {count}: the file was "
                f"changed after the training. Name the classes with --class-names"
            )
        return note.class_names, (f"{count} class names from the note in the file",)
    if count == len(class_names.COCO):
        return class_names.COCO, (
            "80 class names: those of COCO, for the model has as many (--class-names changes it)",
        )
    if count == len(class_names.PASCAL) and config.name.endswith("_pascal"):
        return class_names.PASCAL, (f"20 class names: those of Pascal VOC, from {config.name}",)
    names = class_names.numbered(count)
    return names, (f"{count} classes of unknown name: called class_1 to class_{count}; name them with --class-names",)
