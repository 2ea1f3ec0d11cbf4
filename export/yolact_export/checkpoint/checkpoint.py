"""Safe loading of any published or pruned YOLACT checkpoint, with a report of what was inferred."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from yolact_export.checkpoint.config import CheckpointOptions, choose_class_names, choose_config
from yolact_export.checkpoint.file import read_checkpoint_file
from yolact_export.checkpoint.file_name import config_name_of
from yolact_export.checkpoint.keys import list_some, normalise_keys
from yolact_export.checkpoint.structure import infer_structure
from yolact_export.checkpoint.weights import TOP_LEVEL
from yolact_export.errors import CheckpointError, ShapeError
from yolact_export.model.config import YolactConfig
from yolact_export.model.widths import check_flow, fit_widths, make_skeleton
from yolact_export.model.yolact import Yolact

__all__ = ["CheckpointOptions", "LoadedCheckpoint", "config_name_of", "load_checkpoint"]

_LOGGER = logging.getLogger(__name__)
_COUNTER = "num_batches_tracked"
_SEMANTIC_HEAD = "semantic_seg_conv."


@dataclasses.dataclass(frozen=True)
class LoadedCheckpoint:
    """Model with its origin.

    Attributes:
        model: Model in eval mode, on the CPU. Its tensors may be backed by the file, which must not be rewritten while
            they are in use.
        config: Structure and input of the model; also ``model.config``.
        class_names: Names of the foreground classes; name 0 is class 1 of the network.
        sha256: SHA-256 of the file, hexadecimal.
        findings: Readable lines about what was inferred, from what, and what was assumed.
        weights: Name of the weights within the file, such as ``ema``.
    """

    model: Yolact
    config: YolactConfig
    class_names: tuple[str, ...]
    sha256: str
    findings: tuple[str, ...]
    weights: str = TOP_LEVEL

    @property
    def identity(self) -> str:
        """Identity of the weights, as text: the file, and their name within it."""
        return self.sha256 if self.weights == TOP_LEVEL else f"{self.sha256} {self.weights}"


def load_checkpoint(path: str | os.PathLike[str], options: CheckpointOptions | None = None) -> LoadedCheckpoint:
    """Read a checkpoint of YOLACT, YOLACT++ or YolactEdge, or of this project, pruned or not.

    Backbone, widths, classes, prototypes and YOLACT++ parts are inferred from the tensors. Input size and prior scales
    come from the options, from the note that this project's training writes into the file, or from the published file
    name; otherwise they are assumed, but only if the options allow it. Nothing in the file is executed, and nothing is
    written.

    Args:
        path: Path of the ``.pth`` file.
        options: Known properties of the checkpoint; by default none.

    Raises:
        CheckpointError: The file cannot be read, is of another kind of model, is damaged, contradicts its name or the
            options, or input size and prior scales are unknown.
        ConfigError: An option is invalid in itself.
    """
    path = Path(path)
    options = options or CheckpointOptions()
    file = read_checkpoint_file(path, options.weights, options.command)
    tensors, key_findings = normalise_keys(file.tensors, str(path))
    structure = infer_structure({key: tuple(value.shape) for key, value in tensors.items()}, str(path))
    config, config_findings = choose_config(structure, path, options, file.note, file.other_notes)
    names, name_findings = choose_class_names(config, path, options, file.note)
    model, load_findings = _load_model(config, tensors, str(path))
    findings = (
        *file.findings,
        *key_findings,
        f"structure, from keys and shapes: {structure.describe()}",
        *config_findings,
        *load_findings,
        *name_findings,
    )
    for finding in findings:
        _LOGGER.info("%s: %s", path, finding)
    return LoadedCheckpoint(model, config, names, file.sha256, findings, file.weights)


def _load_model(config: YolactConfig, tensors: dict[str, torch.Tensor], source: str) -> tuple[Yolact, list[str]]:
    findings: list[str] = []
    skeleton = make_skeleton(config)
    expected = {key: tuple(value.shape) for key, value in skeleton.state_dict().items()}
    tensors = _add_training_only(tensors, expected, findings)
    _check_keys(tensors, expected, config, source)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    if changed := fit_widths(skeleton, shapes):
        findings.append(
            f"{len(changed)} layers have other channel widths than usual (a pruned model): {list_some(changed, 3)}"
        )
    _check_shapes(skeleton, shapes, source)
    _check_kinds(tensors, source)
    tensors = _as_float32(tensors, findings)
    _check_values(tensors, source)
    # Assigning instead of copying: the tensors of the file become those of the model.
    skeleton.load_state_dict(tensors, strict=True, assign=True)
    try:
        check_flow(skeleton)
    except ShapeError as error:
        raise CheckpointError(f"{source}: tensors that do not fit together: {error}") from error
    return skeleton, findings


def _add_training_only(
    tensors: dict[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]], findings: list[str]
) -> dict[str, torch.Tensor]:
    """Add zeros for training-only entries: very old files lack batch norm counters, stripped ones the semantic head."""
    missing = [
        key
        for key in expected
        if key.endswith(_COUNTER) and key not in tensors and key.replace(_COUNTER, "running_mean") in tensors
    ]
    if missing:
        findings.append(f"{len(missing)} missing batch norm counters ({_COUNTER}) set to 0")
    added = {key: torch.zeros((), dtype=torch.int64) for key in missing}
    head = [key for key in expected if key.startswith(_SEMANTIC_HEAD)]
    if not any(key in tensors for key in head):
        findings.append(f"the semantic head ({_SEMANTIC_HEAD}*), which only training uses, is missing and set to 0")
        added.update((key, torch.zeros(expected[key])) for key in head)
    return {**tensors, **added}


def _check_keys(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]], config: YolactConfig, source: str
) -> None:
    missing = sorted(set(expected) - set(tensors))
    extra = sorted(set(tensors) - set(expected))
    if not missing and not extra:
        return
    parts = [
        f"{len(keys)} {what} ({list_some(keys)})" for keys, what in ((missing, "missing"), (extra, "unknown")) if keys
    ]
    raise CheckpointError(
        f"{source}: read as {config.name}, whose {len(expected)} entries differ from the {len(tensors)} of the file: "
        f"{'; '.join(parts)}. Partial loading is not supported: the file is incomplete, or of an unsupported variant"
    )


def _check_shapes(skeleton: Yolact, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    wrong = [
        f"{key} {shapes[key]} instead of {tuple(value.shape)}"
        for key, value in skeleton.state_dict().items()
        if shapes[key] != tuple(value.shape)
    ]
    if wrong:
        raise CheckpointError(f"{source}: {len(wrong)} tensors have the wrong shape: {list_some(wrong)}")


def _check_kinds(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    strangers = [
        f"{key} ({str(value.dtype).removeprefix('torch.')}, {value.device.type})"
        for key, value in tensors.items()
        if not key.endswith(_COUNTER)
        and not (value.is_floating_point() and value.layout == torch.strided and value.device.type == "cpu")
    ]
    if strangers:
        raise CheckpointError(
            f"{source}: {len(strangers)} tensors are not dense floating-point values: {list_some(strangers)}. Save the "
            f"state dict of the float model: quantisation happens at export"
        )


def _as_float32(tensors: dict[str, torch.Tensor], findings: list[str]) -> dict[str, torch.Tensor]:
    others = {key for key, value in tensors.items() if not key.endswith(_COUNTER) and value.dtype != torch.float32}
    if others:
        kinds = sorted({str(tensors[key].dtype).removeprefix("torch.") for key in others})
        findings.append(f"{len(others)} tensors of {', '.join(kinds)} converted to float32")
    return {key: (value.float() if key in others else value).detach() for key, value in tensors.items()}


def _check_values(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    broken = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise CheckpointError(
            f"{source}: {len(broken)} tensors contain NaN or infinity: {list_some(broken)}. The training diverged or "
            f"the file is damaged; use an earlier checkpoint"
        )
    negative = [key for key, value in tensors.items() if key.endswith(".running_var") and bool((value < 0).any())]
    if negative:
        raise CheckpointError(
            f"{source}: {len(negative)} batch norm variances are negative: {list_some(negative)}. The file is damaged"
        )
