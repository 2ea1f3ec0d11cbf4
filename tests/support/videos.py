"""Healthy and damaged videos of many containers, made by OpenCV, by surgery, and by ffmpeg where there is one."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from support import containers
from support.tools import use_tool
from yolact_runtime.media.opencv import opencv

__all__ = ["MadeVideo", "damaged_videos", "healthy_videos", "moving_scene", "write_with_opencv"]

NUM_FRAMES = 24


@dataclass(frozen=True)
class MadeVideo:
    """A generated video.

    Attributes:
        kind: Short description of the video.
        path: Path of the file.
        num_frames: Number of frames; for a damaged video, the number before the damage.
    """

    kind: str
    path: Path
    num_frames: int


def moving_scene(number: int, size: tuple[int, int] = (64, 96)) -> npt.NDArray[np.uint8]:
    """Return a frame ``(H, W, 3)`` of a scene with enough detail that each coded frame has some hundred bytes."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    planes = [
        128 + 100 * np.sin((columns + 3 * number + 20 * c) / 7) * np.cos((rows - 2 * number) / 5) for c in range(3)
    ]
    noise = np.random.default_rng(number).integers(-15, 16, (*size, 3))
    return np.clip(np.stack(planes, 2) + noise, 0, 255).astype(np.uint8)


def write_with_opencv(path: Path, codec: str, fps: float = 12.0, num_frames: int = NUM_FRAMES) -> Path:
    """Write :func:`moving_scene` with one of OpenCV's encoders."""
    cv2 = opencv()
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), fps, (96, 64))
    assert writer.isOpened(), f"{codec} in {path.suffix}"
    for number in range(num_frames):
        writer.write(moving_scene(number))
    writer.release()
    return path


_PLAIN = (
    ("mp4", "mp4v", 12.0), ("mp4", "vp09", 30000 / 1001), ("mov", "mp4v", 7.5), ("mov", "MJPG", 12.0),
    ("m4v", "mp4v", 25.0), ("3gp", "mp4v", 24.0), ("mkv", "mp4v", 12.0), ("mkv", "VP80", 30.0),
    ("mkv", "FFV1", 5.0), ("webm", "VP80", 12.0), ("webm", "VP90", 24000 / 1001), ("avi", "MJPG", 12.0),
    ("avi", "XVID", 29.97), ("avi", "mp4v", 25.0), ("avi", "FFV1", 3.0), ("flv", "FLV1", 12.0), ("ts", "mp4v", 25.0),
    ("ts", "MPG2", 25.0), ("mpg", "MPG1", 25.0),
)  # fmt: skip


def _operated(mp4: bytes, avi: bytes, mkv: bytes) -> Iterator[tuple[str, str, bytes, int]]:
    """(kind, suffix, content, frames to be seen); a frame of the MP4 lasts 1024 of 12288 units a second."""
    n, tick = NUM_FRAMES, 1024
    whole = n * 1000 // 12
    yield "edit list that shows everything", "mp4", containers.add_edit_list(mp4, [(whole, 0)]), n
    yield "edit list that hides the beginning", "mp4", containers.add_edit_list(mp4, [(whole, 5 * tick)]), n - 5
    yield "edit list that hides the end", "mp4", containers.add_edit_list(mp4, [(1000, 0)]), 12
    yield "edit list with a pause", "mp4", containers.add_edit_list(mp4, [(500, -1), (whole, 0)]), n
    yield "edit list of two parts", "mp4", containers.add_edit_list(mp4, [(500, 0), (500, 12 * tick)]), 12
    durations = [tick * (1 + k % 5) for k in range(n)]
    yield "variable rate", "mp4", containers.set_durations(mp4, durations), n
    yield (
        "variable rate, frames of no duration",
        "mp4",
        containers.set_durations(mp4, [tick * (k % 3) for k in range(n)]),
        n,
    )
    yield "turned", "mp4", containers.rotate(mp4), n
    yield "64-bit positions", "mp4", containers.widen_chunk_offsets(mp4), n
    yield "index in front", "mp4", containers.move_index_to_front(mp4), n
    yield "fragments", "mp4", containers.fragment(mp4, 6), n
    yield "fragments of a frame", "mp4", containers.fragment(mp4, 1), n
    yield "free space behind", "mp4", containers.add_box_after(mp4, b"free", bytes(100)), n
    yield "a maker's trailer that is not a box", "mp4", mp4 + b"8db42d694ccc418790edff439fe026bf" * 3, n
    yield "dropped frames", "avi", containers.drop_avi_frames(avi, [3, 4, 10]), n
    yield "bytes behind", "avi", avi + bytes(1000), n
    yield "recorded through a pipe", "mkv", containers.make_live_matroska(mkv), n


