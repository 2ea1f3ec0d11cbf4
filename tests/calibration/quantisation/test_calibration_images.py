from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.activations import make_frames, write_frames
from support.recorder import Recorder
from yolact_calibration.errors import DatasetError
from yolact_calibration.quantisation.calibration_images import CalibrationImages, find_calibration_images
from yolact_runtime.media.images import write_image
from yolact_runtime.media.video_writer import VideoWriter


def names(images: CalibrationImages) -> list[str]:
    return [Path(name).name for name, _ in images]


def test_frames_of_a_folder_come_one_by_one(tmp_path: Path) -> None:
    images = find_calibration_images([str(write_frames(tmp_path, 40))])
    assert len(images) == 40
    assert images.warnings == ()
    for (name, frame), expected in zip(images, make_frames(40), strict=True):
        assert name.startswith(str(tmp_path))
        np.testing.assert_array_equal(frame, expected)


def test_the_digest_is_that_of_a_set_of_pictures(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", 12)
    images = find_calibration_images([str(folder)])
    moved = tmp_path / "b"
    moved.mkdir()
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        shutil.copy(path, moved / f"renamed{number:02}.png")
    archive = tmp_path / "frames.npz"
    np.savez(archive, first=np.stack(make_frames(12)[:7]), second=np.stack(make_frames(12)[7:]))
    assert find_calibration_images([str(moved)]).digest() == images.digest()
    assert find_calibration_images([str(archive)]).digest() == images.digest()
    assert find_calibration_images([str(write_frames(tmp_path / "c", 13))]).digest() != images.digest()
    assert find_calibration_images([str(write_frames(tmp_path / "d", 12, seed=1))]).digest() != images.digest()


def test_what_does_not_serve_is_left_out_by_name(tmp_path: Path) -> None:
    folder = write_frames(tmp_path, 33)
    (folder / "100.jpg").write_bytes(b"no picture")
    noise = np.random.default_rng(0).integers(0, 5, (30, 40, 3), dtype=np.uint8)
    write_image(folder / "101.png", noise)
    write_image(folder / "102.png", np.full((30, 40, 3), (250, 3, 90), np.uint8))
    # As another file, of another format: what counts is what it shows.
    write_image(folder / "103.bmp", make_frames(33)[4])
    images = find_calibration_images([str(folder)])
    assert len(images) == 33
    assert names(images) == [f"{number:03}.png" for number in range(33)]
    unreadable, dark, plain, twin = images.warnings
    assert unreadable.startswith("left out: cannot read")
    assert "100.jpg" in unreadable
    assert "101.png is blank" in dark
    assert "102.png is blank" in plain
    assert "103.bmp is the same as" in twin
    assert "004.png" in twin


def test_few_images_are_warned_of_and_fewer_refused(tmp_path: Path) -> None:
    folder = write_frames(tmp_path, 8)
    (warning,) = find_calibration_images([str(folder)]).warnings
    assert warning.startswith("8 images are few")
    assert "32 or more" in warning
    (folder / "007.png").write_bytes(b"")
    shutil.copy(folder / "000.png", folder / "copy.png")
    with pytest.raises(DatasetError, match=r"7 usable images found; 1 unreadable, 1 duplicate, .* at least 8"):
        find_calibration_images([str(folder)])


def test_nothing_readable_is_refused(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.jpg").write_bytes(b"junk")
    with pytest.raises(DatasetError, match=r"0 usable images found; 9 unreadable, the first one: cannot read .*0\.jpg"):
        find_calibration_images([str(tmp_path)])
    with pytest.raises(DatasetError, match="no file matches"):
        find_calibration_images([str(tmp_path / "*.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="contains no image"):
        find_calibration_images([str(tmp_path / "empty")])


@pytest.mark.parametrize(("num_frames", "most"), [(50, 20), (20, 20), (21, 20)])
def test_a_video_is_sampled_evenly(tmp_path: Path, num_frames: int, most: int) -> None:
    path = tmp_path / "drive.mp4"
    with VideoWriter(path, 30) as writer:
        for frame in make_frames(num_frames, size=(48, 64)):
            writer.write(frame)
    images = find_calibration_images([str(path)], frames_per_video=most)
    positions = [image.position for image in images.images]
    assert most / 2 <= len(positions) <= most
    assert positions[0] == 0
    assert len(set(np.diff(positions).tolist())) == 1
    assert positions[-1] + np.diff(positions)[0] >= num_frames
    again = list(images)
    assert [name for name, _ in again] == [f"{path} frame {position}" for position in positions]
    assert all(frame.shape == (48, 64, 3) for _, frame in again)


def test_archives_hold_one_frame_or_many(tmp_path: Path) -> None:
    frames = make_frames(40)
    np.savez(tmp_path / "many.npz", frames=np.stack(frames[:20]), single=frames[20])
    np.savez_compressed(tmp_path / "more.npz", np.stack(frames[21:]))
    for words in ([str(tmp_path)], [str(tmp_path / "*.npz")], [str(tmp_path / "more.npz"), str(tmp_path / "many.npz")]):
        images = find_calibration_images(words)
        assert len(images) == 40
        assert {frame.tobytes() for _, frame in images} == {frame.tobytes() for frame in frames}
    assert "many.npz frames[3]" in [Path(image.name).name for image in images.images]


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 6, 3), np.float32), "float32"),
        (np.zeros((4, 6), np.uint8), r"\(4, 6\)"),
        (np.zeros((2, 3, 4, 6), np.uint8), r"\(2, 3, 4, 6\)"),
        (np.asfortranarray(np.zeros((2, 4, 6, 3), np.uint8)), "Fortran"),
    ],
)
def test_arrays_of_anything_else_are_left_out(tmp_path: Path, array: np.ndarray, found: str) -> None:
    folder = write_frames(tmp_path, 32)
    np.savez(folder / "odd.npz", array)
    images = find_calibration_images([str(folder)])
    assert len(images) == 32
    (warning,) = images.warnings
    assert "odd.npz arr_0" in warning
    assert found.replace("\\", "") in warning


