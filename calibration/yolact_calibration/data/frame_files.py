"""Frames of an image, a video or a NumPy archive, one at a time, named by their position in the file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import MediaError
from yolact_runtime.formats.file_format import FileKind
from yolact_runtime.formats.file_probe import kind_of_file
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.videos import VideoReader

__all__ = ["frames_of"]

Frame = npt.NDArray[np.uint8]


def frames_of(path: Path, reader: ImageReader) -> Iterator[tuple[str, Frame]]:
    """Yield the frames of a file, each with a name; ``(H, W, 3)`` uint8 BGR pixels, owned by the caller.

    Args:
        path: Image, video or NumPy archive, recognised by its content.
        reader: Reader for images.

    Raises:
        MediaError: The file cannot be read. Frames that were yielded before are valid.
    """
    kind = kind_of_file(path)
    if kind is FileKind.ARCHIVE:
        yield from _archive_frames(path)
    elif kind is FileKind.VIDEO:
        with VideoReader(path) as video:
            for frame in video:
                yield f"{path} frame {frame.number}", frame.image
            if video.faults:
                raise MediaError(f"cannot read all of {path}: {'; '.join(video.faults)}")
    else:
        yield str(path), reader.read(path)


def _archive_frames(path: Path) -> Iterator[tuple[str, Frame]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    yield from _array_frames(f"{path} {member.removesuffix('.npy')}", file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise MediaError(f"cannot read {path}: {error}; create the archive with numpy.savez") from error


def _array_frames(name: str, file: IO[bytes]) -> Iterator[tuple[str, Frame]]:
    """Yield frames of one array of an archive one by one, because the whole array may exceed the memory."""
    shape, fortran, dtype = _array_header(file)
    if dtype != np.uint8 or len(shape) not in {3, 4} or shape[-1] != 3 or 0 in shape or fortran:
        raise MediaError(
            f"cannot read {name}: an array of frames is uint8 (N, H, W, 3) or (H, W, 3), blue first and C-contiguous; "
            f"found {dtype} {shape}{', Fortran order' if fortran else ''}"
        )
    size = int(np.prod(shape[-3:]))
    for number in range(shape[0] if len(shape) == 4 else 1):
        content = file.read(size)
        if len(content) < size:
            raise MediaError(f"cannot read {name}: the array is cut short at frame {number}")
        yield f"{name}[{number}]" if len(shape) == 4 else name, np.frombuffer(content, np.uint8).reshape(shape[-3:])


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
