"""Conversion of pickles of other protocols for torch's restricted reader, which knows protocol 2 only.

The operations are translated one by one; nothing in a pickle is executed here, and what the restricted reader refuses
in protocol 2 it still refuses afterwards.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from yolact_calibration.training.torch_file import ZIP_MAGIC, TorchFileCheck

__all__ = ["rewritten_for_torch"]

# The format before torch 1.6 is five pickles, then the values: this number, version, system, content, keys of values.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 5
_PROTOCOL = b"\x80\x02"
_BYTES_OF_TEXT = b"c_codecs\nencode\n"


def rewritten_for_torch(path: Path, check: TorchFileCheck) -> io.BytesIO | None:
    """Return a copy in memory whose pickles use protocol 2; None if they already do, or cannot be translated.

    Compressed records are stored uncompressed in it: they were compared with their checksums, and torch has a reader of
    its own for them, which trusts other fields of a damaged directory.

    Args:
        path: Path of a file that torch wrote.
        check: Result of checking its checksums.
    """
    try:
        if check.names:
            return _rewritten_zip(path, check)
        with path.open("rb") as file:
            head = file.read(32)
        if head.startswith((_PROTOCOL, ZIP_MAGIC)) or not _is_legacy(head):
            return None
        return _rewritten_legacy(path.read_bytes())
    # Damaged files are left to torch's reader, which reports them.
    except (
        ValueError,
        LookupError,
        OverflowError,
        EOFError,
        RuntimeError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ):
        return None


def _rewritten_zip(path: Path, check: TorchFileCheck) -> io.BytesIO | None:
    (pickled,) = (name for name in check.names if name.endswith("/data.pkl"))
    with zipfile.ZipFile(path) as archive:
        content = archive.read(pickled)
        is_readable = content.startswith(_PROTOCOL)
        if is_readable and not check.is_compressed:
            return None
        translated = content if is_readable else _translated(content, 0)[0]
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as copy:
            for name in check.names:
                copy.writestr(name, translated if name == pickled else archive.read(name))
    target.seek(0)
    return target


def _is_legacy(head: bytes) -> bool:
    """Return whether a file begins with the number of the format before torch 1.6, in any protocol."""
    for opcode, argument, _ in pickletools.genops(head):
        if opcode.name in ("LONG", "LONG1"):
            return bool(argument == _LEGACY_MAGIC)
    return False


def _rewritten_legacy(content: bytes) -> io.BytesIO:
    target, start = io.BytesIO(), 0
    for _ in range(_LEGACY_PICKLES):
        translated, start = _translated(content, start)
        target.write(translated)
    target.write(content[start:])
    target.seek(0)
    return target


def _translated(content: bytes, start: int) -> tuple[bytes, int]:
    """Translate one pickle to protocol 2; return it and its end in `content`."""
    stream = io.BytesIO(content)
    stream.seek(start)
    operations = [(opcode.name, argument, position) for opcode, argument, position in pickletools.genops(stream)]
    end = stream.tell()
    ends = [position for *_, position in operations[1:]] + [end]
    translation = _Translation()
    for (name, argument, position), stop in zip(operations, ends, strict=True):
        translation.add(name, argument, content[position:stop])
    return translation.finished(), end


class _Translation:
    """Sequence of translated operations in protocol 2.

    Texts are held back until it is known whether they name a global (STACK_GLOBAL takes two of them from the stack,
    which protocol 2 writes into the operation). They are never stored in the memo: references to one become the text
    again.
    """

    def __init__(self) -> None:
        self._done = [_PROTOCOL]
        self._waiting: list[str] = []
        self._texts: dict[int, str] = {}
        self._num_stored = 0
        self._after_text = False

    def add(self, name: str, argument: Any, raw: bytes) -> None:
        """Translate one operation."""
        if name in ("PROTO", "FRAME"):
            return
        if "UNICODE" in name or ("GET" in name and argument in self._texts):
            self._waiting.append(self._texts[argument] if "GET" in name else argument)
            self._after_text = True
        elif name == "MEMOIZE" or "PUT" in name:
            self._store(self._num_stored if name == "MEMOIZE" else argument)
        elif name == "STACK_GLOBAL":
            module, attribute = self._waiting[-2:]
            del self._waiting[-2:]
            self._emit(f"c{module}\n{attribute}\n".encode())
        else:
            self._emit(self._plain(name, argument, raw))

    def finished(self) -> bytes:
        """Return the translated pickle."""
        return b"".join(self._done)

    def _store(self, number: int) -> None:
        self._num_stored += 1
        if self._after_text:
            self._texts[number] = self._waiting[-1]
        else:
            self._texts.pop(number, None)
            self._emit(pickle.LONG_BINPUT + struct.pack("<I", number))

    def _emit(self, operation: bytes) -> None:
        self._done += [_text(text) for text in self._waiting]
        self._waiting.clear()
        self._done.append(operation)
        self._after_text = False

    @staticmethod
    def _plain(name: str, argument: Any, raw: bytes) -> bytes:
        if "BINBYTES" in name:
            return _BYTES_OF_TEXT + _text(argument.decode("latin1")) + _text("latin1") + pickle.TUPLE2 + pickle.REDUCE
        if "GET" in name:
            return pickle.LONG_BINGET + struct.pack("<I", argument)
        if name in ("INT", "LONG", "LONG4"):
            return _integer(argument)
        if name == "FLOAT":
            return pickle.BINFLOAT + struct.pack(">d", argument)
        return raw


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if isinstance(value, bool):
        return pickle.NEWTRUE if value else pickle.NEWFALSE
    encoded = pickle.encode_long(value)
    return pickle.LONG1 + struct.pack("<B", len(encoded)) + encoded
