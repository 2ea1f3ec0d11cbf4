"""Notes in this project's checkpoints, beside the tensors: input, priors, normalisation, class names.

The file stays a plain state dict with the published keys. The note is in the metadata that torch keeps with a state
dict (``_metadata``, where modules store their version): ``load_state_dict`` ignores it in any program, and it can be
read with ``weights_only=True`` because it contains nothing but text, numbers and lists.
"""

from __future__ import annotations

import dataclasses
import io
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from yolact_export.checkpoint.containers import mappings_in
from yolact_export.errors import CheckpointError, ConfigError
from yolact_export.model.config import Normalisation, YolactConfig
from yolact_export.model.registry import CONFIGS
from yolact_plugins.files import write_atomically

__all__ = ["ASSUMED", "CheckpointNote", "notes_in", "read_note", "read_note_of", "write_checkpoint"]

_KEY = "yolact_deploy"
_VERSION = 1
ASSUMED = "assumed"
"""Key in a note's provenance of what was assumed about the checkpoint that the model comes from."""


@dataclasses.dataclass(frozen=True)
class CheckpointNote:
    """Information about a model that its tensors do not contain.

    Attributes:
        config: Input and priors of the model; its structure is still inferred from the tensors.
        class_names: Names of the foreground classes.
        provenance: Origin of the model as text, by name.
    """

    config: YolactConfig
    class_names: tuple[str, ...]
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def over(self, base: YolactConfig) -> YolactConfig:
        """Return `base` with the settings of this note."""
        fields = ("name", "input_height", "input_width", "prior_scales_px", "aspect_ratios", "square_priors")
        values = {name: getattr(self.config, name) for name in (*fields, "normalisation")}
        return dataclasses.replace(base, **values)

    def _document(self) -> dict[str, Any]:
        config = self.config
        return {
            "version": _VERSION,
            "config": config.name,
            "input_height": config.input_height,
            "input_width": config.input_width,
            "prior_scales_px": [list(scales) for scales in config.prior_scales_px],
            "aspect_ratios": list(config.aspect_ratios),
            "square_priors": config.square_priors,
            "mean_bgr": list(config.normalisation.mean_bgr),
            "std_bgr": list(config.normalisation.std_bgr),
            "channel_order": config.normalisation.channel_order,
            "class_names": list(self.class_names),
            "provenance": dict(self.provenance),
        }


def write_checkpoint(path: Path, state_dict: Mapping[str, torch.Tensor], note: CheckpointNote) -> None:
    """Write a state dict with a note atomically.

    Args:
        path: Path of the ``.pth`` file, which is replaced if it exists.
        state_dict: Tensors under the published keys; written as dense CPU tensors.
        note: Note to write.
    """
    tensors = OrderedDict((key, value.detach().cpu().contiguous().clone()) for key, value in state_dict.items())
    tensors._metadata = {"": {"version": 1}, _KEY: note._document()}  # type: ignore[attr-defined]
    content = io.BytesIO()
    torch.save(tensors, content)
    write_atomically(path, content.getvalue())


def notes_in(content: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield every note in the result of ``torch.load``, unchecked, with the keys that lead to its dictionary."""
    for path, mapping in mappings_in(content):
        document = _document_of(mapping)
        if document is not None:
            yield path, document


def read_note(
    content: object, source: str, counts: Callable[[tuple[str, ...]], bool] = lambda _: True
) -> CheckpointNote | None:
    """Find the note in the result of ``torch.load``, however it is wrapped; return None for files without one.

    Args:
        content: Result of ``torch.load``.
        source: Name of the file, for messages.
        counts: Function that decides by the keys that lead to a dictionary whether its note counts; by default all do.

    Raises:
        CheckpointError: A note is damaged or of a later release; or several notes differ.
    """
    documents: list[tuple[tuple[str, ...], object]] = []
    for path, document in notes_in(content):
        if counts(path) and document not in (known for _, known in documents):
            documents.append((path, document))
    if len(documents) > 1:
        places = ", ".join(".".join(path) or "top level" for path, _ in documents)
        raise CheckpointError(
            f"{source}: {len(documents)} state dicts with notes that differ ({places}). Save one of them as a file of "
            f"its own"
        )
    return _checked_note(documents[0][1], source) if documents else None


def read_note_of(state_dict: Mapping[Any, Any], source: str) -> CheckpointNote | None:
    """Return the note of this state dict; None if it has none.

    Raises:
        CheckpointError: The note is damaged or of a later release.
    """
    document = _document_of(state_dict)
    return None if document is None else _checked_note(document, source)


def _document_of(mapping: Mapping[Any, Any]) -> object:
    metadata = getattr(mapping, "_metadata", None)
    return metadata.get(_KEY) if isinstance(metadata, Mapping) else None


def _checked_note(document: object, source: str) -> CheckpointNote:
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        found = document.get("version") if isinstance(document, dict) else type(document).__name__
        raise CheckpointError(
            f"{source}: its note has the version {found}, this release reads {_VERSION}; use the release that wrote it"
        )
    try:
        return _note(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ConfigError) as error:
        raise CheckpointError(f"{source}: its note is damaged: {error!r}") from error


def _note(document: Mapping[str, Any]) -> CheckpointNote:
    name = document["config"]
    if not isinstance(name, str):
        raise TypeError(f"config is a {type(name).__name__}")
    base = CONFIGS.get(name, next(iter(CONFIGS.values())))
    names = tuple(str(name) for name in document["class_names"])
    config = dataclasses.replace(
        base,
        name=name,
        num_classes=len(names) + 1,
        input_height=int(document["input_height"]),
        input_width=int(document["input_width"]),
        prior_scales_px=tuple(tuple(float(side) for side in scales) for scales in document["prior_scales_px"]),
        aspect_ratios=tuple(float(ratio) for ratio in document["aspect_ratios"]),
        square_priors=bool(document["square_priors"]),
        normalisation=Normalisation(
            _three(document["mean_bgr"]), _three(document["std_bgr"]), str(document["channel_order"])
        ),
    )
    return CheckpointNote(config, names, {str(k): str(v) for k, v in document["provenance"].items()})


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
