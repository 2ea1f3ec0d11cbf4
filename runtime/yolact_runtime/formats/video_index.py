"""Exact facts from the container of a video file: its frames, and whether they are all in the file.

It is read here because decoders tolerate missing data: a file whose second half is missing plays to its middle without
any message.
"""

from __future__ import annotations

from pathlib import Path

from yolact_runtime.formats.avi_index import is_avi, read_avi_index
from yolact_runtime.formats.container_file import ContainerFile, DamagedIndexError, VideoIndex
from yolact_runtime.formats.matroska_index import is_matroska, read_matroska_index
from yolact_runtime.formats.mp4_index import is_mp4, read_mp4_index

__all__ = ["VideoIndex", "read_video_index"]


def read_video_index(path: Path) -> VideoIndex:
    """Read the index of a video file.

    MP4, QuickTime, 3GP (``stsz``, ``stts``, ``elst`` and fragments) and AVI (``indx``, ``idx1``) list every frame.
    Matroska and WebM do not, but state where their parts end. MPEG transport and program streams, FLV and Ogg state
    nothing exactly; neither do files that are not videos. A container's statement of its duration is never used.

    Args:
        path: Path of a regular file. No position or length in it is trusted beyond the size of the file.

    Returns:
        The index; empty if the container has none.

    Raises:
        OSError: The file cannot be read.
    """
    with ContainerFile(path) as file:
        head = file.read(0, 16)
        for is_kind, read in ((is_mp4, read_mp4_index), (is_avi, read_avi_index), (is_matroska, read_matroska_index)):
            if len(head) >= 12 and is_kind(head):
                try:
                    return read(file)
                except DamagedIndexError as error:
                    return VideoIndex(faults=(f"the file's index is damaged: {error}",))
    return VideoIndex()
