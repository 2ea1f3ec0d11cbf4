"""Search for the model's weights in everything that a training saves: other modules, averages, optimisers, records."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from yolact_export.checkpoint.containers import mappings_in
from yolact_export.checkpoint.keys import REQUIRED, list_some, published_key
from yolact_export.errors import CheckpointError

__all__ = ["TOP_LEVEL", "Weights", "are_equal", "find_weights", "is_averaged"]

TOP_LEVEL = "."
"""Name of weights in the file's own dictionary, without a prefix."""

# Names that torch.compile, FSDP and activation checkpointing insert between those of modules.
_WRAPPER = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AVERAGED = frozenset(["ema", "modelema", "emamodel", "averaged"])
# If these entries exist beside it, "state_dict" is the average: Lightning's WeightAveraging and mmengine's EMAHook.
_SWAPPED = {"current_model_state": "current_model_state", "message_hub": "ema_state_dict"}
_BATCH_NORM = ".running_mean"


@dataclasses.dataclass(frozen=True)
class Weights:
    """State dict found in a file.

    Attributes:
        name: Name of the weights: the keys that lead to them and the prefix of their own keys, joined by dots.
        tensors: Tensors by key, without the prefix.
        container: Dictionary that contains them, which may have metadata.
        path: Keys that lead to the container.
        removed: Prefix that was removed from every key, including wrappers; empty if there was none.
        ignored: Keys of tensors in the same dictionary outside of the prefix.
        others: All other models in the file.
    """

    name: str
    tensors: Mapping[str, torch.Tensor]
    container: Mapping[Any, Any]
    path: tuple[str, ...]
    removed: str = ""
    ignored: tuple[str, ...] = ()
    others: tuple[Weights, ...] = ()


_Group = tuple[tuple[str, ...], Mapping[Any, Any], Mapping[str, torch.Tensor]]


def find_weights(
    content: object, source: str, chosen: str | None = None, command: str = "yolact-export"
) -> tuple[Weights, tuple[str, ...]]:
    """Find a YOLACT model by the keys that every model has, wherever it is and under any common prefix.

    A moving average is preferred to the weights that it averages. Without any YOLACT model the largest state dict is
    returned: weights of something else.

    Args:
        content: Result of ``torch.load``.
        source: Name of the file, for messages.
        chosen: Name of the weights to use if there are several (``--weights``), or its first or last components if they
            are unambiguous.
        command: Name of the command with that option, for messages.

    Returns:
        The weights, and a line for each decision.

    Raises:
        CheckpointError: There is no state dict, several models fit equally, or the chosen one does not exist.
    """
    groups: list[_Group] = [(path, mapping, _tensors(mapping)) for path, mapping in mappings_in(content)]
    groups = [group for group in groups if group[2]]
    if not groups:
        raise CheckpointError(f"{source}: no state dict (key -> tensor) found; {_describe(content)}")
    found = [weights for group in groups for weights in _models_in(*group)]
    if chosen is not None:
        weights, reason = _choose_named(found, chosen, source), "--weights"
    elif len(found) > 1:
        weights, reason = _choose_best(found, content, source, command)
    else:
        weights, reason = found[0] if found else _largest(groups), ""
    others = tuple(other for other in found if other is not weights)
    findings = _findings(weights, [other.name for other in others], reason, content)
    return dataclasses.replace(weights, others=others), tuple(findings)


