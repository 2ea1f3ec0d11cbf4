"""Checks of a checkpoint's pickle before torch reads it: sizes of storages, and lengths of class names.

``torch.load(mmap=True)`` does not compare a storage with its record: one that claims more reads beyond it, and its
tensors are silently wrong. The reader without a mapping compares, but reads everything into memory. The time that torch
takes to refuse a class or function grows with the square of the length of its name: seconds at ten thousand characters.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

__all__ = ["find_long_name", "find_wrong_size"]

_MAX_NAME = 1000
# The format of torch < 1.6 is five pickles, then the values.
_LEGACY_PICKLES = 5
# Bytes per item, by the class of the storage; an untyped one counts bytes, and newer types are written as that.
_ITEM_BYTES = {
    **dict.fromkeys(
        ("UntypedStorage", "BoolStorage", "ByteStorage", "CharStorage", "QInt8Storage", "QUInt8Storage"), 1
    ),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    "ComplexDoubleStorage": 16,
}


def find_wrong_size(path: Path) -> str:
    """Describe the first storage whose size differs from its record; return an empty string if none does.

    No code of the pickle is run: every class and function in it is replaced by an inert one. Whatever cannot be
    understood is left to torch's reader, which reports it.

    Args:
        path: Path of a zip file that torch wrote, with uncompressed records.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            reader = _StorageReader(io.BytesIO(archive.read(pickled)))
            reader.load()
            folder = pickled.removesuffix("data.pkl") + "data/"
            sizes = {info.filename: info.file_size for info in archive.infolist()}
    except _LongNameError as error:
        return str(error)
    except Exception:  # pickle raises nearly anything for damaged data
        return ""
    for key, claimed_bytes in reader.claimed:
        found = sizes.get(folder + key)
        if found is not None and found != claimed_bytes:
            return f'the pickle claims {claimed_bytes} bytes for the record "{folder}{key}", which has {found}'
    return ""


def find_long_name(path: Path) -> str:
    """Describe the first excessively long name in a file of torch < 1.6; else return an empty string."""
    try:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                _StorageReader(file).load()
    except _LongNameError as error:
        return str(error)
    except Exception:  # as above
        return ""
    return ""


class _LongNameError(Exception):
    """A name is too long for a class or function."""


class _Inert:
    """Inert substitute for every object of a pickle, which accepts all operations and does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> _Inert:
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass

    def add(self, value: object) -> None:
        pass


class _StorageReader(pickle._Unpickler):
    """Unpickler that collects the storages that a pickle names.

    It is Python's unpickler, like torch's own: the one in C allocates a memo as long as the largest number in the
    pickle, so eleven bytes could take all of the memory.

    Attributes:
        claimed: Key of the record and size in bytes of each storage.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.claimed: list[tuple[str, int]] = []

    def find_class(self, module: str, name: str) -> Any:
        """Return the item size for the name of one of torch's storages, and an inert class for all others."""
        if len(module) + len(name) > _MAX_NAME:
            raise _LongNameError(f"the pickle names a class or function with {len(module) + len(name)} characters")
        return _ITEM_BYTES.get(name, _Inert) if module in {"torch", "torch.storage"} else _Inert

    def persistent_load(self, pid: Any) -> _Inert:
        """Record a storage ``("storage", type, key, device, number of items)``."""
        kind, item_size, key, _, num_items = pid
        if kind == "storage" and isinstance(item_size, int) and type(num_items) is int:
            self.claimed.append((str(key), item_size * num_items))
        return _Inert()