def test_a_damaged_archive_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, np.stack(make_frames(12)))
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(DatasetError, match=r"0 usable images found; 1 unreadable: .*a\.npz"):
        find_calibration_images([str(path)])
    # A flipped byte is noticed at the end of the array, by its checksum.
    path.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    images = find_calibration_images([str(path)])
    assert len(images) >= 8
    assert any("a.npz" in warning for warning in images.warnings) == (len(images) < 12)


def test_of_many_files_some_are_taken_evenly(tmp_path: Path) -> None:
    images = find_calibration_images([str(write_frames(tmp_path, 30))], most=10)
    assert names(images)[0] == "000.png"
    assert names(images)[-1] == "029.png"
    assert len(images) == 10


def test_images_held_back_do_not_depend_on_names(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", 12)
    images = find_calibration_images([str(folder)])
    rest, held = images.hold_back(4)
    assert (len(rest), len(held)) == (8, 4)
    assert not {image.digest for image in rest.images} & {image.digest for image in held.images}
    assert rest.warnings == images.warnings
    for path in sorted(folder.iterdir()):
        path.rename(path.with_name(f"z{999 - int(path.stem)}.png"))
    again = find_calibration_images([str(folder)]).hold_back(4)[0]
    assert again.digest() == rest.digest()


def test_progress_counts_files(tmp_path: Path) -> None:
    told = Recorder()
    find_calibration_images([str(write_frames(tmp_path, 9))], reporter=told)
    assert told.told == [("progress", f"looked at {done}/9") for done in range(1, 10)]


def test_the_bit_depth_of_calibration_images(tmp_path: Path) -> None:
    for i, frame in enumerate(make_frames(9)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame.astype(np.uint16) << 4 | frame >> 4)
    (tmp_path / "notes.txt").write_text("no picture")
    unstated = find_calibration_images([str(tmp_path)])
    assert unstated.warnings[0] == "1 file is left out: 1 that is neither image nor video (notes.txt)"
    assert [warning for warning in unstated.warnings if "--bit-depth 12" in warning] == [unstated.warnings[1]]
    for given in ({"bit_depth": 12}, {"usual_bit_depth": 12}):
        images = find_calibration_images([str(tmp_path)], **given)
        assert not [warning for warning in images.warnings if "--bit-depth" in warning]
        for part in (images, *images.hold_back(3)):
            assert {frame.tobytes() for _, frame in part} <= {frame.tobytes() for frame in make_frames(9)}


def test_a_video_is_known_by_its_content(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "drive.mp4", 30) as writer:
        for frame in make_frames(10, size=(48, 64)):
            writer.write(frame)
    (tmp_path / "drive.mp4").rename(tmp_path / "drive.bin")
    assert len(find_calibration_images([str(tmp_path)])) == 10
