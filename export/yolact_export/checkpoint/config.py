"""The part of a configuration that tensors do not determine: input size, prior scales, normalisation, class names."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from yolact_export.checkpoint.file_name import FileName, read_file_name
from yolact_export.checkpoint.findings import Assumption
from yolact_export.checkpoint.note import ASSUMED, CheckpointNote
from yolact_export.checkpoint.structure import Structure, describe_backbone
from yolact_export.errors import CheckpointError
from yolact_export.model import class_names
from yolact_export.model.config import YolactConfig
from yolact_export.model.registry import CONFIGS, family_of, find_config
from yolact_plugins.files import counted
from yolact_plugins.text import unprintable
from yolact_runtime.model.manifest_limits import MAX_NAME

__all__ = ["CheckpointOptions", "choose_class_names", "choose_config"]


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """Known properties of a checkpoint that its file does not state. ``None`` means: derive them from the file name.

    Attributes:
        config: Name of a known configuration (``--config``).
        input_size: Side of a square input, or ``(height, width)``, in pixels (``--input-size``).
        class_names: Foreground classes in the order of the training (``--class-names``).
        prior_scales: Prior sides in pixels for each of P3..P7 (``--prior-scales``).
        weights: Name of the weights in a file that has several, such as ``ema`` (``--weights``).
        assume: If True, use the published configuration of the structure if input size or priors are unknown
            (``--assume``); otherwise that is an error.
        command: Name of the command that has these options, for messages.
    """

    config: str | None = None
    input_size: int | tuple[int, int] | None = None
    class_names: Sequence[str] | None = None
    prior_scales: tuple[tuple[float, ...], ...] | None = None
    weights: str | None = None
    assume: bool = False
    command: str = "yolact-export"


def choose_config(
    structure: Structure,
    path: Path,
    options: CheckpointOptions,
    note: CheckpointNote | None = None,
    other_notes: Sequence[str] = (),
) -> tuple[YolactConfig, tuple[str, ...]]:
    """Combine what the tensors, the note in the file, the file name and the options say.

    Args:
        structure: Structure inferred from the tensors.
        path: Path of the file, whose name may determine the configuration.
        options: Known properties of the checkpoint.
        note: Note of these weights, if the file has one.
        other_notes: Names of other weights in the file that have a note, for messages.

    Returns:
        The configuration, and a line for each decision with its reason.

    Raises:
        CheckpointError: The name or an option contradicts the tensors, or the input of the model is unknown.
        ConfigError: ``options.config`` is not a known name, or the result is inconsistent.
    """
    findings: list[str] = []
    base = _base_config(structure, path, options, note, other_notes, findings)
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
    structure: Structure,
    path: Path,
    options: CheckpointOptions,
    note: CheckpointNote | None,
    other_notes: Sequence[str],
    findings: list[str],
) -> YolactConfig:
    name = read_file_name(path)
    if note is not None and options.config is not None:
        findings.append(
            f'the note in the file says "{note.config.name}", with its input and priors; --config "{options.config}" '
            f"takes precedence"
        )
    if note is not None and options.config is None:
        findings.append(f"input size, prior scales and normalisation: from the note in the file ({note.config.name})")
        if assumption := note.provenance.get(ASSUMED):
            findings.append(Assumption(assumption))
        return note.over(_likely_config(structure))
    if options.config is not None:
        base, source = find_config(options.config), f'--config "{options.config}"'
        if name.config is not None and name.config != options.config:
            findings.append(f'the file name says "{name.config}"; --config "{options.config}" takes precedence')
    elif name.config is not None:
        base, source = CONFIGS[name.config], f'file name ("{name.config}")'
    else:
        return _undecided_config(structure, path, options, name, other_notes, findings)
    _check_backbone(base, structure, source, path)
    findings.append(f"input size, prior scales and normalisation: those of {base.name}, from the {source}")
    if base.mask_rescoring and not structure.mask_rescoring:
        findings.append(f"{base.name} re-scores masks, but the file has no maskiou_net: masks keep the box score")
    return base


def _undecided_config(
    structure: Structure,
    path: Path,
    options: CheckpointOptions,
    name: FileName,
    other_notes: Sequence[str],
    findings: list[str],
) -> YolactConfig:
    """Choose a configuration if neither a note nor a name determines it, from the options and the structure."""
    base, fitting = _likely_config(structure), _fitting_configs(structure)
    if options.prior_scales is None and base.priors_per_cell != structure.priors_per_cell:
        return base  # The caller refuses it: no known configuration has this number of priors.
    unknown = {
        f"input {base.input_height} x {base.input_width}": options.input_size is None,
        f"prior scales {_shown_scales(base)} px": options.prior_scales is None,
        f"square priors {base.square_priors} and the normalisation of {base.name}": len(set(map(_feeding, fitting)))
        > 1,
    }
    assumed = [what for what, is_unknown in unknown.items() if is_unknown]
    if not assumed:
        findings.append(
            f"normalisation and shape of the priors: those of {', '.join(config.name for config in fitting)}, the "
            f"known configurations of this structure"
        )
        return base
    if not options.assume:
        others = [f'The note of the weights "{other}" in the file does not contain them.' for other in other_notes]
        raise CheckpointError("\n".join([_what_to_type(structure, path, options, name, fitting), *others]))
    findings.append(
        Assumption(
            f"ASSUMED: {', '.join(assumed)} (--assume), the configuration of this structure: neither the tensors nor "
            f'the file name ("{path.name}") determine them. If the model was trained otherwise, its boxes will be '
            f"wrong: set --config, --input-size, --prior-scales"
        )
    )
    return base


def _feeding(config: YolactConfig) -> tuple[object, ...]:
    return config.normalisation, config.square_priors, config.aspect_ratios


def _fitting_configs(structure: Structure) -> list[YolactConfig]:
    """Return the known configurations of a structure, the most likely one first."""
    likely = _likely_config(structure)
    others = [config for config in CONFIGS.values() if config != likely and _same_backbone(config, structure)]
    return [likely, *(config for config in others if config.priors_per_cell == likely.priors_per_cell)]


def _shown_scales(config: YolactConfig) -> str:
    """Format prior scales for --prior-scales."""
    return ",".join("/".join(f"{side:.4g}" for side in level) for level in config.prior_scales_px)


def _what_to_type(
    structure: Structure, path: Path, options: CheckpointOptions, name: FileName, fitting: Sequence[YolactConfig]
) -> str:
    chosen = "" if options.weights is None else f" --weights {shlex.quote(options.weights)}"
    command = f"{options.command} {shlex.quote(str(path))}{chosen}"
    mentioned = [config for config in fitting if config.name in name.mentioned]
    hint = ""
    if name.mentioned:
        beside = f' beside "{", ".join(name.doubts)}"' if name.doubts else ""
        hint = f", which mentions {' and '.join(name.mentioned)}{beside},"
    given = "" if options.input_size is None else " --input-size alone does not say which priors it was trained with."
    lines = [
        f"  {command} --config {config.name}  ({config.input_width} x {config.input_height}, prior scales "
        f"{_shown_scales(config)}{', square priors' if config.square_priors else ''})"
        for config in dict.fromkeys([*mentioned, *fitting])
    ]
    return "\n".join(
        [
            f"{path}: input size and priors are unknown: neither a note in the file nor its name "
            f'("{path.name}"){hint} states them, and with wrong ones the boxes are wrong.{given} The tensors '
            f"({describe_backbone(structure.backbone)}, {structure.priors_per_cell} priors per cell) fit these "
            f"configurations; give the one it was trained with:",
            *lines,
            "Trained with another input or other priors: add --input-size N and --prior-scales PX,PX,PX,PX,PX to it."
            if options.command == "yolact-export"
            else "A training may then change the input with --input-size and --prior-scales.",
            f"To assume {fitting[0].name} without knowing: {command} --assume",
        ]
    )


def _check_backbone(base: YolactConfig, structure: Structure, source: str, path: Path) -> None:
    if not _same_backbone(base, structure):
        raise CheckpointError(
            f"{path}: the {source} means {describe_backbone(base.backbone)}, the tensors are of a "
            f"{describe_backbone(structure.backbone)}. Correct the name, or give the --config that the model was "
            f"trained with"
        )


def _same_backbone(config: YolactConfig, structure: Structure) -> bool:
    family = family_of(structure.backbone)
    return family is family_of(config.backbone) and family.is_same_network(config.backbone, structure.backbone)


def _likely_config(structure: Structure) -> YolactConfig:
    return family_of(structure.backbone).likely_config(structure.backbone, structure.priors_per_cell)


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
    """Choose names of the foreground classes; return them and a line that states their origin.

    Raises:
        CheckpointError: The number of names differs from the model's classes, or a name is too long or unprintable.
    """
    count = config.num_classes - 1
    if options.class_names is not None:
        if len(options.class_names) != count:
            raise CheckpointError(
                f"{path}: the model has {counted(count, 'class', 'classes')} without the background, --class-names "
                f"gives {len(options.class_names)}"
            )
        return _require_names(options.class_names, path), (f"{counted(count, 'class name')} from --class-names",)
    if note is not None:
        if len(note.class_names) != count:
            raise CheckpointError(
                f"{path}: its note names {counted(len(note.class_names), 'class', 'classes')}, its tensors have "
                f"{count}: the file was changed after the training. Name the classes with --class-names"
            )
        return _require_names(note.class_names, path), (f"{counted(count, 'class name')} from the note in the file",)
    if count == len(class_names.COCO):
        return class_names.COCO, (
            "80 class names: those of COCO, because the model has 80 classes (--class-names changes them)",
        )
    if count == len(class_names.PASCAL) and config.name.endswith("_pascal"):
        return class_names.PASCAL, (f"20 class names: those of Pascal VOC, from {config.name}",)
    names = class_names.numbered(count)
    called = names[0] if count == 1 else f"{names[0]} to {names[-1]}"
    told = f"{counted(count, 'class', 'classes')} with unknown names: called {called}; name them with --class-names"
    return names, (told,)


def _require_names(names: Sequence[str], path: Path) -> tuple[str, ...]:
    """Check that names can be printed on terminals and written to logs, as every manifest requires."""
    for index, name in enumerate(names):
        if len(name) > MAX_NAME:
            raise CheckpointError(
                f"{path}: the name of class {index} has {len(name)} characters, {MAX_NAME} at most. Name the classes "
                f"with --class-names"
            )
        if (character := unprintable(name)) is not None:
            raise CheckpointError(
                f"{path}: the name of class {index} is {json.dumps(name)[:60]}, which contains {character}. Name the "
                f"classes with --class-names"
            )
    return tuple(names)
