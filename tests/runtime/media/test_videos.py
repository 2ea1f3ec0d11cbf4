from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import containers
from support.properties import examples
from support.videos import MadeVideo, damaged_videos, healthy_videos, moving_scene, write_with_opencv
from yolact_runtime.errors import MediaError
from yolact_runtime.media.videos import VideoFrame, VideoReader


def _read(path: Path) -> tuple[list[VideoFrame], tuple[str, ...]]:
    with VideoReader(path) as reader:
        return list(reader), reader.faults


def _short_in_silence(video: MadeVideo) -> bool:
    try:
        frames, faults = _read(video.path)
    except MediaError:
        return False
    numbers = [frame.number for frame in frames]
    assert numbers == sorted(set(numbers)), video.kind
    times = [frame.time_s for frame in frames]
    assert times == sorted(times), video.kind
    return len(frames) < video.num_frames and not faults


# --- healthy videos ---------------------------------------------------------------------------------------------------


def test_healthy_videos_have_no_faults_and_all_their_frames(tmp_path: Path) -> None:
    suffixes: set[str] = set()
    count = 0
    for video in healthy_videos(tmp_path):
        frames, faults = _read(video.path)
        assert not faults, (video.kind, faults)
        if video.num_frames >= 0:
            assert len(frames) == video.num_frames, video.kind
        assert [frame.number for frame in frames] == list(range(len(frames))), video.kind
        assert frames[0].time_s == pytest.approx(0, abs=0.3), video.kind
        suffixes.add(video.path.suffix)
        count += 1
    assert count >= 30
    assert len(suffixes) >= 8


def test_a_video_comes_back_frame_by_frame(tmp_path: Path) -> None:
    frames, faults = _read(write_with_opencv(tmp_path / "a.mp4", "mp4v", fps=12, num_frames=5))
    assert not faults
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(5) / 12, atol=1e-3)
    for frame in frames:
        assert frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - moving_scene(frame.number)).mean() < 16
    assert not np.shares_memory(frames[0].image, frames[1].image)


def test_a_file_with_sound_alone_is_called_that(tmp_path: Path) -> None:
    made = write_with_opencv(tmp_path / "a.mp4", "mp4v").read_bytes()
    (tmp_path / "a.mp4").write_bytes(made.replace(b"vide", b"soun").replace(b"mp4v", b"mp4a"))
    with pytest.raises(MediaError, match="its index names no video, only sound or something else"):
        _read(tmp_path / "a.mp4")


def test_times_are_those_of_the_container(tmp_path: Path) -> None:
    made = write_with_opencv(tmp_path / "a.mp4", "mp4v", fps=12, num_frames=6).read_bytes()
    (tmp_path / "b.mp4").write_bytes(containers.set_durations(made, [1024, 4096, 1024, 12288, 512, 512]))
    frames, faults = _read(tmp_path / "b.mp4")
    assert not faults
    np.testing.assert_allclose([frame.time_s * 12 for frame in frames], [0, 1, 5, 6, 18, 18.5], atol=0.02)


def test_a_turned_video_comes_upright(tmp_path: Path) -> None:
    made = write_with_opencv(tmp_path / "a.mp4", "mp4v").read_bytes()
    (tmp_path / "b.mp4").write_bytes(containers.rotate(made))
    straight, turned = _read(tmp_path / "a.mp4")[0][3].image, _read(tmp_path / "b.mp4")[0][3].image
    np.testing.assert_array_equal(turned, np.rot90(straight, -1))


