"""Parser of self-contained pages: it fails if tags do not nest, and keeps what tests inspect."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

__all__ = ["Element", "Page", "read_page"]

_VOID = {"meta", "br", "img"}


@dataclasses.dataclass
class Element:
    """A tag with its attributes and the text inside."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


class Page(HTMLParser):
    """Content of a page.

    Attributes:
        elements: Elements in the order in which they open.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"{tag} has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def close(self) -> None:
        super().close()
        assert self._open == []

    def all(self, tag: str) -> list[Element]:
        """Return the elements with that tag."""
        return [element for element in self.elements if element.tag == tag]

    def texts(self, tag: str) -> list[str]:
        """Return the texts of the elements with that tag."""
        return [element.text for element in self.all(tag)]

    def corners(self, tag: str = "polyline") -> list[list[tuple[float, float]]]:
        """Return the points of each line."""
        pairs = [element.attributes["points"].split() for element in self.all(tag)]
        return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line)] for line in pairs]


def read_page(page: str) -> Page:
    """Parse a page or a part of one, and assert what every page guarantees.

    Nothing is loaded from elsewhere, nothing is executed, ids are unique, images have an alternative text, and
    coordinates are numbers.
    """
    assert not re.search(r"https?:|@import|url\(|<script|javascript:|\bon\w+\s*=\s*[\"']", page, re.IGNORECASE)
    assert not re.search(r"\b(nan|inf|None)\b", re.sub(r"base64,[^\"]*", "", page))
    found = Page()
    found.feed(page)
    found.close()
    for element in found.elements:
        assert element.tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert element.attributes.get("src", "data:image/").startswith("data:image/")
        assert element.attributes.get("href", "#").startswith("#")
        if element.tag == "img":
            assert element.attributes["alt"]
        if element.tag == "th":
            assert element.attributes["scope"] in {"row", "col"}
    ids = [element.attributes["id"] for element in found.elements if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    anchors = [element.attributes["href"][1:] for element in found.all("a")]
    assert set(anchors) <= set(ids)
    pictures = [element for element in found.all("svg") if "aria-hidden" not in element.attributes]
    assert all(element.attributes["role"] == "img" for element in pictures)
    return found
