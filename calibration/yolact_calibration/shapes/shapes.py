"""Data sets of scenes with exact truth: ``python -m yolact_calibration.shapes --seed S --count N -o DIR``."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_calibration.errors import DatasetError, TextError, UsageError
from yolact_plugins.command_line import CommandParser, Example
from yolact_plugins.files import counted, human_size, typed_folder, write_atomically
from yolact_plugins.leftovers import written_name
from yolact_plugins.text import read_json
from yolact_runtime.option_numbers import shown_number, whole_number
from yolact_runtime.terminal import Terminal, add_common_options, run_command

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from yolact_calibration.shapes.scene import Scene

__all__ = ["main"]

_GENERATOR, _VERSION = "yolact_calibration.shapes", 1
_ANNOTATIONS, _IMAGES = "instances.json", "images"
_MAX_SEED = 10**9 - 1
"""Maximum seed: seeds are file names of nine digits."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_parser(), _run, arguments)


def _parser() -> CommandParser:
    parser = CommandParser(
        "python -m yolact_calibration.shapes",
        "Write pictures of shapes with exact masks: DIR/images/*.png and DIR/instances.json (COCO). Picture i has the "
        "seed S + i, and the seed is its name; the same seed and size always give the same picture.",
        usage=("--count N -o DIR [options]",),
        exit_statuses="0 written; 1 something failed; 2 usage; 130 interrupted, 143 terminated.",
        examples=(
            Example("200 scenes", "python -m yolact_calibration.shapes --count 200 -o scenes/"),
            Example("50 others", "python -m yolact_calibration.shapes --count 50 --seed 1000 -o more/ --size 640x480"),
        ),
        completes=False,
    )
    options = parser.add_argument_group("options")
    options.add_argument("--count", type=whole_number, required=True, metavar="N", main=True, help="number of pictures")
    options.add_argument(
        "-o", "--output", type=typed_folder, required=True, metavar="DIR", main=True, help="folder to write"
    )
    options.add_argument(
        "--seed", type=whole_number, default=0, metavar="S", main=True, help="seed of the first picture (default 0)"
    )
    options.add_argument(
        "--size",
        type=_size,
        default=(256, 256),
        metavar="WxH",
        field=("height", "width"),
        main=True,
        help="pixels (default 256x256)",
    )
    add_common_options(parser)
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})[xX]([0-9]{1,9})", text)
    if not match:
        raise argparse.ArgumentTypeError(f'width and height in pixels, such as 256x256; found "{text}"')
    return int(match[1]), int(match[2])


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    from yolact_calibration.shapes.scene import SceneOptions, make_scene

    if options.count < 1:
        raise UsageError(f"--count must be 1 or more, found {shown_number(options.count)}")
    if not 0 <= options.seed <= _MAX_SEED - options.count + 1:
        last = shown_number(options.seed + options.count - 1)
        raise UsageError(
            f"--seed and --count: seeds must be 0 to {_MAX_SEED}, found {shown_number(options.seed)} to {last}"
        )
    width, height = options.size
    scene_options = SceneOptions(height=height, width=width)
    seeds = range(options.seed, options.seed + options.count)
    folder: Path = options.output
    _prepare(folder, seeds)
    document = _new_document(options.seed, options.count)
    size_bytes = 0
    for seed in terminal.progress(seeds, "scenes", len(seeds)):
        scene = make_scene(seed, scene_options)
        path = folder / _IMAGES / _image_name(seed)
        _write_picture(path, scene.image)
        size_bytes += path.stat().st_size
        _add_scene(document, seed, scene)
    content = (json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n").encode()
    write_atomically(folder / _ANNOTATIONS, content)
    size = human_size(size_bytes + len(content))
    num_instances = len(document["annotations"])
    terminal.say(
        f"wrote {counted(len(seeds), 'picture')} with {counted(num_instances, 'instance')} to {folder} ({size})"
    )
    return 0


def _image_name(seed: int) -> str:
    return f"{seed:09d}.png"


def _prepare(folder: Path, seeds: range) -> None:
    """Create the folder, after checking that it only has files with names that this command writes.

    Raises:
        DatasetError: The folder contains other files, which are not touched, or cannot be created.
    """
    images, annotations = folder / _IMAGES, folder / _ANNOTATIONS
    own = {_image_name(seed) for seed in seeds}
    try:
        inside = list(folder.iterdir()) if folder.exists() else []
        # Files of a killed run are overwritten, or removed.
        foreign = [path for path in inside if written_name(path.name) not in {_IMAGES, _ANNOTATIONS}]
        foreign += [path for path in images.iterdir() if written_name(path.name) not in own] if images.exists() else []
        if annotations.exists() and not _is_own(annotations):
            foreign.append(annotations)
        if not foreign:
            images.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"cannot write scenes to {folder}: {error.strerror or error}; name another folder with -o"
        ) from error
    if foreign:
        raise DatasetError(
            f"{folder} has {counted(len(foreign), 'file')} that this command would not write, for example "
            f"{min(foreign)}: name a new folder with -o"
        )


def _write_picture(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write an image unless an earlier run has; an existing file that differs is never overwritten.

    Raises:
        DatasetError: The file is another image.
        MediaError: The image cannot be written, or the existing file is not an image.
    """
    from yolact_runtime.media.images import read_image, write_image

    if not path.exists():
        write_image(path, image)
        return
    found = read_image(path)
    if found.shape != image.shape or (found != image).any():
        raise DatasetError(
            f"{path} is another picture than the one to write, {image.shape[1]} x {image.shape[0]} pixels; "
            "it was not overwritten: name a new folder with -o"
        )


def _is_own(annotations: Path) -> bool:
    """Return whether this command wrote the annotations."""
    try:
        document = read_json(annotations)
    except TextError:
        return False
    info = document.get("info") if isinstance(document, dict) else None
    return isinstance(info, dict) and info.get("generator") == _GENERATOR


def _new_document(seed: int, count: int) -> dict[str, Any]:
    from yolact_calibration.shapes.scene import CLASS_NAMES

    return {
        "info": {"generator": _GENERATOR, "version": _VERSION, "seed": seed, "count": count},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASS_NAMES, 1)],
    }


def _add_scene(document: dict[str, Any], seed: int, scene: Scene) -> None:
    """Append an image, whose id is its seed, and its annotations, numbered from 1."""
    height, width = scene.image.shape[:2]
    document["images"].append({"id": seed, "file_name": _image_name(seed), "height": height, "width": width})
    annotations = document["annotations"]
    rows = zip(scene.class_id, scene.mask.rle(), scene.mask.area(), scene.xyxy.tolist(), strict=True)
    for class_id, segmentation, area, (left, top, right, bottom) in rows:
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": seed,
                "category_id": int(class_id) + 1,
                "segmentation": segmentation,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(area),
                "iscrowd": 0,
            }
        )
