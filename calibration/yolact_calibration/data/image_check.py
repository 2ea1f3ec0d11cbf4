"""Every image of a data set, decoded once before the work begins: a bad one would end it hours later."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from yolact_calibration.errors import DatasetError, MediaError
from yolact_calibration.labels.coco import CocoImage
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["check_images"]

_SHOWN = 3
# Images that wait for each other; their files are in memory meanwhile.
_MOST_THREADS, _AHEAD = 16, 2


def check_images(
    files: Sequence[tuple[CocoImage, Path]], source: str, sha256: str, reader: ImageReader, reporter: Reporter = SILENT
) -> str:
    """Decode every image as the work will, and compare its size with its annotations.

    Args:
        files: Images and where they lie.
        source: The annotation file, for messages.
        sha256: Of the annotation file.
        reader: Reads the images, as the work will.
        reporter: Shows how far the work is.

    Returns:
        SHA-256 of the annotations and of every image file, hexadecimal.

    Raises:
        DatasetError: Images cannot be read, or have another size; the message counts them and names the first.
    """
    total = hashlib.sha256(sha256.encode())
    problems: list[str] = []
    for (image, _), (content, problem) in reporter.progress(
        zip(files, _looked_at(files, reader), strict=True), "checked", len(files)
    ):
        total.update(image.file_name.encode("utf-8", "surrogatepass"))
        total.update(content)
        if problem:
            problems.append(problem)
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DatasetError(
            f"{len(problems)} of the {len(files)} images of {source} cannot be used: {'; '.join(problems[:_SHOWN])}"
            f"{more}. Correct them, or take them out of the annotations"
        )
    return total.hexdigest()


def _looked_at(files: Sequence[tuple[CocoImage, Path]], reader: ImageReader) -> Iterator[tuple[bytes, str]]:
    """Contents and problems in order, a few images ahead of whoever takes them."""
    count = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting: deque[Future[tuple[bytes, str]]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for image, path in files:
                waiting.append(pool.submit(_look_at, image, path, reader))
                if len(waiting) > _AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _look_at(image: CocoImage, path: Path, reader: ImageReader) -> tuple[bytes, str]:
    try:
        content = path.read_bytes()
        height, width = reader.read(path).shape[:2]
    except OSError as error:
        return b"", f"cannot read {path}: {error.strerror or error}"
    except MediaError as error:
        return b"", str(error)
    if (height, width) == (image.height, image.width):
        return content, ""
    return content, (
        f"{path} is {width} x {height} pixels, its annotations say {image.width} x {image.height}; an image that EXIF "
        f"turns has to be annotated upright"
    )
