"""Checks that all pixels of a TIFF are in the file and match their checksums."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from yolact_runtime.formats.image_header import DamagedImageError

__all__ = ["check_deflated", "check_places"]

_PIECE_BYTES = 1 << 20
"""Number of bytes inflated at once; pixels are not kept here."""


def check_places(places: Iterable[tuple[int, int]], size: int) -> None:
    """Check that strips or tiles lie inside the file.

    Args:
        places: Position and length of each strip or tile.
        size: Size of the file in bytes.

    Raises:
        DamagedImageError: A strip or tile ends beyond the file.
    """
    end = max((start + length for start, length in places), default=0)
    if end > size:
        raise DamagedImageError(f"cut short: its pixels end at byte {end} of {size}")


def check_deflated(content: memoryview, places: Iterable[tuple[int, int]]) -> None:
    """Check strips or tiles that are compressed with Deflate against the checksums at their ends.

    libtiff stops when it has enough pixels, before the checksum.

    Raises:
        DamagedImageError: A checksum does not match.
    """
    for start, length in places:
        inflater = zlib.decompressobj()
        rest: bytes | memoryview = content[start : start + length]
        try:
            while rest and not inflater.eof:
                inflater.decompress(rest, _PIECE_BYTES)
                rest = inflater.unconsumed_tail
        except zlib.error as error:
            raise DamagedImageError(f"damaged: the pixels at byte {start} cannot be inflated ({error})") from error
