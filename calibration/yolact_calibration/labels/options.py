"""Options of every command that reads annotations: the treatment of images that are missing or elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from yolact_plugins.command_line import OptionGroup, Rule

__all__ = ["FileRules", "Labels", "add_file_rules", "file_rules"]


@dataclasses.dataclass(frozen=True)
class FileRules:
    """Rules for image files that are not where an annotation file expects them.

    Attributes:
        skip_missing: If True, continue without images that do not exist, instead of refusing the file.
        allow_outside: If True, also read images outside of the images' folder, instead of refusing the file.
    """

    skip_missing: bool = False
    allow_outside: bool = False


@dataclasses.dataclass(frozen=True)
class Labels:
    """An annotation file, and the images that it names.

    Attributes:
        annotations: File in COCO's format.
        images: Folder that the file names are relative to.
        rules: Treatment of images that are missing or outside of the folder.
    """

    annotations: Path | str
    images: Path | str
    rules: FileRules = dataclasses.field(default_factory=FileRules)


def add_file_rules(group: OptionGroup, rules: Sequence[Rule] = ()) -> None:
    """Add ``--skip-missing`` and ``--allow-outside``, the same in every command; None if they are not given.

    Args:
        group: Group of options to add to.
        rules: Conditions without which they have no effect.
    """
    group.add_argument(
        "--skip-missing",
        action="store_true",
        default=None,
        rules=rules,
        help="ignore annotated images that are missing, with a count (default: refuse to start)",
    )
    group.add_argument(
        "--allow-outside",
        action="store_true",
        default=None,
        rules=rules,
        help="also read images outside of their folder, to which annotations lead by .., a link or an absolute path",
    )


def file_rules(options: argparse.Namespace) -> FileRules:
    """Return the rules that the options request."""
    return FileRules(bool(options.skip_missing), bool(options.allow_outside))
