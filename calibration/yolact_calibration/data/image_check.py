"""Check of every image of a data set before a long run: a corrupt one would otherwise end it hours later."""

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
# Images in flight for each thread, whose files are held in memory.
_MOST_THREADS, _AHEAD = 16, 2


def check_images(
    files: Sequence[tuple[CocoImage, Path]], source: str, sha256: str, reader: ImageReader, reporter: Reporter = SILENT
) -> str:
    """Decode every image with the reader of the run, and compare its size with its annotations.

    Args:
        files: Images and their paths.
        source: Name of the annotation file, for messages.
        sha256: SHA-256 of the annotation file, hexadecimal.
        reader: Reader that the run will use.
        reporter: Reporter that shows the progress.

    Returns:
        The SHA-256 of the annotations and of every image file, hexadecimal.

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
            f"{more}. Replace these files, or remove them from the annotations"
        )
    return total.hexdigest()


def _looked_at(files: Sequence[tuple[CocoImage, Path]], reader: ImageReader) -> Iterator[tuple[bytes, str]]:
    """Yield contents and problems in order, decoding a few images ahead."""
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
        f"{path} is {width} x {height} pixels, its annotations say {image.width} x {image.height}; annotate images "
        f"with an EXIF orientation as they are displayed"
    )