# --- damaged videos ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_a_damaged_video_is_not_short_in_silence(tmp_path: Path, seed: int) -> None:
    videos = list(damaged_videos(tmp_path, seed))
    assert len(videos) >= 50
    exact = [video for video in videos if video.path.suffix != ".mkv"]
    assert [video.kind for video in exact if _short_in_silence(video)] == []
    # Matroska lists no frames: what cuts or displaces its elements is noticed, what the decoder drops is not.
    assert len([video for video in videos if video.path.suffix == ".mkv" and _short_in_silence(video)]) <= 2


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("mp4", "vp09"), ("avi", "MJPG"), ("mov", "MJPG")])
def test_frames_behind_a_hole_are_read(tmp_path: Path, suffix: str, codec: str) -> None:
    path = write_with_opencv(tmp_path / f"a.{suffix}", codec)
    content = bytearray(path.read_bytes())
    # Frames 8 to 11 or so; the index stays whole.
    at = len(content) * 40 // 100
    content[at : at + len(content) // 6] = bytes(len(content) // 6)
    path.write_bytes(content)
    frames, faults = _read(path)
    assert 10 <= len(frames) < 24
    assert frames[-1].number == 23 or suffix == "avi"
    assert len(faults) == 1
    assert "could" in faults[0]
    assert "after frame" in faults[0] or "promises 24" in faults[0]


def test_faults_grow_while_the_video_is_read(tmp_path: Path) -> None:
    path = write_with_opencv(tmp_path / "a.mp4", "mp4v")
    path.write_bytes(containers.make_hole(path.read_bytes(), 0.4, 0.5))
    with VideoReader(path) as reader:
        frames = iter(reader)
        next(frames)
        assert reader.faults == ()
        list(frames)
        assert reader.faults


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.webm"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_video_that_is_cut(tmp_path: Path, name: str, share: float) -> None:
    codec = {"mp4": "mp4v", "avi": "MJPG", "mkv": "mp4v", "webm": "VP80"}[name[2:]]
    path = write_with_opencv(tmp_path / name, codec)
    content = path.read_bytes()
    if name == "a.mp4":
        content = containers.move_index_to_front(content)
    path.write_bytes(content[: int(len(content) * share)])
    try:
        _, faults = _read(path)
    except MediaError:
        return
    assert any("cut short" in fault for fault in faults)


@examples(60)
@given(
    name=st.sampled_from(["a.mp4", "front.mp4", "fragments.mp4", "a.avi", "a.mkv", "a.webm", "a.mov"]),
    at=st.floats(0, 0.999),
    bites=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: float, bites: list[tuple[float, int]], cut: bool
) -> None:
    content = bytearray(_whole(tmp_path_factory, name))
    for place, value in bites:
        # Mostly in heads and indexes, where there is most to misunderstand.
        edge = 1500 if place < 0.9 else len(content)
        begin = int(at * (len(content) - edge)) if place < 0.5 else 0 if place < 0.7 else len(content) - edge
        content[min(begin + int(place * 9973) % edge, len(content) - 1)] = value
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content[: int(len(content) * at)] if cut else content)
    try:
        frames, _ = _read(path)
    except MediaError:
        return
    assert 1 <= len(frames) <= 200


_WHOLE: dict[str, bytes] = {}


def _whole(factory: pytest.TempPathFactory, name: str) -> bytes:
    if name not in _WHOLE:
        suffix = name.rpartition(".")[2]
        codec = {"avi": "MJPG", "webm": "VP80", "mov": "MJPG"}.get(suffix, "mp4v")
        made = write_with_opencv(factory.mktemp("whole") / f"a.{suffix}", codec, num_frames=12).read_bytes()
        change = {
            "front.mp4": containers.move_index_to_front,
            "fragments.mp4": lambda whole: containers.fragment(whole, 3),
        }
        _WHOLE[name] = change.get(name, lambda whole: whole)(made)
    return _WHOLE[name]


# --- what is no video -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_files_that_are_no_videos(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=r"cannot read .*a\.mp4"):
        _read(tmp_path / "a.mp4")


def test_a_video_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"cannot read .*missing\.mp4: No such file"):
        VideoReader(tmp_path / "missing.mp4")


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s.mp4"))
    for name in ("fifo.mp4", "s.mp4", "/dev/zero", ".", "loop.mp4", "a.mp4/b.mp4", "a\0.mp4"):
        (tmp_path / "a.mp4").touch()
        with pytest.raises(MediaError, match="cannot read"):
            VideoReader(tmp_path / name)
    server.close()


@pytest.mark.parametrize("text", ["#EXTM3U\n{}\n", "ffconcat version 1.0\nfile {}\n", "v=0\n", "\ufeff<?xml ?>{}"])
def test_playlists_are_not_followed(tmp_path: Path, text: str) -> None:
    write_with_opencv(tmp_path / "a.ts", "MPG2", fps=25)
    (tmp_path / "list.mp4").write_text(text.format("a.ts"), encoding="utf-8")
    with pytest.raises(MediaError, match="playlist"):
        VideoReader(tmp_path / "list.mp4")


@pytest.mark.parametrize(
    "name",
    ["a%03d.mp4", "a%d.avi", "http:a.mp4", "concat:a.mp4", "file:x.mp4", "-i.mp4", "a b'\"$.mp4", "aé中.mp4", "a.jpg"],
)
def test_a_name_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shutil.copy(write_with_opencv(tmp_path / "a.mp4", "mp4v", num_frames=4), tmp_path / "copy")
    (tmp_path / "a.mp4").unlink()
    (tmp_path / "copy").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    frames, faults = _read(Path(name))
    assert (len(frames), faults) == (4, ())


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff\xfe.mp4")
    write_with_opencv(tmp_path / "a.mp4", "mp4v", num_frames=4).rename(tmp_path / name)
    frames, faults = _read(tmp_path / name)
    assert (len(frames), faults) == (4, ())
