r"""Reading of text and JSON from people and other programs: correctly, or with an error that states the reason.

Editors on Windows write byte-order marks, UTF-16 and ``\r\n``; programs write NaN, lone surrogates and endless nesting.
All text from outside the project is read here, so that a class is never called ``"\ufeffdisc"``. Text that the project
writes for itself within one run (messages between its processes, profiles of ONNX Runtime) and what the kernel reports
in ``/proc`` are exempt.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from yolact_plugins.errors import TextError
from yolact_plugins.files import human_size

__all__ = [
    "MAX_BYTES",
    "decode_json",
    "decode_text",
    "printable",
    "read_bytes",
    "read_json",
    "read_text",
    "unprintable",
]

MAX_BYTES = 4 << 30
"""Maximum file length in bytes: COCO's largest annotation file has half a gigabyte, and ``/dev/zero`` has no end."""

# The UTF-32 mark in little-endian order begins with the UTF-16 mark, so it comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# First bytes of binary files that users confuse with the text file they mean.
_BINARIES = (
    (b"\x1f\x8b", "compressed by gzip; unpack it: gunzip"),
    (b"BZh91AY&SY", "compressed by bzip2; unpack it: bunzip2"),
    (b"\xfd7zXZ\0", "compressed by xz; unpack it: unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it: unzstd"),
    (b"PK\3\4", "a ZIP archive; unpack it, and give the file in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it, and give the file in it"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF-", "a PDF"),
)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Control characters (escape sequences, line ends), lone surrogates, and line and paragraph separators change a terminal
# or a line. Of the format characters, only those that reorder the surrounding text, and the byte-order mark, are
# listed: joiners are part of words and emoji.
_UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_UNPRINTABLE_FORMATS = frozenset("\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BLOCK = 1 << 20


def decode_text(content: bytes, source: str) -> str:
    r"""Decode UTF-8, or UTF-16 or UTF-32 with a byte-order mark.

    Args:
        content: The bytes of the whole file.
        source: The file's name, for messages.

    Returns:
        The text without the mark, with ``\n`` at the end of each line.

    Raises:
        TextError: The content is not text in one of these encodings.
    """
    if (kind := next((name for start, name in _BINARIES if content.startswith(start)), None)) is not None:
        raise TextError(f"{source} is not text: it is {kind}")
    mark, encoding = next(((m, name) for m, name in _MARKS if content.startswith(m)), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(
            f"{source} is not text in {encoding.upper()}: byte {len(mark) + error.start} {_found(error)}. Save it as "
            f"UTF-8"
        ) from error
    if "\0" in text:
        raise TextError(
            f"{source} is not text: it has zero bytes, as a binary file has, or UTF-16 without a byte-order mark. Save "
            f"it as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _found(error: UnicodeDecodeError) -> str:
    return f"is 0x{error.object[error.start]:02x} ({error.reason})"


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """Read a text file; see :func:`decode_text`.

    Args:
        path: The file, or a pipe, which is read to its end.
        max_bytes: Maximum number of bytes to read.

    Raises:
        TextError: The file cannot be read, is longer, or is not text.
    """
    return decode_text(read_bytes(path, max_bytes), printable(str(path)))


def unprintable(text: str) -> str | None:
    """Return the first character that a name must not contain, such as ``U+001B``; None if there is none.

    Forbidden are control characters, line ends of every kind, lone surrogates, byte-order marks, and marks that reorder
    the surrounding text. They break log lines, control terminals, or make two names look the same.
    """
    if text.isprintable():
        return None
    import unicodedata  # Rarely needed, and importing it would slow down every import of the runtime.

    for character in text:
        if unicodedata.category(character) in _UNPRINTABLE_CATEGORIES or character in _UNPRINTABLE_FORMATS:
            return f"U+{ord(character):04X}"
    return None


def printable(text: str) -> str:
    r"""Escape every character that :func:`unprintable` finds, as in ``\x1b`` or ``\udcff``.

    For messages and documents that name files and classes: a file name may contain anything, including control
    sequences and bytes that are not UTF-8, which Python represents as lone surrogates and refuses to encode.
    """
    if unprintable(text) is None:
        return text
    return "".join(
        character if unprintable(character) is None else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def decode_json(content: bytes, source: str, *, allow_nan: bool = False) -> Any:
    """Decode a JSON document; see :func:`decode_text`.

    Args:
        content: The bytes of the whole file.
        source: The file's name, for messages.
        allow_nan: If True, ``NaN``, ``Infinity`` and numbers beyond float64 become non-finite floats, for callers that
            check each field. JSON itself has no such values.

    Raises:
        TextError: The content is not text or not JSON, is nested too deeply, repeats a key in one object, or contains a
            lone surrogate or a non-finite number.
    """
    text = decode_text(content, source)
    kinds: dict[str, Any] = {} if allow_nan else {"parse_constant": _refuse_constant, "parse_float": _finite}
    try:
        document = json.loads(text, object_pairs_hook=_unique, **kinds)
    except RecursionError:
        raise TextError(f"{source}: nested too deep to be read") from None
    except json.JSONDecodeError as error:
        raise TextError(f"{source}: not JSON: {_no_json(text, error)}") from error
    except ValueError as error:
        raise TextError(f"{source}: not JSON: {error}") from error
    # Surrogates reach a document through escapes only: UTF-8 and UTF-16 with lone surrogates do not decode.
    if _ESCAPED_SURROGATE.search(text) and (lone := _lone_surrogate(document)) is not None:
        raise TextError(
            f"{source}: {json.dumps(lone)[:60]} holds half of a surrogate pair, which is not a character; correct it"
        )
    return document


def _no_json(text: str, error: json.JSONDecodeError) -> str:
    """Explain why a text is not a JSON document, or where it stops being one."""
    begin = text.lstrip()
    if not begin:
        return "it is empty"
    if begin.startswith("version https://git-lfs"):
        return "it is the pointer that Git LFS keeps in the place of a large file; fetch the file: git lfs pull"
    if begin.startswith("<"):
        return "it is XML or HTML"
    place = f"line {error.lineno}, column {error.colno}: {error.msg}"
    if error.msg == "Extra data" and begin[0] in "{[":
        return f"{place}; the file holds several documents, as JSON Lines does, instead of one"
    # An unterminated string is reported at its beginning and may extend to the end of the text.
    is_open = error.msg.startswith("Unterminated string") and "\n" not in text[error.pos :].rstrip("\n")
    if is_open or not text[error.pos :].strip():
        return f"{place}; the file appears to be truncated"
    return place


def read_json(path: Path, *, allow_nan: bool = False, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON file; see :func:`decode_json`.

    Args:
        path: The file, or a pipe, which is read to its end.
        allow_nan: If True, non-finite numbers are accepted; see :func:`decode_json`.
        max_bytes: Maximum number of bytes to read.

    Raises:
        TextError: The file cannot be read, is longer, or is not valid JSON.
    """
    return decode_json(read_bytes(path, max_bytes), printable(str(path)), allow_nan=allow_nan)


def read_bytes(path: Path, max_bytes: int = MAX_BYTES, *, what: str = "") -> bytes:
    """Read a file's bytes for :func:`decode_text` or :func:`decode_json`.

    Args:
        path: The file, or a pipe, which is read to its end.
        max_bytes: Maximum number of bytes to read.
        what: Words that precede the path in messages.

    Raises:
        TextError: The file cannot be read, is longer, or is a device other than ``/dev/null``.
    """
    too_long = TextError(f"{printable(str(path))} is longer than {human_size(max_bytes)}: it cannot be the right file")
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                if status.st_size > max_bytes:
                    raise too_long
                return file.read()
            if not stat.S_ISFIFO(status.st_mode) and not stat.S_ISSOCK(status.st_mode) and file.read(1):
                raise TextError(f"cannot read {what}{printable(str(path))}: it is a device, not a file")
            # A pipe does not report its length, and may be endless.
            blocks, length = [], 0
            while block := file.read(_BLOCK):
                blocks.append(block)
                length += len(block)
                if length > max_bytes:
                    raise too_long
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TextError(f"cannot read {what}{printable(str(path))}: {reason}") from error
    return b"".join(blocks)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {json.dumps(repeated)[:60]} twice, and only one can be meant")
    return made


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a number")


def _lone_surrogate(document: Any) -> str | None:
    """Return the first string with a lone surrogate, keys included."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if _SURROGATE.search(value):
                return value
        elif isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return None
