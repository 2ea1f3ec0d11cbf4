"""Image files as frames: samples of any depth are scaled to eight bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.command_line import OptionGroup, Rule
from yolact_runtime.cpu.bit_depth import check_bit_depth, scale_to_eight_bits
from yolact_runtime.errors import FrameError, MediaError
from yolact_runtime.formats.image_header import ImageHeader
from yolact_runtime.media.image_decoding import decode_image
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.option_numbers import whole_number

__all__ = ["ImageReader", "add_bit_depth_option", "reader_for_model"]

Frame = npt.NDArray[np.uint8]
_USUAL_DEPTHS = (8, 10, 12, 14)


class ImageReader:
    """A reader of image files from one source, which determines the bit depth of samples and warns about doubts once.

    Args:
        bit_depth: Number of significant bits of 16-bit samples that the user requested; it overrides what files state.
        usual_bit_depth: Number of significant bits in the model's manifest, for files that state nothing.
        warn: Callback that receives a sentence, at most once for each kind of doubt; None disables warnings.

    Raises:
        UsageError: A bit depth is not an integer from 8 to 16.
    """

    def __init__(
        self,
        bit_depth: int | None = None,
        usual_bit_depth: int | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        check_bit_depth(bit_depth)
        check_bit_depth(usual_bit_depth)
        self.bit_depth = bit_depth
        self.usual_bit_depth = usual_bit_depth
        self._warn = warn
        self._warned: set[str] = set()

    def __getstate__(self) -> dict[str, object]:
        # A process that loads data has no user to warn.
        return {**self.__dict__, "_warn": None}

    def read(self, path: Path) -> Frame:
        """Read an image as ``(H, W, 3)`` uint8, blue first, turned upright by EXIF; gray is repeated, alpha is dropped.

        Samples of more than 8 bits are scaled by the rule of :mod:`yolact_runtime.cpu.bit_depth`. The number of
        significant bits is `bit_depth`; else what the file states (the largest value of a PGM or PPM, the bits or
        sample tags of a TIFF, ``sBIT`` of a PNG, the depth of JPEG 2000 and AVIF); else `usual_bit_depth`; else 16.

        Raises:
            MediaError: The file is missing, not a regular file, too large, damaged, truncated, not an image, several
                images, or of a kind that this OpenCV cannot decode.
            MissingDependencyError: OpenCV is not installed.
        """
        image, header = decode_image(path)
        try:
            return self._as_frame(path, image, header)
        except FrameError as error:
            raise MediaError(f"cannot read {path}: {error}, {self._limit(header)}") from error
        except MemoryError as error:
            size = f"{image.shape[1]} x {image.shape[0]}"
            raise MediaError(f"cannot read {path}: not enough memory for {size}") from error

    def _as_frame(self, path: Path, image: npt.NDArray[Any], header: ImageHeader) -> Frame:
        if image.dtype == np.uint8:
            frame: Frame = image if header.white is None else scale_to_eight_bits(image, header.white)
            return frame
        if image.dtype != np.uint16:
            raise MediaError(f"cannot read {path}: its samples are {image.dtype}; write it with 8 or 16 bits")
        if header.packed_bits:
            image = image >> np.uint16(16 - header.packed_bits)
        frame = scale_to_eight_bits(image, self._white(path, image, header))
        return np.invert(frame) if header.is_negative else frame

    def _white(self, path: Path, image: npt.NDArray[np.uint16], header: ImageHeader) -> int:
        """Return the value of white in 16-bit samples."""
        if self.bit_depth is not None:
            white = (1 << self.bit_depth) - 1
            stated = header.white
            if header.significant_bits not in {0, 16, self.bit_depth} and self.bit_depth < 16:
                stated = (1 << header.significant_bits) - 1
            if stated is not None and stated != white:
                self._warn_once(
                    "conflict",
                    f"{path} states that {stated} is its largest value; --bit-depth "
                    f"{self.bit_depth} overrides it, for this and all other files",
                )
            return white
        if header.white is not None:
            return header.white
        if header.significant_bits:
            return self._white_of_sbit(path, image, header)
        if self.usual_bit_depth is not None:
            return (1 << self.usual_bit_depth) - 1
        largest = int(image.max())
        fitting = next((depth for depth in _USUAL_DEPTHS if largest < 1 << depth), None)
        if largest and fitting:
            self._warn_once(
                "unstated",
                f"{path} has 16-bit samples, but none above {largest}, and does not state how "
                f"many bits are significant: it is read as 16 bits, and may be far too dark. If the camera has "
                f"{fitting} bits, add --bit-depth {fitting}; if not, --bit-depth 16",
            )
        return 65535

    def _white_of_sbit(self, path: Path, image: npt.NDArray[np.uint16], header: ImageHeader) -> int:
        """Return the value of white for ``sBIT``, which requires samples scaled to 16 bits; many writers omit that.

        Scaled samples below ``2**n`` are multiples of ``2**(16 - n)``, so any other value decides between the two.
        """
        bits = header.significant_bits
        white = (1 << bits) - 1
        largest = int(image.max())
        if largest > white:
            return 65535
        if largest and not (image & np.uint16((1 << 16 - bits) - 1)).any():
            self._warn_once(
                "sbit",
                f"{path} states {bits} significant bits and has no value above {largest}: it is "
                f"read as {bits} bits. If it is a dark picture on a scale of 16 bits, add --bit-depth 16",
            )
        return white

    def _limit(self, header: ImageHeader) -> str:
        """Describe the source of the limit that a value exceeds."""
        if self.bit_depth is not None:
            return f"the largest of --bit-depth {self.bit_depth}: is that right?"
        if header.white is not None:
            return "the largest that its header allows"
        return f"the largest of {self.usual_bit_depth} bits, as the model states them: say what it has with --bit-depth"

    def _warn_once(self, kind: str, sentence: str) -> None:
        if self._warn is not None and kind not in self._warned:
            self._warned.add(kind)
            self._warn(sentence)


def add_bit_depth_option(group: OptionGroup, rules: Sequence[Rule] = ()) -> None:
    """Add ``--bit-depth``, an option of every command that reads images.

    Args:
        group: Group of options to add to.
        rules: Conditions without which it has no effect.
    """
    group.add_argument(
        "--bit-depth",
        type=whole_number,
        metavar="N",
        rules=rules,
        help="significant bits of 16-bit images, 8 to 16 (default: as the file or the bundle states, or 16)",
    )


def reader_for_model(bit_depth: int | None, manifest: Manifest, warn: Callable[[str], None]) -> ImageReader:
    """Create the reader of images for a model.

    Args:
        bit_depth: Value of ``--bit-depth``; None if it was not given.
        manifest: Manifest of the model.
        warn: Callback for warnings, as in :class:`ImageReader`; it also learns if both bit depths are given and differ.

    Raises:
        UsageError: The bit depth is not a number of bits.
    """
    usual = manifest.input.bit_depth
    reader = ImageReader(bit_depth, usual, warn)
    if bit_depth is not None and usual is not None and bit_depth != usual:
        warn(f"{manifest.name} was calibrated with images of {usual} bits; --bit-depth {bit_depth} overrides it")
    return reader
