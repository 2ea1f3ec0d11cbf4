from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from support.scenes import CLASS_NAMES, Thing, make_instances, write_bundle
from yolact_plugins.command_line import CommandParser
from yolact_runtime.commands.overlay_options import OverlayPainter, add_overlay_options, check_overlay_options
from yolact_runtime.commands.run_cli import main
from yolact_runtime.errors import UsageError
from yolact_runtime.media.colours import instance_colour
from yolact_runtime.media.images import read_image, write_image

GRAY = 90
A, B = (20.0, 40.0, 60.0, 80.0), (120.0, 40.0, 160.0, 80.0)


def _options(*words: str, output: Path | None = Path("out")) -> argparse.Namespace:
    parser = CommandParser("tool", "A tool.")
    add_overlay_options(parser)
    return argparse.Namespace(**vars(parser.parse_args(words)), output=output)


def _colours(painter: OverlayPainter, boxes: list[tuple], class_id: list[int], video: str | None) -> list[list[int]]:
    """Of the lower edge of each box."""
    frame = np.full((100, 200, 3), GRAY, np.uint8)
    image = painter.paint(frame, make_instances(100, 200, boxes, class_id=class_id), CLASS_NAMES, video)
    return [image[int(box[3]) - 1, int(box[0]) + 10].tolist() for box in boxes]


def _as_pixel(colour: npt.NDArray) -> list[int]:
    pixel: list[int] = colour.astype(np.uint8).tolist()
    return pixel


FIRST, SECOND, THIRD = (_as_pixel(instance_colour(i)) for i in range(3))


def test_colours_stay_with_the_instances_of_a_video() -> None:
    painter = OverlayPainter(_options())
    assert _colours(painter, [A, B], [0, 0], "one.mp4") == [FIRST, SECOND]
    assert _colours(painter, [B, A], [0, 0], "one.mp4") == [SECOND, FIRST]
    # The next video knows nothing of this one, and nor does a picture.
    assert _colours(painter, [B, A], [0, 0], "two.mp4") == [FIRST, SECOND]
    assert _colours(painter, [A, B], [0, 0], None) == [FIRST, SECOND]


@pytest.mark.parametrize("video", [None, "one.mp4"])
def test_colours_of_classes_are_the_same_everywhere(video: str | None) -> None:
    painter = OverlayPainter(_options("--color", "class"))
    assert _colours(painter, [A, B], [2, 0], video) == [THIRD, FIRST]
    assert _colours(painter, [A, B], [2, 2], video) == [THIRD, THIRD]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], (True, True, True)),
        (["--no-labels"], (True, True, False)),
        (["--no-masks", "--no-labels"], (False, True, False)),
        (["--no-masks", "--no-boxes"], (False, False, True)),
    ],
)
def test_what_is_left_out_is_not_drawn(words: list[str], parts: tuple[bool, bool, bool]) -> None:
    frame = np.full((200, 200, 3), GRAY, np.uint8)
    found = make_instances(200, 200, [(50, 80, 150, 180)])
    changed = (OverlayPainter(_options(*words)).paint(frame, found, CLASS_NAMES) != GRAY).any(axis=2)
    edge = np.concatenate([changed[80, 50:150], changed[80:180, 50]])
    # The outline of the mask lies where the box is: only its inside tells.
    assert (changed[130, 100], edge.all(), changed[70, 52]) == parts


def test_the_command_draws_what_is_asked_for(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "small.bundle", [Thing((0.25, 0.25, 0.75, 0.75))])
    picture = tmp_path / "bright.png"
    write_image(picture, np.full((400, 600, 3), 255, np.uint8))

    def drawn(*words: str) -> npt.NDArray[np.uint8]:
        assert main([str(model), str(picture), "-o", str(tmp_path / "out"), *words]) == 0
        return read_image(tmp_path / "out" / "bright.png")

    everything, plain = drawn(), drawn("--no-labels", "--no-boxes")
    assert (everything != plain).any()
    assert (everything[200, 300] == plain[200, 300]).all()


def test_pictures_without_anything_on_them_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^--no-masks --no-boxes --no-labels would draw nothing"):
        check_overlay_options(_options("--no-boxes", "--no-labels", "--no-masks"))


def test_options_of_pictures_without_pictures_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "small.bundle"), "x.png", "--no-labels", "--color", "class"]) == 2
    said = "error: --no-labels, --color have no effect without --output; add -o OUT_DIR, or leave them out\n"
    assert capsys.readouterr().err == said
