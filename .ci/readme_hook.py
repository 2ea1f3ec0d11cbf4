"""Hatch hook for the metadata of packages: README, URLs, maintainers.

A package index shows the README without the files beside it. If the repository has a public home (``publisher.py``),
links and images point there, to the files of the same version. If it has none, an image is removed or replaced by its
alternative text, and a link to a file becomes its text with the path of the file, which the source distribution has.
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
    """Return Markdown in which every link is absolute, or points to a heading of the same text."""
    text = _HTML_PICTURE.sub(lambda found: "" if _HTML_SOURCE.search(found[0]) else found[0], text)
    title, _, body = _PICTURE.sub(r"\1", _PICTURE_LINE.sub("", text)).partition("\n\n")
    return f"{title}\n\n{_NOTE}{_LINK.sub(_named, body)}"


def _named(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


def with_absolute_links(text: str, publisher: Any, version: str) -> str:
    """Return Markdown whose relative links and images point to the files of a version in the publisher's repository."""
    text = _PICTURE.sub(lambda found: f"![{found[1]}]({publisher.file_url(found[2], version, raw=True)})", text)
    text = _HTML_SOURCE.sub(lambda found: f"{found[1]}{publisher.file_url(found[2], version, raw=True)}", text)
    return _LINK.sub(lambda found: f"[{found[1]}]({publisher.file_url(found[2], version)}{found[3] or ''})", text)


def packaged_readme(text: str, publisher: Any, version: str) -> str:
    """Return the README in a form that a package index can show.

    Raises:
        ValueError: It has a relative link in HTML, which is not supported.
    """
    if found := re.search(r"<a\b[^>]*\bhref=\"(?!https?:|#)[^>]*>", text):
        raise ValueError(f"README.md: write a relative link as Markdown, found {found[0]}")
    return with_absolute_links(text, publisher, version) if publisher.home else without_relative_links(text)


def _load_publisher(folder: Path) -> ModuleType:
    """Import the module beside this one: Hatch runs a hook without its folder on the path."""
    spec = importlib.util.spec_from_file_location("yolact_deploy_publisher", folder / "publisher.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no publisher.py in {folder}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up the module of a class there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class ReadmeHook(MetadataHookInterface):
    """Metadata hook that fills in ``project.readme``, ``urls`` and ``maintainers``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Update the metadata of ``pyproject.toml``; called by Hatch."""
        root = Path(self.root)
        publisher = _load_publisher(root / ".ci").read_publisher(root)
        source = (root / "plugins/yolact_plugins/__init__.py").read_text(encoding="utf-8")
        (version,) = _VERSION.findall(source)
        text = packaged_readme((root / "README.md").read_text(encoding="utf-8"), publisher, version)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = publisher.urls()
        metadata["maintainers"] = [{"name": publisher.owner}] if publisher.owner else []
