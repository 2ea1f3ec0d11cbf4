"""Hatch's hook for the metadata of packages: README, urls, maintainers.

A package index shows the README away from the files beside it. Where the repository has a public home
(``publisher.py``), links and pictures lead there, to the files of the same version. Where it has none, a picture goes,
or leaves its words in a sentence, and a link to a file becomes its text with the file's path, which the source
distribution has.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE_LINE = re.compile(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n?", re.MULTILINE)
_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)#\s]+)\)")
_LINK = re.compile(r"(?<!!)\[((?:!\[[^\]]*\]\([^)]*\)|[^\]])+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_HTML_SOURCE = re.compile(r"(<(?:img|source)\b[^>]*?\b(?:src|srcset)=\")(?!https?:)([^\"\s]+)(?=\")")
_HTML_PICTURE = re.compile(r"<picture>.*?</picture>|<img\b[^>]*>", re.DOTALL)
_NOTE = "*Files that are named here, such as `docs/runtime.md`, are in the source distribution.*\n\n"
_VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


def without_relative_links(text: str) -> str:
    """Markdown in which every link is an address of its own, or leads to a heading of the same text."""
    text = _HTML_PICTURE.sub(lambda found: "" if _HTML_SOURCE.search(found[0]) else found[0], text)
    title, _, body = _PICTURE.sub(r"\1", _PICTURE_LINE.sub("", text)).partition("\n\n")
    return f"{title}\n\n{_NOTE}{_LINK.sub(_named, body)}"


def _named(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


def with_absolute_links(text: str, publisher: Any, version: str) -> str:
    """Markdown whose relative links and pictures lead to the files of a version in the publisher's repository."""
    text = _PICTURE.sub(lambda found: f"![{found[1]}]({publisher.file_url(found[2], version, raw=True)})", text)
    text = _HTML_SOURCE.sub(lambda found: f"{found[1]}{publisher.file_url(found[2], version, raw=True)}", text)
    return _LINK.sub(lambda found: f"[{found[1]}]({publisher.file_url(found[2], version)}{found[3] or ''})", text)


def packaged_readme(text: str, publisher: Any, version: str) -> str:
    """The README as a package index can show it.

    Raises:
        ValueError: It has a link in HTML with a relative address, which is not followed here.
    """
    if found := re.search(r"<a\b[^>]*\bhref=\"(?!https?:|#)[^>]*>", text):
        raise ValueError(f"README.md: write a relative link as Markdown, found {found[0]}")
    return with_absolute_links(text, publisher, version) if publisher.home else without_relative_links(text)


def _load_publisher(folder: Path) -> ModuleType:
    """The module beside this one: Hatch runs a hook without its folder on the path."""
    spec = importlib.util.spec_from_file_location("yolact_deploy_publisher", folder / "publisher.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no publisher.py in {folder}")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for the module of a class.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class ReadmeHook(MetadataHookInterface):
    """Fills in ``project.readme``, ``urls`` and ``maintainers``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by Hatch with the metadata of ``pyproject.toml``."""
        root = Path(self.root)
        publisher = _load_publisher(root / ".ci").read_publisher(root)
        source = (root / "plugins/yolact_plugins/__init__.py").read_text(encoding="utf-8")
        (version,) = _VERSION.findall(source)
        text = packaged_readme((root / "README.md").read_text(encoding="utf-8"), publisher, version)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = publisher.urls()
        metadata["maintainers"] = [{"name": publisher.owner}] if publisher.owner else []