_SCENE = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=12:d=2")
_FFMPEG = (
    ("H.264 with B-frames", "a.mp4", ("-c:v", "libx264", "-bf", "3", "-g", "8", "-pix_fmt", "yuv420p")),
    ("H.264, open groups", "a.mp4", ("-c:v", "libx264", "-x264-params", "open-gop=1:keyint=6:bframes=3")),
    ("H.264, faststart", "a.mov", ("-c:v", "libx264", "-movflags", "+faststart")),
    ("H.264, fragments", "a.mp4", ("-c:v", "libx264", "-g", "6", "-movflags", "+frag_keyframe+empty_moov")),
    ("H.264, fragments, CMAF", "a.mp4", ("-c:v", "libx264", "-g", "6", "-movflags", "+cmaf+dash+frag_every_frame")),
    ("H.264 in Matroska", "a.mkv", ("-c:v", "libx264", "-bf", "2")),
    ("H.264 in TS", "a.ts", ("-c:v", "libx264", "-bf", "2")),
    ("H.264 in M2TS", "a.m2ts", ("-c:v", "libx264",)),
    ("H.264 in FLV", "a.flv", ("-c:v", "libx264",)),
    ("H.264 in AVI", "a.avi", ("-c:v", "libx264", "-bf", "2")),
    ("H.264, interlaced", "a.mp4", ("-c:v", "libx264", "-flags", "+ildct+ilme", "-x264-params", "tff=1")),
    ("HEVC", "a.mp4", ("-c:v", "libx265", "-x265-params", "log-level=none:bframes=4", "-tag:v", "hvc1")),
    ("MPEG-4 with B-frames", "a.avi", ("-c:v", "mpeg4", "-bf", "2")),
    ("MPEG-2 program stream", "a.mpg", ("-c:v", "mpeg2video", "-r", "25", "-frames:v", "24")),
    ("Theora", "a.ogv", ("-c:v", "libtheora",)),
    ("VP8 with hidden frames", "a.webm", ("-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "10")),
    ("VP8 with hidden frames", "a.avi", ("-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "10")),
    ("VP9 with hidden frames", "a.mp4", ("-c:v", "libvpx-vp9", "-auto-alt-ref", "1", "-lag-in-frames", "10")),
    ("VP9, live", "a.webm", ("-c:v", "libvpx-vp9", "-live", "1")),
    ("variable rate", "a.mp4", ("-c:v", "libx264", "-vf", "setpts=N*N/24/TB", "-fps_mode", "vfr", "-frames:v", "24")),
    ("dropped", "a.avi", ("-c:v", "mjpeg", "-vf", "setpts=N*N/99/TB", "-fps_mode", "vfr", "-enc_time_base", "1:50")),
    ("ProRes", "a.mov", ("-c:v", "prores_ks",)),
    ("WMV", "a.wmv", ("-c:v", "wmv2",)),
)  # fmt: skip


def healthy_videos(folder: Path) -> Iterator[MadeVideo]:
    """Make healthy videos of every container that this machine can write; a reader finds no fault with them.

    Args:
        folder: Existing, empty folder to write to.
    """
    plain: dict[str, bytes] = {}
    for number, (suffix, codec, fps) in enumerate(_PLAIN):
        path = write_with_opencv(folder / f"plain-{number}.{suffix}", codec, fps)
        plain.setdefault(suffix, path.read_bytes())
        yield MadeVideo(f"{codec} in {suffix}, {fps:.4g} a second", path, NUM_FRAMES)
    for number, (kind, suffix, content, count) in enumerate(_operated(plain["mp4"], plain["avi"], plain["mkv"])):
        path = folder / f"operated-{number}.{suffix}"
        path.write_bytes(content)
        yield MadeVideo(f"{suffix}: {kind}", path, count)
    if use_tool("ffmpeg"):
        yield from _videos_of_ffmpeg(folder)


def _ffmpeg(*words: str | Path) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, words)], check=True)


def _videos_of_ffmpeg(folder: Path) -> Iterator[MadeVideo]:
    listing = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=True).stdout
    for number, (kind, name, words) in enumerate(_FFMPEG):
        if words[1] not in listing.split():  # Builds differ in what they may carry.
            continue
        path = folder / f"ffmpeg-{number}-{name}"
        _ffmpeg(*_SCENE, *words, path)
        yield MadeVideo(f"ffmpeg, {path.suffix[1:]}: {kind}", path, NUM_FRAMES)
    source = folder / "ffmpeg-0-a.mp4"
    for suffix in ("mp4", "mov", "mkv"):
        path = folder / f"ffmpeg-cut.{suffix}"
        _ffmpeg("-ss", "0.9", "-i", source, "-c", "copy", path)
        yield MadeVideo(f"ffmpeg, {suffix}: cut without coding again", path, -1)
    path = folder / "ffmpeg-sound.mp4"
    _ffmpeg("-f", "lavfi", "-i", "sine=d=2", *_SCENE, "-c:v", "libx264", path)
    yield MadeVideo("ffmpeg, mp4: sound before the pictures", path, NUM_FRAMES)


