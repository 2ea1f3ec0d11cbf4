"""Hatch's hook for the README of packages: the one of the repository, without links and pictures that lead nowhere.

A package index shows the README away from the files beside it, and the project has no public host whose addresses could
take their place. So a picture goes, and a link to a file becomes its text with the file's path, which the source
distribution has.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n?", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(?:#[^)\s]*)?\)")
_NOTE = "*Files that are named here, such as `docs/runtime.md`, are in the source distribution.*\n\n"


def without_relative_links(text: str) -> str:
    """Markdown in which every link is an address of its own, or leads to a heading of the same text."""
    title, _, body = _PICTURE.sub("", text).partition("\n\n")
    return f"{title}\n\n{_NOTE}{_LINK.sub(_named, body)}"


def _named(link: re.Match[str]) -> str:
    text, path = link.groups()
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


class ReadmeHook(MetadataHookInterface):
    """Fills in ``project.readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by Hatch with the metadata of ``pyproject.toml``."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": without_relative_links(text)}
