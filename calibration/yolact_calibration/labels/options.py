"""Options of every command that reads annotations: what is to happen with images that are absent or elsewhere."""

from __future__ import annotations

import argparse
import dataclasses

__all__ = ["FileRules", "add_file_rules", "file_rules"]


@dataclasses.dataclass(frozen=True)
class FileRules:
    """What is done about image files that are not where an annotation file should have them.

    Attributes:
        skip_missing: Go on without images that are not there, instead of refusing the file.
        allow_outside: Read images outside of the images' folder too, instead of refusing the file.
    """

    skip_missing: bool = False
    allow_outside: bool = False


def add_file_rules(group: argparse._ActionsContainer) -> None:
    """``--skip-missing`` and ``--allow-outside``, the same in every command; None where they are not given."""
    group.add_argument(
        "--skip-missing",
        action="store_true",
        default=None,
        help="go on without annotated images that are not there (default: refuse to start)",
    )
    group.add_argument(
        "--allow-outside",
        action="store_true",
        default=None,
        help="read images outside of their folder too, where annotations lead there by .., a link or an absolute path",
    )


def file_rules(options: argparse.Namespace) -> FileRules:
    """The rules that were given."""
    return FileRules(bool(options.skip_missing), bool(options.allow_outside))
