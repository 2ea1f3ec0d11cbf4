"""The content of an image's header, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLOAT_SAMPLES", "DamagedImageError", "ImageHeader"]

FLOAT_SAMPLES = (
    "its samples are floating-point numbers, and files do not state their value for white; write it with 8 bits, or "
    "with 16 and --bit-depth"
)


class DamagedImageError(ValueError):
    """An image file is damaged or truncated; the message says where."""


@dataclass(frozen=True)
class ImageHeader:
    """The content of an image's header.

    Attributes:
        width: Number of columns of pixels, as stored; 0 if the header does not state it.
        height: Number of rows of pixels, as stored; 0 if the header does not state it.
        sample_bits: Number of bits of a stored sample, at most 16 for integers.
        white: The largest possible sample value, as the file states it; None if it states nothing beyond `sample_bits`.
        significant_bits: Number of significant bits from a PNG's ``sBIT`` chunk if it is below `sample_bits`; 0
            otherwise.
        packed_bits: Number of bits of samples stored with 9 to 15 bits, which decoders put into the high bits of 16; 0
            for others.
        num_pictures: Number of frames of an animation, or of pages.
        min_bytes: Minimum size in bytes of an image of this size in this format; 0 if there is no minimum.
        not_read: The reason why such samples are not supported; empty if they are.
        is_negative: Whether zero is white, which decoders do not invert.
        exchanged: Position and bytes to replace before the file is decoded.
        orientation: EXIF orientation, 1 to 8, if some decoder versions ignore it; 1 if all of them apply it.
        variant: Further description of the variant, for the message if it cannot be decoded; may be empty.
    """

    width: int = 0
    height: int = 0
    sample_bits: int = 8
    white: int | None = None
    significant_bits: int = 0
    packed_bits: int = 0
    num_pictures: int = 1
    min_bytes: int = 0
    not_read: str = ""
    is_negative: bool = False
    exchanged: tuple[tuple[int, bytes], ...] = ()
    orientation: int = 1
    variant: str = ""