Damage = Callable[[bytes, random.Random], bytes]


def _cut(share: float) -> Damage:
    return lambda content, _: content[: int(len(content) * share)]


def _hole(fill: Callable[[int, random.Random], bytes], share: float = 0.08) -> Damage:
    def damage(content: bytes, rng: random.Random) -> bytes:
        size = int(len(content) * share)
        at = rng.randrange(len(content) // 4, len(content) * 6 // 10)
        return content[:at] + fill(size, rng) + content[at + size :]

    return damage


def _flip(count: int, begin: float, end: float) -> Damage:
    def damage(content: bytes, rng: random.Random) -> bytes:
        changed = bytearray(content)
        for _ in range(count):
            at = rng.randrange(int(len(content) * begin), int(len(content) * end))
            changed[at] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return damage


def _cut_out(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) // 4, len(content) // 2)
    return content[:at] + content[at + len(content) // 10 :]


def _doubled(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) // 4, len(content) // 2)
    return content[: at + 500] + content[at:]


_DAMAGES: dict[str, Damage] = {
    "cut at a third": _cut(0.34),
    "cut at two thirds": _cut(0.67),
    "cut at 95 %": _cut(0.95),
    "last byte missing": lambda content, _: content[:-1],
    "zeros in the middle": _hole(lambda size, _: bytes(size)),
    "noise in the middle": _hole(lambda size, rng: rng.randbytes(size)),
    "a block of the disk lost": _hole(lambda size, _: b"\xff" * size, 0.2),
    "a tenth cut out": _cut_out,
    "a piece doubled": _doubled,
    "bits flipped": _flip(20, 0.1, 0.9),
    "bits flipped in the head": _flip(4, 0.0, 0.03),
    "bits flipped at the end": _flip(6, 0.95, 1.0),
}


def _sources(folder: Path) -> Iterator[tuple[str, bytes]]:
    plain = {}
    for suffix, codec in (
        ("mp4", "mp4v"), ("mp4", "vp09"), ("mov", "MJPG"), ("avi", "MJPG"), ("avi", "XVID"), ("mkv", "mp4v"),
        ("webm", "VP80"),
    ):  # fmt: skip
        plain[suffix, codec] = write_with_opencv(folder / f"source-{codec}.{suffix}", codec).read_bytes()
        yield f"{codec}.{suffix}", plain[suffix, codec]
    yield "front-mp4v.mp4", containers.move_index_to_front(plain["mp4", "mp4v"])
    yield "fragments-mp4v.mp4", containers.fragment(plain["mp4", "mp4v"], 4)
    if use_tool("ffmpeg"):
        for name in ("h264.mp4", "h264.mkv"):
            _ffmpeg(*_SCENE, "-c:v", "libx264", "-bf", "2", "-g", "8", folder / name)
            yield name, (folder / name).read_bytes()


def damaged_videos(folder: Path, seed: int = 0) -> Iterator[MadeVideo]:
    """Make videos with holes, flipped bits and missing ends, over 100 of them.

    Args:
        folder: Existing, empty folder to write to.
        seed: Other places are damaged with another one.
    """
    for name, content in list(_sources(folder)):
        for number, (kind, damage) in enumerate(_DAMAGES.items()):
            path = folder / f"damaged-{number}-{name}"
            path.write_bytes(damage(content, random.Random(f"{seed} {name} {kind}")))
            yield MadeVideo(f"{name}: {kind}", path, NUM_FRAMES)
