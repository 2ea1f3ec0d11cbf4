"""Whose note counts for the weights that were taken, where a file has several sets of weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from yolact_export.checkpoint.note import CheckpointNote, notes_in, read_note, read_note_of
from yolact_export.checkpoint.weights import Weights, are_equal, is_averaged

__all__ = ["ChosenNote", "choose_note"]

_Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ChosenNote:
    """The note of the weights that were taken.

    Attributes:
        note: None where there is none that counts.
        findings: A line where it is the note of other weights, or where other weights alone have one.
        elsewhere: Names of other weights that have a note, where none counts.
    """

    note: CheckpointNote | None
    findings: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()


def choose_note(content: object, weights: Weights, source: str) -> ChosenNote:
    """Find the note that tells how these weights are fed.

    It lies in their own dictionary, or else in one around them or without weights, or else with weights that are fed
    alike: their moving average, the model that they are the average of, or equal ones. The note of any other weights
    would give wrong boxes without a word.

    Args:
        content: What ``torch.load`` returned.
        weights: Those taken from it.
        source: The file, for messages.

    Raises:
        CheckpointError: A note that counts is of a later release or damaged; or several do, and differ.
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
        line = f'the note of "{name}" taken for "{weights.name}", which has none: {reason}'
        return ChosenNote(read_note(content, source, lambda path: path in alike), (line,))
    elsewhere = tuple(dict.fromkeys(owner.name for names in owners.values() for owner in names))
    shown = ", ".join(f'"{name}"' for name in elsewhere)
    return ChosenNote(None, (f'note of {shown} ignored: it says nothing of "{weights.name}"',), elsewhere)


def _owners(path: _Path, models: Sequence[Weights]) -> Sequence[Weights]:
    """The weights that a note at this place belongs to: those in its dictionary, or else inside of it, or beside it."""
    if direct := [model for model in models if model.path == path]:
        return direct
    depths = range(len(path), -1, -1)
    inside = ([model for model in models if model.path[:depth] == path[:depth]] for depth in depths)
    return next(filter(None, inside))


def _why_alike(a: Weights, b: Weights, models: Sequence[Weights], content: object) -> str:
    """Why two sets of weights are fed alike: they are equal, or one is the moving average of the other; or nothing.

    An average is one of a certain model only where no second one in the file has its keys and shapes.
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
