"""What the header of an image states, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLOAT_SAMPLES", "DamagedImageError", "ImageHeader"]

FLOAT_SAMPLES = (
    "its samples are floating-point numbers, and no file states which of them is white; write it with 8 bits, or with "
    "16 and --bit-depth"
)


class DamagedImageError(ValueError):
    """An image file is damaged or cut short; the message says where."""


@dataclass(frozen=True)
class ImageHeader:
    """What a header states.

    Attributes:
        width: Columns of pixels, as stored; 0 where the header does not say.
        height: Rows of pixels, as stored; 0 where the header does not say.
        sample_bits: Bits of a stored sample, at most 16 for integers.
        white: The largest value that a sample can have, as the file states it; None where it states nothing beyond
            `sample_bits`.
        significant_bits: As ``sBIT`` of a PNG states it, where there are fewer than `sample_bits`; 0 otherwise.
        packed_bits: Bits of samples that are stored with 9 to 15, which decoders put into the high bits of 16; 0 for
            others.
        num_pictures: Frames of an animation, or pages.
        min_bytes: Fewer bytes cannot hold so many pixels in this format; 0 where anything can.
        not_read: Why samples of this kind are not read; empty where they are.
        is_negative: Zero is white, and decoders do not turn it round.
        exchanged: Position and bytes that are to be exchanged before the file is decoded.
        orientation: 1 to 8 as in EXIF, where decoders of some versions do not look; 1 where all of them do.
        variant: What else tells files of a format apart, for the message if it is not decoded; may be empty.
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
