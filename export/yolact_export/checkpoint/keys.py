"""State-dict keys: corrections that published files need, and the recognition of files of other projects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import torch

from yolact_export.errors import CheckpointError
from yolact_export.model.registry import families

__all__ = ["REQUIRED", "list_some", "normalise_keys", "published_key"]

_Value = TypeVar("_Value")

REQUIRED = (
    "prediction_layers.0.bbox_layer.weight",
    "prediction_layers.0.conf_layer.weight",
    "prediction_layers.0.mask_layer.weight",
    "fpn.lat_layers.0.weight",
    "proto_net.0.weight",
    "proto_net.10.weight",
)
"""Keys that every YOLACT model has."""

_NUM_DOWNSAMPLE_LAYERS = 2
_EDGE_NAMES = {"fpn_phase_1.": "fpn.", "fpn_phase_2.": "fpn."}
_EDGE_VIDEO = ("flow_net", "spa")


def list_some(names: Collection[str], limit: int = 10) -> str:
    """Return the first `limit` of the sorted names as text, and how many more there are."""
    shown = ", ".join(sorted(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def normalise_keys(tensors: Mapping[str, torch.Tensor], source: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Rename the keys of a YOLACT or YolactEdge checkpoint to the published names.

    Args:
        tensors: Tensors by the keys in the file.
        source: Name of the file, for messages.

    Returns:
        The tensors under their published names, not copied, and a line for each change.

    Raises:
        CheckpointError: The keys are not those of a YOLACT model; the message names the project that they seem to be
            from.
    """
    findings: list[str] = []
    named = _rename_edge(dict(tensors), findings)
    _require_yolact(named, source)
    named = _drop(named, _is_video, "of YolactEdge's video branch; the image model needs none of them", findings)
    named = _drop(named, _is_stale_backbone, "left over from an old name of the backbone", findings)
    named = _drop(named, _is_stale_downsample, "of pyramid levels that the model does not have", findings)
    return named, tuple(findings)


def published_key(key: str) -> str:
    """Return the published name of a key of YolactEdge's two-part pyramid; other keys are returned unchanged."""
    prefix = next((prefix for prefix in _EDGE_NAMES if key.startswith(prefix)), "")
    return _EDGE_NAMES[prefix] + key.removeprefix(prefix) if prefix else key


def _rename_edge(tensors: dict[str, _Value], findings: list[str]) -> dict[str, _Value]:
    renamed = {published_key(key): value for key, value in tensors.items()}
    if count := sum(published_key(key) != key for key in tensors):
        findings.append(f"YolactEdge checkpoint: {count} keys of its two-part pyramid renamed to fpn.*")
    return renamed


def _drop(
    tensors: dict[str, _Value], is_dropped: Callable[[str], bool], reason: str, findings: list[str]
) -> dict[str, _Value]:
    dropped = [key for key in tensors if is_dropped(key)]
    if dropped:
        findings.append(f"{len(dropped)} entries dropped, {reason}: {list_some(dropped, 3)}")
    return {key: value for key, value in tensors.items() if not is_dropped(key)}


def _is_video(key: str) -> bool:
    return key.startswith(_EDGE_VIDEO)


def _is_stale_backbone(key: str) -> bool:
    return key.startswith("backbone.layer") and not key.startswith("backbone.layers")


def _is_stale_downsample(key: str) -> bool:
    part = key.removeprefix("fpn.downsample_layers.").split(".")[0]
    return key.startswith("fpn.downsample_layers.") and part.isdigit() and int(part) >= _NUM_DOWNSAMPLE_LAYERS


def _require_yolact(tensors: Mapping[str, object], source: str) -> None:
    missing = [key for key in REQUIRED if key not in tensors]
    if not missing:
        return
    origin = _recognise(list(tensors))
    raise CheckpointError(
        f"{source}: not a YOLACT checkpoint{f': {origin}' if origin else ''}. {len(missing)} of the {len(REQUIRED)} "
        f"keys that every YOLACT model has are missing ({list_some(missing)}); the file has {len(tensors)} entries "
        f"({list_some(list(tensors))}). Give a checkpoint of dbolya/yolact or YolactEdge"
    )


def _recognise(keys: Sequence[str]) -> str:
    """Describe the project that the keys belong to; return an empty string if it is unknown."""
    joined = "\n".join(keys)
    if "prediction_layers.0.coef_layer" in joined:
        return (
            "these are keys of Yolact_minimal, which has another pyramid and other priors; its weights give wrong "
            "results here even under the right names, so the model has to be trained again"
        )
    if "bbox_head." in joined or "neck." in joined:
        return "these are keys of mmdetection, whose YOLACT differs in pyramid, head and priors"
    if "roi_heads." in joined or "backbone.bottom_up." in joined:
        return "these are keys of a Mask R-CNN of torchvision or detectron2"
    for layout in (family.imagenet for family in families()):
        if layout is not None and layout.sign in joined and "backbone." not in joined:
            return f"these are keys of {layout.origin}, the ImageNet weights that a training starts from"
    return ""
