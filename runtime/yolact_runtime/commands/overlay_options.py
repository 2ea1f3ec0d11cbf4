"""Options of the pictures that ``yolact-run`` draws, and the painter that uses them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from yolact_plugins.command_line import CommandParser, Rule, needs
from yolact_runtime.errors import UsageError

__all__ = ["OverlayPainter", "add_overlay_options", "check_overlay_options"]

_PARTS = ("masks", "boxes", "labels")


def add_overlay_options(parser: CommandParser, rules: Sequence[Rule] = ()) -> None:
    """Add a group of options that say what is drawn.

    Args:
        parser: Parser of a command with ``--output``.
        rules: Conditions without which nothing is drawn.
    """
    group = parser.add_argument_group("pictures", rules=[*rules, needs("--output", advice="add -o OUT_DIR")])
    group.add_argument("--no-labels", action="store_true", help="draw no names and scores")
    group.add_argument("--no-boxes", action="store_true", help="draw no boxes")
    group.add_argument("--no-masks", action="store_true", help="draw no masks")
    group.add_argument(
        "--color",
        choices=["instance", "class"],
        help="instance: a colour for every object, kept from frame to frame of a video; class: a colour for every "
        "class, the same in all pictures (default instance)",
    )


def check_overlay_options(options: argparse.Namespace) -> None:
    """Refuse options that leave nothing to draw.

    Raises:
        UsageError: Nothing would be drawn on the pictures.
    """
    without = [f"--no-{part}" for part in _PARTS if getattr(options, f"no_{part}")]
    if len(without) == len(_PARTS):
        raise UsageError(f"{' '.join(without)} would draw nothing; leave one of them out, or leave out -o")


class OverlayPainter:
    """A painter of the instances of images, and of the frames of videos in their order.

    Args:
        options: Options that :func:`add_overlay_options` added, parsed.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._shown = {part: not getattr(options, f"no_{part}") for part in _PARTS}
        self._by_class = options.color == "class"
        self._video: str | None = None
        self._keeper: Any = None

    def paint(self, frame: Any, instances: Any, class_names: Sequence[str], video: str | None = None) -> Any:
        """Return a new picture: the frame with its instances.

        Args:
            frame: Image ``(H, W, 3)`` uint8, blue first; not modified.
            instances: Instances of this frame.
            class_names: Names of the classes, by class id.
            video: Name of the video that the frame is the next one of; None for a single picture.
        """
        from yolact_runtime.media.colours import InstanceColours, class_colours
        from yolact_runtime.media.overlay import draw_instances

        colours = None
        if self._by_class:
            colours = class_colours(instances.class_id)
        elif video is not None:
            if video != self._video:
                self._video, self._keeper = video, InstanceColours()
            colours = self._keeper.assign(instances)
        return draw_instances(frame, instances, class_names, colours=colours, **self._shown)
