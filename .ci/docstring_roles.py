"""Griffe extension for the API pages: docstrings of this project, rendered as Markdown.

Sphinx roles such as :class:`Masks` and :func:`~yolact_runtime.model.bundle.open_bundle` become links if the object is
on a page, and code otherwise. Members of an enumeration are listed with their values.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

# Methods that Python calls implicitly, and that users do not look up.
_HIDDEN = {"__del__", "__enter__", "__exit__", "__post_init__", "__repr__"}
# Its page begins with an introduction of its own.
_WITH_INTRODUCTION = "yolact_runtime"
_ROLE = re.compile(r":(?:py:)?(?:attr|class|const|data|exc|func|meth|mod|obj):`(~?)([^`<>]+)`")


class DocstringRoles(griffe.Extension):
    """Griffe extension that rewrites the docstring of each object, and hides methods that Python calls implicitly."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one object, which Griffe has collected with its members."""
        _rewrite(obj)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the package itself, for which Griffe does not call :meth:`on_object`."""
        _rewrite(pkg)


def _rewrite(obj: griffe.Object) -> None:
    if obj.name in _HIDDEN:
        obj.public = False
    if obj.path == _WITH_INTRODUCTION:
        obj.docstring = None
    if obj.docstring is not None:
        obj.docstring.value = with_references(obj.docstring.value, obj) + _enumeration(obj)


def with_references(text: str, scope: griffe.Object) -> str:
    """Replace the Sphinx roles of a docstring by links, and return it.

    Args:
        text: Docstring to rewrite.
        scope: Object that the docstring belongs to; names are looked up from there, as Sphinx does.
    """
    return _ROLE.sub(lambda role: _reference(role[2], bool(role[1]), scope), text)


def _reference(name: str, short: bool, scope: griffe.Object) -> str:
    shown = name.rpartition(".")[2] if short else name
    path = _resolve(name, scope)
    if path is None:
        return f"`{shown}`"
    return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'


def _resolve(name: str, scope: griffe.Object) -> str | None:
    """Find the full path of a name, among the members of the scope and of what the scope is in."""
    if name.startswith("yolact_"):
        return name
    place: griffe.Object | None = scope
    while place is not None:
        try:
            return place[name].canonical_path
        except (KeyError, griffe.AliasResolutionError):
            place = place.parent if isinstance(place.parent, griffe.Object) else None
    return None


def _enumeration(obj: griffe.Object) -> str:
    if not isinstance(obj, griffe.Class) or not any(str(base).endswith("Enum") for base in obj.bases):
        return ""
    members = [f"* `{name}`: `{value.value}`" for name, value in obj.attributes.items() if name.isupper()]
    return "\n\n" + "\n".join(members)
