"""Wheels made portable: unpacked, compressed together, and split into parts that can be carried one by one."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from yolact_runtime.errors import UsageError

__all__ = ["RTX_PARTS", "SUITE_PARTS", "compress_wheels", "join_parts", "split_parts", "write_parts"]

RTX_PARTS, SUITE_PARTS = "tensorrt-rtx", "test-suites"
# A filter for x86 code, and a window that covers most of a library: 8 % smaller than the defaults of xz.
_FILTERS = ({"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 128 << 20})
_NAME = "{name}-{index:03d}-of-{count:03d}.part"


def compress_wheels(wheels: Sequence[Path]) -> bytes:
    """Compress the contents of wheels into one archive; xz saves a third over the deflate of wheels."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for wheel in sorted(wheels):
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir():
                        member = tarfile.TarInfo(entry.filename)
                        member.size = entry.file_size
                        tar.addfile(member, archive.open(entry))
    return lzma.compress(raw.getvalue(), filters=_FILTERS)


def split_parts(content: bytes, rooms: Sequence[int]) -> list[bytes]:
    """Split content into parts of given sizes.

    Args:
        content: Archive from :func:`compress_wheels`.
        rooms: Bytes that fit into each part; the last part takes the rest, whatever its size.
    """
    parts = []
    for room in rooms[:-1]:
        parts.append(content[: max(room, 0)])
        content = content[max(room, 0) :]
    return [*parts, content]


def write_parts(folders: Sequence[Path], name: str, parts: Sequence[bytes]) -> None:
    """Write a part into each folder, named so that :func:`join_parts` can tell whether any is missing."""
    for index, (folder, part) in enumerate(zip(folders, parts, strict=True)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _NAME.format(name=name, index=index, count=len(parts))).write_bytes(part)


def join_parts(pack: Path, name: str, site: Path) -> None:
    """Unpack parts into a folder for ``PYTHONPATH``.

    Args:
        pack: Folder whose subfolders have the parts.
        name: Name that was given to :func:`write_parts`.
        site: Folder to unpack into; it is created if missing.

    Raises:
        UsageError: A part is missing, or one is damaged.
    """
    ordered = sorted(pack.glob(f"*/{name}-*.part"), key=lambda path: path.name)
    if not ordered:
        raise UsageError(f"{pack} holds no part of {name}; make it with: python -m yolact_benchmarks.studies.gpu pack")
    expected = int(ordered[0].stem.rpartition("-")[2])
    if len(ordered) != expected:
        raise UsageError(f"{len(ordered)} of {expected} parts of {name} are in {pack}; carry both halves of the pack")
    try:
        content = lzma.decompress(b"".join(path.read_bytes() for path in ordered))
    except lzma.LZMAError as error:
        raise UsageError(f"the parts {', '.join(path.name for path in ordered)} are damaged: {error}") from error
    site.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(site, filter="data")
