"""Wheels made portable: unpacked, compressed together, and split into parts small enough to carry one by one."""

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
# Native code of x86, and a window that sees most of a library at once: 8 % smaller than xz by itself.
_FILTERS = ({"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 128 << 20})
_NAME = "{name}-{index:03d}-of-{count:03d}.part"


def compress_wheels(wheels: Sequence[Path]) -> bytes:
    """The contents of wheels in one archive; xz takes a third off native libraries that deflate has compressed."""
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
    """Fill rooms one after another.

    Args:
        content: From :func:`compress_wheels`.
        rooms: Bytes that there are for each part; the last part takes what is left, however much.
    """
    parts = []
    for room in rooms[:-1]:
        parts.append(content[: max(room, 0)])
        content = content[max(room, 0) :]
    return [*parts, content]


def write_parts(folders: Sequence[Path], name: str, parts: Sequence[bytes]) -> None:
    """Write a part into each folder, named so that :func:`join_parts` knows whether all are there."""
    for index, (folder, part) in enumerate(zip(folders, parts, strict=True)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _NAME.format(name=name, index=index, count=len(parts))).write_bytes(part)


def join_parts(pack: Path, name: str, site: Path) -> None:
    """Unpack parts into a folder for ``PYTHONPATH``.

    Args:
        pack: In whose folders the parts lie.
        name: Of :func:`write_parts`.
        site: Made if it is missing.

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
