"""The file of ``--class-names``: one name per line, or a JSON list."""

from __future__ import annotations

import json
from pathlib import Path

from yolact_export.errors import UsageError
from yolact_plugins.text import decode_json, printable, read_text, unprintable
from yolact_runtime.errors import TextError

__all__ = ["read_class_names"]

_MAX_BYTES = 16 << 20


def read_class_names(path: Path) -> tuple[str, ...]:
    r"""Read the names of the foreground classes, in the order of the file.

    A file that begins with ``[`` is a JSON list, whose names are taken unchanged. Any other file has one name per line:
    spaces around it are dropped, and so are empty lines at the end. Encodings and line ends are those of
    :func:`yolact_plugins.text.decode_text`.

    Args:
        path: The file, or a pipe.

    Raises:
        UsageError: The file cannot be read or holds no names, or a name is empty, occurs twice, or has control
            characters. The message names the line, or the entry of the list.
    """
    shown = printable(str(path))
    try:
        text = read_text(path, max_bytes=_MAX_BYTES)
        start = text.lstrip()[:1]
        places = _in_list(text, shown) if start == "[" else _in_lines(text)
    except TextError as error:
        raise UsageError(f"--class-names: {error}") from error
    if start == "{":
        raise UsageError(f"--class-names: {shown} is a JSON object; it takes a JSON list of names, or a name a line")
    if not places:
        raise UsageError(f"--class-names: {shown} holds no names")
    first: dict[str, str] = {}
    for place, name in places:
        if fault := _fault(name, first):
            raise UsageError(f"--class-names: {shown}, {place}: {fault}")
        first[name] = place
    return tuple(first)


def _in_lines(text: str) -> list[tuple[str, str]]:
    lines = text.rstrip().split("\n") if text.strip() else []
    return [(f"line {number}", line.strip()) for number, line in enumerate(lines, 1)]


def _in_list(text: str, source: str) -> list[tuple[str, str]]:
    document = decode_json(text.encode(), source)
    places = [(f"entry {number}", name) for number, name in enumerate(document, 1)]
    for place, name in places:
        if not isinstance(name, str):
            raise TextError(f"{source}, {place}: {json.dumps(name)[:60]} is not a string; every entry is a class name")
    return places


def _fault(name: str, first: dict[str, str]) -> str | None:
    shown = json.dumps(name)[:60]
    if not name.strip():
        return "there is no name, and the classes after it would be numbered wrong; name that class, or remove it"
    if (character := unprintable(name)) is not None:
        return f"{shown} has the character {character}, which a name cannot contain; remove it"
    if name in first:
        return f"{shown} occurs already, in {first[name]}; every class needs a name of its own"
    return None
