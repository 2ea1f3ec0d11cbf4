"""A self-contained HTML page: its frame and style, and text and numbers as HTML.

The page loads nothing and runs no script, and its content security policy makes the browser enforce that. Everything
from outside passes through :func:`text` or :func:`figure`.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import Any

from yolact_calibration.report.stylesheet import STYLE

__all__ = [
    "MINUS",
    "UNDEFINED",
    "definitions",
    "draw_page",
    "figure",
    "finite",
    "plain_text",
    "points",
    "section",
    "text",
]

UNDEFINED = "\N{EN DASH}"
"""Placeholder for a figure without a value."""

MINUS = "\N{MINUS SIGN}"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LARGEST = 1e30
# Of the format characters only those that reorder the text around them, as in yolact_plugins.text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def draw_page(title: str, body: str, style: str = "") -> str:
    """Return the whole document.

    Args:
        title: Title in plain text.
        body: Content of the page, as HTML.
        style: CSS in addition to the style of every page.
    """
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{text(title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}{style}</style></head>\n'
        f"<body><main>{body}</main></body></html>\n"
    )


def section(title: str, body: str) -> str:
    """Return a section with a heading that links can name, or an empty string if there is no body.

    Args:
        title: Heading, plain text; its anchor is the same in lower case with hyphens.
        body: Content of the section, as HTML.
    """
    anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f'<section><h2 id="{anchor}">{text(title)}</h2>{body}</section>' if body else ""


def text(value: object) -> str:
    """Return any value as HTML text that is safe between quotes, too; see :func:`plain_text`."""
    return html.escape(plain_text(value))


def plain_text(value: object) -> str:
    """Return any value as one line of printable text: control characters become spaces, None is undefined.

    Names that are not valid Unicode, which Linux allows, can be written too.
    """
    if value is None:
        return UNDEFINED
    return _CONTROL.sub(" ", str(value).encode("utf-8", "replace").decode())


def finite(value: Any) -> float | None:
    """Return a number that can be drawn and compared, or None for anything else, including infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    # An int may exceed any float.
    return float(max(-_LARGEST, min(_LARGEST, value)))


def figure(value: Any, unit: str = "", *, digits: int = 3, decimals: int | None = None) -> str:
    """Format a number as HTML text, with a real minus sign.

    Args:
        value: The number; anything else is shown as undefined.
        unit: Unit behind the number.
        digits: Number of significant digits; all digits before the point are shown.
        decimals: Number of decimals, instead of `digits`.
    """
    number = finite(value)
    if number is None:
        return UNDEFINED
    size = abs(number)
    if size >= 1e7 or (decimals is None and 0 < size < 1e-4):
        shown = f"{number:.{digits - 1}e}"
    elif decimals is None:
        magnitude = math.floor(math.log10(size)) if size else 0
        shown = f"{number:.{max(0, digits - 1 - magnitude) if size else 0}f}"
    else:
        shown = f"{number:.{decimals}f}"
    if not shown.strip("-0."):
        shown = shown.lstrip("-")
    return text(shown.replace("-", MINUS) + (f"\N{NO-BREAK SPACE}{unit}" if unit else ""))


def points(interval: Any) -> str:
    """Format ``[estimate, low, high]`` in AP points, the interval below; None is undefined, as a whole or in parts."""
    estimate, low, high = [*(interval or ()), None, None, None][:3]
    shown = figure(estimate, decimals=2)
    if finite(estimate) is None or finite(low) is None or finite(high) is None:
        return shown
    return f"{shown}<small>{figure(low, decimals=2)} to {figure(high, decimals=2)}</small>"


def definitions(entries: Sequence[tuple[str, str]]) -> str:
    """Return a definition list of names, plain text, and their values, HTML."""
    return f"<dl>{''.join(f'<dt>{text(name)}</dt><dd>{value}</dd>' for name, value in entries)}</dl>"