def _tensors(mapping: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    return {str(key): value for key, value in mapping.items() if isinstance(value, torch.Tensor)}


def _describe(content: object) -> str:
    entries = [".".join((*path, str(key))) for path, mapping in mappings_in(content) for key in mapping]
    if entries:
        return f"the file has {list_some(entries)}"
    kind = type(content).__name__
    return f"the {kind} is empty" if isinstance(content, Mapping) else f"the file contains a {kind}"


def _models_in(path: tuple[str, ...], mapping: Mapping[Any, Any], tensors: Mapping[str, torch.Tensor]) -> list[Weights]:
    """Return the YOLACT models in one dictionary, each under a prefix of its own."""
    keys = _without_wrappers(tensors)
    anchor = REQUIRED[0]
    prefixes = [key.removesuffix(anchor) for key in keys if key == anchor or key.endswith(f".{anchor}")]
    prefixes = [prefix for prefix in prefixes if _has_model(prefix, keys)]
    # "ema." before the keys of a model without a prefix: the longer prefix owns its keys.
    owner = {key: max((prefix for prefix in prefixes if key.startswith(prefix)), key=len, default=None) for key in keys}
    models = []
    for prefix in prefixes:
        # With its wrappers, the prefix may distinguish models that are otherwise the same: "_orig_mod." and no prefix.
        head = keys[prefix + anchor].removesuffix(anchor) if keys[prefix + anchor].endswith(anchor) else ""
        inside = [key for key, raw in keys.items() if owner[key] == prefix and raw.startswith(head)]
        own = {key.removeprefix(prefix): keys[key] for key in inside}
        outside = {key for key in keys if owner[key] in (None, prefix)}.difference(inside)
        ignored = tuple(raw for key, raw in keys.items() if key in outside)
        name = ".".join([*path, *filter(None, [prefix.rstrip(".")])]) or TOP_LEVEL
        models.append(Weights(name, {key: tensors[raw] for key, raw in own.items()}, mapping, path, head, ignored))
    return models


def _has_model(prefix: str, keys: Mapping[str, str]) -> bool:
    found = {published_key(key.removeprefix(prefix)) for key in keys if key.startswith(prefix)}
    return found.issuperset(REQUIRED)


def _without_wrappers(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Map each key without the names of wrappers to the key in the file."""
    keys = {_WRAPPER.sub("", key): key for key in tensors}
    # Two models that differ only in their wrappers.
    return keys if len(keys) == len(tensors) else {key: key for key in tensors}


def _largest(groups: Sequence[_Group]) -> Weights:
    """Return the state dict most similar to a YOLACT model, or else the largest one, without the prefix of its keys."""
    path, mapping, tensors = max(
        groups, key=lambda group: (max(_likeness(group[2]).values(), default=0), len(group[2]))
    )
    keys = _without_wrappers(tensors)
    likeness = _likeness(tensors)
    prefix = max(likeness, key=lambda prefix: likeness[prefix]) if likeness else "module."
    if not all(key.startswith(prefix) for key in keys):
        prefix = ""
    plain = {key.removeprefix(prefix): tensors[raw] for key, raw in keys.items()}
    return Weights(".".join(path) or TOP_LEVEL, plain, mapping, path, prefix)


def _likeness(tensors: Mapping[str, torch.Tensor]) -> Counter[str]:
    """Count the required keys under each prefix."""
    return Counter(
        key.removesuffix(required)
        for key in _without_wrappers(tensors)
        for required in REQUIRED
        if key == required or key.endswith(f".{required}")
    )


def _choose_named(found: Sequence[Weights], chosen: str, source: str) -> Weights:
    for weights in found:
        if weights.name == chosen:
            return weights
    fitting = [weights for weights in found if _is_end_of(chosen, weights.name)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(weights.name for weights in found) or "none"
    what = f'{len(fitting)} of the names begin or end with "{chosen}" (--weights); give the whole name'
    if not fitting:
        what = f'there are no weights of a YOLACT model with the name "{chosen}" (--weights)'
    raise CheckpointError(f"{source}: {what}; there are: {names}")


def _is_end_of(part: str, name: str) -> bool:
    """Return whether a name begins or ends with a part, in whole components."""
    return bool(part.strip(".")) and (name.startswith(f"{part}.") or name.endswith(f".{part}"))


def _choose_best(found: Sequence[Weights], content: object, source: str, command: str) -> tuple[Weights, str]:
    first = found[0]
    if all(are_equal(first, other) for other in found[1:]):
        return first, "all are equal"
    averaged = [weights for weights in found if is_averaged(weights, content)]
    if len(averaged) != 1:
        commands = "\n".join(f"  {command} {shlex.quote(source)} --weights {_quoted(weights)}" for weights in found)
        raise CheckpointError(
            f"{source}: {len(found)} sets of weights in the file fit equally, and differ; choose one:\n{commands}"
        )
    (average,) = averaged
    whole = [weights for weights in found if _num_statistics(weights)]
    if whole and not _num_statistics(average):
        raise CheckpointError(
            f"{source}: the moving average ({average.name}) has no batch norm statistics, so it is incomplete. "
            f"Save the state dict of the averaged model, or use the other weights: {command} {shlex.quote(source)} "
            f"--weights {_quoted(whole[0])}"
        )
    return average, "the moving average"


def _quoted(weights: Weights) -> str:
    return shlex.quote(weights.name)


def _num_statistics(weights: Weights) -> int:
    return sum(key.endswith(_BATCH_NORM) for key in weights.tensors)


def are_equal(a: Weights, b: Weights) -> bool:
    """Return whether two sets of weights have the same keys, dtypes and values."""
    if a.tensors.keys() != b.tensors.keys():
        return False
    try:
        return all(
            value.dtype == b.tensors[key].dtype and torch.equal(value, b.tensors[key])
            for key, value in a.tensors.items()
        )
    except (RuntimeError, NotImplementedError):  # sparse or quantised tensors, which are refused later
        return False


def is_averaged(weights: Weights, content: object) -> bool:
    """Return whether weights are a moving average, by their name or by what a framework is known to write."""
    top = content if isinstance(content, Mapping) else {}
    raw = [entry for sign, entry in _SWAPPED.items() if sign in top and entry in top]
    if raw:
        return weights.path[:1] == ("state_dict",)
    return bool(_AVERAGED & set(re.split(r"[^a-z]+", weights.name.lower())))


def _findings(weights: Weights, others: Sequence[str], reason: str, content: object) -> list[str]:
    findings = []
    if weights.path:
        top = content if isinstance(content, Mapping) else {}
        beside = sorted(str(key) for key in top if key != weights.path[0])
        findings.append(
            f'state dict from the entry "{".".join(weights.path)}"'
            + (f"; ignored beside it: {list_some(beside)}" if beside else "")
        )
    if weights.removed:
        findings.append(f'prefix "{weights.removed}" removed from every key')
    plain = [str(key) for key, value in weights.container.items() if not isinstance(value, Mapping | torch.Tensor)]
    if plain:
        findings.append(f"{len(plain)} entries beside its tensors ignored: {list_some(plain)}")
    if weights.ignored:
        findings.append(f"{len(weights.ignored)} tensors outside of the model ignored: {list_some(weights.ignored)}")
    if others:
        findings.append(
            f'weights "{weights.name}" are used ({reason}); the file also has {", ".join(others)} (--weights NAME)'
        )
    return findings
