"""Conversion of JSON documents to manifest dataclasses.

Every field is present, of the right type, and within limits.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from yolact_plugins import __version__
from yolact_plugins.compile.manifest_entry import MAX_MANIFEST_BYTES, OLDEST_VERSION, SCHEMA_VERSION, migrated
from yolact_plugins.text import decode_json, unprintable
from yolact_runtime.errors import ManifestError, TextError
from yolact_runtime.model.manifest_limits import (
    MAX_CLASSES,
    MAX_ENTRIES,
    MAX_LEVELS,
    plain,
    require_length,
    shown,
)

__all__ = ["decode_manifest"]

_T = typing.TypeVar("_T")
_CLASS_NAMES = "manifest.class_names"


def decode_manifest(kind: type[_T], content: bytes, source: str) -> _T:
    """Parse and validate a document.

    The cost is bounded before the content is parsed: long lists are rejected by their length.

    Args:
        kind: Dataclass of the manifest.
        content: JSON document of this or an earlier schema version.
        source: Origin of the document, for error messages.

    Raises:
        ManifestError: The document is not JSON, its schema version is unknown, a field is missing or invalid, or a
            number or a list exceeds the limits of any model.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestError(
            f"{source}: {len(content)} bytes are too long for a manifest, which has at most {MAX_MANIFEST_BYTES}"
        )
    try:
        document = decode_json(content, source, allow_nan=True)  # each field is judged below
    except TextError as error:
        raise ManifestError(f"{error}; it should be a manifest: export again, or copy the file again") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{source}: the manifest must be a JSON object, found {type(document).__name__}")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION and not (type(version) is int and OLDEST_VERSION <= version < SCHEMA_VERSION):
        raise ManifestError(f"{source}: {_unknown_version(version, document)}")
    try:
        return typing.cast("_T", _decode(kind, migrated(document), "manifest"))
    except ManifestError as error:
        raise ManifestError(f"{source}: {error}") from error


def _unknown_version(version: object, document: Mapping[str, Any]) -> str:
    reads = f"this release, {__version__}, reads versions {OLDEST_VERSION} to {SCHEMA_VERSION}"
    provenance = document.get("provenance")
    writer = provenance.get("yolact-deploy") if isinstance(provenance, dict) else None
    named = isinstance(writer, str) and 0 < len(writer) <= 40 and unprintable(writer) is None
    by = f"yolact-deploy {writer}" if named else ""
    if type(version) is int and version > SCHEMA_VERSION:
        return (
            f"manifest schema version {shown(version)}, of {f'{by}, ' if by else ''}a newer release; {reads}. Install "
            f"{by or 'the release that wrote it'}, or export the checkpoint again with this one"
        )
    return (
        f"manifest schema version {shown(version)} is not one of any release{f' ({by} wrote this)' if by else ''}; "
        f"{reads}. Copy the file again, or export the checkpoint again"
    )


def _decode(kind: Any, value: Any, where: str) -> Any:
    """Convert a value of a JSON document to the annotated type `kind`, recursively checked."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        # The only kind of union: a type or None, which documents omit.
        return None if value is None else _decode(arguments[0], value, where)
    if origin is tuple:
        return _decode_tuple(arguments, value, where)
    if origin in {Mapping, dict}:
        if not isinstance(value, dict):
            raise ManifestError(f"{where} must be an object, found {type(value).__name__}")
        require_length(where, value, MAX_ENTRIES)
        return {key: _decode(arguments[1], item, f"{where}.{plain(key)}") for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _decode_float(value, where)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ManifestError(f"{where} must be {kind.__name__}, found {shown(value)}")
    return value


def _decode_float(value: float, where: str) -> float:
    """Convert a number: Python's JSON allows NaN, infinities, and integers of any length."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ManifestError(f"{where} must be a finite number, found {number}")
    return number


def _decode_dataclass(kind: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ManifestError(f"{where} must be an object, found {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    optional = {name for name in names if typing.get_origin(hints[name]) is types.UnionType}
    if missing := [name for name in names if name not in value and name not in optional]:
        raise ManifestError(f"{where} lacks {', '.join(missing)}")
    if unknown := sorted(set(value) - set(names)):
        raise ManifestError(f"{where} has unknown fields {plain(', '.join(unknown))}")
    return kind(**{name: _decode(hints[name], value[name], f"{where}.{name}") for name in names if name in value})


def _decode_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ManifestError(f"{where} must be a list, found {type(value).__name__}")
    # Checked before the entries are converted, of which a document of maximum length has millions.
    require_length(where, value, MAX_CLASSES if where == _CLASS_NAMES else MAX_LEVELS)
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ManifestError(f"{where} must have {len(arguments)} entries, found {len(value)}")
    return tuple(
        _decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )
