"""Choice of the note for the chosen weights, in a file with several sets of weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from yolact_export.checkpoint.note import CheckpointNote, notes_in, read_note, read_note_of
from yolact_export.checkpoint.weights import Weights, are_equal, is_averaged

__all__ = ["ChosenNote", "choose_note"]

_Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ChosenNote:
    """Note of the chosen weights.

    Attributes:
        note: Note that counts, or None.
        findings: Line that reports that the note belongs to other weights, or that only other weights have one.
        elsewhere: Names of other weights that have a note, if none counts.
    """

    note: CheckpointNote | None
    findings: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()


def choose_note(content: object, weights: Weights, source: str) -> ChosenNote:
    """Find the note that describes the input of these weights.

    It is in their own dictionary, or else in one around them or without weights, or else with weights that have the
    same input: their moving average, the model that they are the average of, or equal ones. The note of any other
    weights would silently give wrong boxes.

    Args:
        content: Result of ``torch.load``.
        weights: Weights chosen from it.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: A note that counts is damaged or of a later release; or several count, and differ.
    """
    note = read_note_of(weights.container, source)
    if note is not None:
        return ChosenNote(note)
    models = (weights, *weights.others)
    owners = {path: _owners(path, models) for path, _ in notes_in(content)}
    note = read_note(content, source, lambda path: any(owner is weights for owner in owners[path]))
    if note is not None or not owners:
        return ChosenNote(note)
    alike = {
        path: (owner.name, reason)
        for path, names in owners.items()
        for owner in names
        if (reason := _why_alike(weights, owner, models, content))
    }
    documents = [document for path, document in notes_in(content) if path in alike]
    if documents and all(document == documents[0] for document in documents):
        name, reason = next(iter(alike.values()))
        line = f'the note of "{name}" is used for "{weights.name}", which has none: {reason}'
        return ChosenNote(read_note(content, source, lambda path: path in alike), (line,))
    elsewhere = tuple(dict.fromkeys(owner.name for names in owners.values() for owner in names))
    shown = ", ".join(f'"{name}"' for name in elsewhere)
    return ChosenNote(None, (f'note of {shown} ignored: it does not describe "{weights.name}"',), elsewhere)


def _owners(path: _Path, models: Sequence[Weights]) -> Sequence[Weights]:
    """Return the weights that a note belongs to: those in its dictionary, else inside it, else beside it."""
    if direct := [model for model in models if model.path == path]:
        return direct
    depths = range(len(path), -1, -1)
    inside = ([model for model in models if model.path[:depth] == path[:depth]] for depth in depths)
    return next(filter(None, inside))


def _why_alike(a: Weights, b: Weights, models: Sequence[Weights], content: object) -> str:
    """Return why two sets of weights have the same input, because they are equal or a model and its average; else "".

    An average belongs to a certain model only if no second one in the file has its keys and shapes.
    """
    if are_equal(a, b):
        return "their tensors are equal"
    shapes = _shapes(a)
    if _shapes(b) != shapes or is_averaged(a, content) == is_averaged(b, content):
        return ""
    plain = [model for model in models if not is_averaged(model, content) and _shapes(model) == shapes]
    return "a model and its moving average" if len(plain) == 1 else ""


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in weights.tensors.items()}
