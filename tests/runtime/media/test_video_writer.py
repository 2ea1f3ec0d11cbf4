from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from support.tools import require_tool, tool_is_missing
from support.videos import moving_scene
from yolact_runtime.errors import MediaError
from yolact_runtime.formats.video_index import read_video_index
from yolact_runtime.media.video_writer import VideoWriter, incomplete_path, video_suffix
from yolact_runtime.media.videos import VideoReader
from yolact_runtime.stop_signals import Terminated, raise_stops

Frame = npt.NDArray[np.uint8]

_MOUNT, _UNMOUNT = shutil.which("mount"), shutil.which("umount")
_WAYS = ["ffmpeg.mp4", "opencv.mp4", "opencv.webm"]
_CODECS = {"ffmpeg.mp4": "H.264", "opencv.mp4": "VP9", "opencv.webm": "VP8"}


def require_h264() -> None:
    require_tool("ffmpeg")
    if video_suffix() != ".mp4":
        tool_is_missing("needs ffmpeg with an encoder of H.264")


@pytest.fixture
def h264() -> None:
    require_h264()


@pytest.fixture(params=_WAYS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file name for each encoder. Where there is no ffmpeg, that one is skipped: OpenCV's write the same files."""
    program, suffix = request.param.split(".")
    if program == "ffmpeg":
        require_h264()
    if program == "opencv":
        monkeypatch.setenv("PATH", "/nowhere")
    return f"clip.{suffix}"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write(path: Path, frames: list[Frame], fps: float = 12.0) -> VideoWriter:
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.write(frame)
    return writer


def _read(path: Path) -> list[Frame]:
    with VideoReader(path) as reader:
        frames = [frame.image for frame in reader]
    assert reader.faults == ()
    return frames


def _levels(count: int = 12) -> list[Frame]:
    return [np.full((32, 48, 3), 20 * number % 256, np.uint8) for number in range(count)]


def test_what_is_written_comes_back(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    writer = _write(tmp_path / name, _levels(), 30000 / 1001)
    assert writer.written == tmp_path / name
    assert _names(tmp_path) == [name]
    assert writer.codec == _CODECS[request.node.callspec.params["name"]]
    assert writer.num_frames == 12
    frames = _read(tmp_path / name)
    np.testing.assert_allclose([frame.mean() for frame in frames], [20 * number for number in range(12)], atol=5)
    with VideoReader(tmp_path / name) as reader:
        assert reader.fps == pytest.approx(29.97, abs=0.01)
        assert reader.num_frames == 12


def test_no_frame_is_lost_in_motion(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, [moving_scene(number) for number in range(60)])
    frames = _read(tmp_path / name)
    assert len(frames) == 60
    for number, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - moving_scene(number)).mean() < 20


@pytest.mark.parametrize("height", [64, 720])
def test_colours_come_back(tmp_path: Path, name: str, height: int) -> None:
    colours = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (0, 255, 255), (200, 30, 120), (255, 255, 255), (0, 0, 0)]
    image = np.zeros((height, 32 * len(colours), 3), np.uint8)
    for number, colour in enumerate(colours):
        image[:, 32 * number : 32 * number + 32] = colour
    _write(tmp_path / name, [image] * 2)
    for number, colour in enumerate(colours):
        np.testing.assert_allclose(_read(tmp_path / name)[0][height // 2, 32 * number + 16], colour, atol=12)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (32, 47), (2, 100), (15, 17)])
def test_sizes_that_codecs_do_not_have(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    _write(tmp_path / name, [np.full((*size, 3), 150, np.uint8)] * 3)
    frames = _read(tmp_path / name)
    assert [frame.shape for frame in frames] == [
        (max(size[0] + size[0] % 2, 16), max(size[1] + size[1] % 2, 16), 3)
    ] * 3
    np.testing.assert_allclose(frames[0], 150, atol=6)


def test_a_frame_of_another_size_is_fitted_and_not_dropped(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, [np.full((*size, 3), 200, np.uint8) for size in ((64, 64), (200, 100), (20, 40), (64, 64))])
    frames = _read(tmp_path / name)
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 4
    assert frames[1][32, 2].mean() < 40 < 160 < frames[1][32, 32].mean()
    assert frames[2][2, 32].mean() < 40 < 160 < frames[2][32, 2].mean()


def test_a_browser_can_play_it(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    _write(tmp_path / name, _levels())
    content = (tmp_path / name).read_bytes()
    way = request.node.callspec.params["name"]
    if way == "opencv.webm":
        assert content[:4] == b"\x1aE\xdf\xa3"
        assert b"webm" in content[:64]
        assert b"V_VP8" in content[:1000]
    else:
        assert (b"avc1" if way == "ffmpeg.mp4" else b"vp09") in content
        # H.264 is put in order for the web: the index comes first.
        assert way == "opencv.mp4" or content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
def test_what_is_broken_off_stays_and_plays(tmp_path: Path, name: str, error: type[BaseException]) -> None:
    _write(tmp_path / name, _levels(3))
    old = (tmp_path / name).read_bytes()
    writer = VideoWriter(tmp_path / name, 12)

    def break_off() -> None:
        with writer:
            for frame in _levels(8):
                writer.write(frame)
            raise error

    with pytest.raises(error):
        break_off()
    assert writer.written == incomplete_path(tmp_path / name)
    assert writer.written is not None
    assert writer.written.name == f"clip.incomplete{writer.written.suffix}"
    assert _names(tmp_path) == sorted([name, writer.written.name])
    assert (tmp_path / name).read_bytes() == old
    assert len(_read(writer.written)) == 8


def test_a_video_without_frames_is_not_written(tmp_path: Path, name: str) -> None:
    with VideoWriter(tmp_path / name, 12) as writer:
        pass
    assert (writer.written, _names(tmp_path)) == (None, [])


def test_a_video_has_its_name_only_once_it_is_complete(tmp_path: Path, name: str) -> None:
    with VideoWriter(tmp_path / name, 12) as writer:
        writer.write(_levels()[0])
        assert name not in _names(tmp_path)
    assert _names(tmp_path) == [name]


def test_what_a_killed_process_left_is_removed(tmp_path: Path, name: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    stem, _, suffix = name.partition(".")
    (tmp_path / f".{stem}.{child.pid}.partial.{suffix}").write_bytes(b"half")
    (tmp_path / f".{stem}.{os.getppid()}.partial.{suffix}").write_bytes(b"somebody else's")
    _write(tmp_path / name, _levels())
    assert _names(tmp_path) == [f".{stem}.{os.getppid()}.partial.{suffix}", name]


@pytest.mark.parametrize("stem", ["a%03d", "a b'\"$", "-i", "http:a", "aé中", "x" * 250])
def test_a_name_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stem: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"{stem}{Path(name).suffix}"[-255:])
    _write(path, _levels())
    assert _names(tmp_path) == [path.name]
    assert len(_read(path)) == 12


def test_folders_that_take_no_file(tmp_path: Path, name: str) -> None:
    for folder in (tmp_path / "missing", Path("/proc")):
        with pytest.raises(MediaError, match=f"cannot write {folder / name}"):
            _write(folder / name, _levels())


@pytest.mark.parametrize("suffix", ["avi", ""])
def test_suffixes_that_are_not_written(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(MediaError, match=r"\.mp4 or \.webm"):
        _write((tmp_path / "clip").with_suffix(f".{suffix}" if suffix else ""), _levels())
    assert _names(tmp_path) == []


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_frames_that_are_none(tmp_path: Path, frame: Frame) -> None:
    with pytest.raises(MediaError, match=r"\(H, W, 3\) uint8"):
        _write(tmp_path / "clip.mp4", [frame])


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_that_are_none(tmp_path: Path, fps: float) -> None:
    with pytest.raises(MediaError, match="frames per second"):
        VideoWriter(tmp_path / "clip.mp4", fps)


_CHILD = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from yolact_runtime.errors import MediaError
    from yolact_runtime.media.video_writer import VideoWriter
    path, limit = Path(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    rng = np.random.default_rng(0)
    writer = VideoWriter(path, 12)
    try:
        with writer:
            for _ in range(40):
                writer.write(rng.integers(0, 256, (96, 96, 3), np.uint8))
    except MediaError as error:
        print(error)
        sys.exit(1 if writer.written is None else 3)
"""


def _child(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(_CHILD), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("limit", [100, 5_000, 60_000])
def test_a_file_that_cannot_grow_is_an_error(tmp_path: Path, name: str, limit: int) -> None:
    done = _child(tmp_path / name, limit)
    assert done.returncode in {1, 3}, done.stderr
    assert f"cannot write {tmp_path / name}" in done.stdout
    left = _names(tmp_path)
    if done.returncode == 1:
        assert left == []
    else:  # WebM plays to where it ends.
        assert left == [incomplete_path(tmp_path / name).name]
        assert "its first" in done.stdout
        assert read_video_index(tmp_path / left[0]).num_frames != 40


def test_a_full_disk_is_an_error(tmp_path: Path, name: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if _MOUNT is None or _UNMOUNT is None:
        pytest.skip("there is no program mount; files that cannot grow are tested without")
    words = [_MOUNT, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting takes root; files that cannot grow are tested without")
    try:
        done = _child(small / name, resource.RLIM_INFINITY)
        assert done.returncode in {1, 3}, done.stderr
        assert "the disk is full" in done.stdout
        assert name not in _names(small)
    finally:
        subprocess.run([_UNMOUNT, str(small)], check=True)


def _program(folder: Path, script: str) -> None:
    """An ffmpeg that has H.264 by its own account, and does something else."""
    path = folder / "ffmpeg"
    path.write_text(f'#!/bin/sh\ncase "$*" in *-encoders*) echo " V....D libx264 H.264"; exit 0;; esac\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo this build is broken >&2; exit 3", "this build is broken"),
        ("head -c 1000 >/dev/null; echo no space >&2; exit 1", "no space"),
        ("head -c 1000 >/dev/null; kill -9 $$", "signal 9"),
        ("cat >/dev/null; exit 0", "cannot be read back"),
        ("yes complaint | head -n 100000 >&2; cat >/dev/null; exit 1", "complaint"),
    ],
)
def test_an_ffmpeg_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str) -> None:
    (tmp_path / "bin").mkdir()
    _program(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "out").mkdir()
    with pytest.raises(MediaError, match=rf"cannot write .*clip\.mp4: .*{reason}"):
        _write(tmp_path / "out" / "clip.mp4", _levels(40))
    assert _names(tmp_path / "out") == []


def _write_and_signal(path: Path, number: signal.Signals) -> None:
    with VideoWriter(path, 25) as writer:
        for image in _levels(40):
            writer.write(image)
        ffmpeg = writer._encoder._process  # type: ignore[union-attr]
        ffmpeg.send_signal(signal.SIGSTOP)
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        threading.Timer(0.5, ffmpeg.send_signal, (signal.SIGCONT,)).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_ffmpeg_finishes_waits_for_the_file(tmp_path: Path, number: signal.Signals) -> None:
    require_h264()
    # A shell that starts the tests in the background has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with raise_stops(), pytest.raises((KeyboardInterrupt, Terminated)):
            _write_and_signal(tmp_path / "clip.mp4", number)
    finally:
        signal.signal(signal.SIGINT, before)
    assert _names(tmp_path) == ["clip.incomplete.mp4"]
    assert len(_read(tmp_path / "clip.incomplete.mp4")) == 40


def _write_and_break_off(path: Path) -> None:
    with VideoWriter(path, 25) as writer:
        writer.write(np.zeros((32, 48, 3), np.uint8))
        raise KeyboardInterrupt


@pytest.mark.parametrize("stem", ["猫" * 80, "a" + "é" * 120])
def test_what_there_is_of_a_long_name_is_named_in_whole_characters(tmp_path: Path, name: str, stem: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        _write_and_break_off(tmp_path / f"{stem}{Path(name).suffix}")
    (left,) = _names(tmp_path)
    assert left.encode().decode().startswith(stem[:40])


def test_an_ffmpeg_without_h264_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho ' V....D libvpx VP8'\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert video_suffix() == ".webm"


def test_ctrl_c_at_the_terminal_leaves_a_video_that_plays(tmp_path: Path, name: str) -> None:
    """The whole process group gets the signal, as from a terminal: ffmpeg is not to end before us."""
    script = """
        import signal, sys, time
        from pathlib import Path
        import numpy as np
        from yolact_runtime.media.video_writer import VideoWriter
        # A shell that starts the tests in the background has SIGINT ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with VideoWriter(Path(sys.argv[1]), 12) as writer:
            for number in range(100_000):
                writer.write(np.full((32, 48, 3), number % 256, np.uint8))
                if number == 20:
                    print("begun", flush=True)
                time.sleep(0.005)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert _names(tmp_path) == [incomplete_path(tmp_path / name).name]
    assert 20 < len(_read(incomplete_path(tmp_path / name))) < 100_000


@pytest.mark.usefixtures("h264")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("place", [(subprocess.Popen, "wait"), (VideoReader, "__init__")])
def test_signals_while_a_video_is_finished_leave_nothing_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], times: int, error: type[BaseException]
) -> None:
    where, name = place
    original, left = getattr(where, name), [None] * times
    processes: list[Any] = []

    def act(self: Any, *words: Any, **options: Any) -> Any:
        processes.append(self)
        if left:
            left.pop()
            raise error
        return original(self, *words, **options)

    writer = VideoWriter(tmp_path / "clip.mp4", 12)

    def write() -> None:
        with writer:
            for frame in _levels(8):
                writer.write(frame)
            monkeypatch.setattr(where, name, act)

    with pytest.raises(error):
        write()
    monkeypatch.undo()
    assert not left
    given_up = name == "wait" and times == 2
    assert _names(tmp_path) == ([] if given_up else ["clip.incomplete.mp4"])
    assert given_up or len(_read(tmp_path / "clip.incomplete.mp4")) == 8
    if name == "wait":
        assert processes[0].poll() is not None


@pytest.mark.parametrize("fps", [0.001, 0.05, 0.5, 30, 999, 1000, 1e6])
def test_every_rate_is_written(tmp_path: Path, name: str, fps: float) -> None:
    with VideoWriter(tmp_path / name, fps) as writer:
        for frame in _levels(5):
            writer.write(frame)
    assert writer.written == tmp_path / name
    assert [frame[0, 0, 0] for frame in _read(writer.written)] == pytest.approx([f[0, 0, 0] for f in _levels(5)], abs=8)


def test_ffmpeg_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\necho asked >> {tmp_path}/log\necho libx264\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert [video_suffix() for _ in range(3)] == [".mp4"] * 3
    assert (tmp_path / "log").read_text() == "asked\n"
    assert shutil.which("ffmpeg") == str(tmp_path / "ffmpeg")
