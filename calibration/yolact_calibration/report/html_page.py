"""An HTML page that needs nothing beside itself: its frame and style, text and numbers as HTML, and tables.

It loads nothing and runs nothing, and says so to the browser, which would refuse. Whatever comes from outside passes
:func:`text` or :func:`figure`.
"""

from __future__ import annotations

import dataclasses
import datetime
import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "MINUS",
    "UNDEFINED",
    "Column",
    "definitions",
    "draw_page",
    "figure",
    "finite",
    "made_with",
    "now_utc",
    "points",
    "table",
    "text",
]

UNDEFINED = "\N{EN DASH}"
"""Stands where a figure has no value."""

MINUS = "\N{MINUS SIGN}"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LARGEST = 1e30
_PHONE_PX, _LETTER_PX, _GAP_PX = 360, 8.5, 9
"""Room for a table on a phone; width of a letter of a table; room between two columns."""
_FIRST_PX, _LAST_PX = 104, 144
"""What the style below gives the first column, and a last column of words."""
_TAG = re.compile(r"<[^>]*>")
# Of the format characters those that reorder what stands around them, as in yolact_plugins.text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
# Blue, vermilion, green, purple, orange and sky of Okabe and Ito, which colour-blind eyes tell apart; in the dark their
# lighter ones come first. Paper is white whatever the screen is.
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --page: #fff; --faint: #59636e; --rule: #d0d7de; --panel: #f3f5f7;
  --good: #006b4f; --bad: #b34700; --shade: rgb(0 0 0 / .22);
  --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #cc79a7; --s4: #e69f00; --s5: #56b4e9; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --page: #14171b; --faint: #a3abb4;
  --rule: #3a4149; --panel: #1f242a; --good: #3cc79f; --bad: #ff9a4d; --shade: rgb(255 255 255 / .22);
  --s0: #56b4e9; --s1: #e69f00; --s2: #1fb58b; --s3: #cc79a7; --s4: #f0e442; --s5: #d55e00; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 1040px;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; } .faint { color: var(--faint); } .good { color: var(--good); }
.bad { color: var(--bad); } code, td, th { unicode-bidi: isolate; }
.callout { border-left: 5px solid var(--s0); background: var(--panel); padding: .6rem .9rem; font-size: 1.1rem; }
.scroll { overflow-x: auto; margin: .6rem 0; padding-right: 2px;
  background: linear-gradient(to right, var(--page) 50%, transparent) left / 28px 100% no-repeat local,
    linear-gradient(to left, var(--page) 50%, transparent) right / 28px 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / 14px 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) right / 14px 100% no-repeat scroll; }
.aside { display: none; } @media screen and (max-width: 660px) { .wide .aside { display: block; color: var(--ink); } }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; color: var(--faint); padding-bottom: .3rem; }
caption span { display: block; position: sticky; left: 0; max-width: min(60rem, calc(100vw - 2rem)); }
th, td { text-align: left; vertical-align: top; padding: .3rem .55rem .3rem 0; border-bottom: 1px solid var(--rule);
  overflow-wrap: normal; } th { font-weight: 600; } thead th { vertical-align: bottom; }
.number { text-align: right; font-variant-numeric: tabular-nums; } td.number { white-space: nowrap; }
td small { display: block; color: var(--faint); font-size: .85em; } td:not(.number):last-child { min-width: 9rem; }
tbody th { min-width: 6.5rem; overflow-wrap: break-word; }
tbody th code { display: block; min-width: 11rem; overflow-wrap: anywhere; } tr > :last-child { padding-right: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .5rem 0; font-size: .9rem; }
dt { color: var(--faint); } dd { margin: 0; } summary { cursor: pointer; padding: .3rem 0; font-weight: 600; }
ul { padding-left: 1.2rem; } footer { margin-top: 2rem; font-size: .85rem; }
@media print { :root { color-scheme: light; } body { font-size: 10pt; max-width: none; padding: 0; }
  .scroll { overflow: visible; } table { font-size: 8pt; } tr, figure { break-inside: avoid; }
  h2, summary, thead { break-after: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""


@dataclasses.dataclass(frozen=True)
class Column:
    """Of a table.

    Attributes:
        title: Heading, plain text, with the unit.
        is_number: Its cells end below each other.
    """

    title: str
    is_number: bool = True


def draw_page(title: str, body: str, style: str = "") -> str:
    """The whole document.

    Args:
        title: Plain text.
        body: HTML.
        style: CSS besides that of every page.
    """
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{text(title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}{style}</style></head>\n'
        f"<body><main>{body}</main></body></html>\n"
    )


def text(value: object) -> str:
    """Anything as HTML text, also between quotes; names that are no Unicode, as Linux allows, can be written too."""
    if value is None:
        return UNDEFINED
    plain = str(value).encode("utf-8", "replace").decode()
    return html.escape(_CONTROL.sub(" ", plain))


def finite(value: Any) -> float | None:
    """A number that can be drawn and compared; None for whatever else stands in its place, infinity too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    # An int may be beyond any float.
    return float(max(-_LARGEST, min(_LARGEST, value)))


def figure(value: Any, unit: str = "", *, digits: int = 3, decimals: int | None = None) -> str:
    """A number as HTML text, with a real minus sign.

    Args:
        value: Number; anything else is shown as undefined.
        unit: Follows the number.
        digits: Significant ones; all of those before the point are shown.
        decimals: So many after the point instead.
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
    """``[estimate, low, high]`` in AP points, the interval below; None is undefined, as a whole or in parts."""
    estimate, low, high = [*(interval or ()), None, None, None][:3]
    shown = figure(estimate, decimals=2)
    if finite(estimate) is None or finite(low) is None or finite(high) is None:
        return shown
    return f"{shown}<small>{figure(low, decimals=2)} to {figure(high, decimals=2)}</small>"


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls inside its own box where it is wider than the screen.

    Columns in which no figure is defined are left out.

    Args:
        caption: Plain text.
        columns: The first one's cells name the rows.
        rows: Cells as HTML.
    """
    kept = [i for i in range(len(columns)) if i == 0 or any(row[i] != UNDEFINED for row in rows)]
    columns, rows = [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]
    heads = "".join(f'<th scope="col"{_alignment(column)}>{text(column.title)}</th>' for column in columns)
    body = []
    for row in rows:
        cells = [f'<th scope="row">{row[0]}</th>']
        cells += [f"<td{_alignment(c)}>{cell}</td>" for c, cell in zip(columns[1:], row[1:], strict=True)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    is_wide = _least_width_px(columns, rows) > _PHONE_PX
    hint = '<span class="aside">More columns to the right: scroll aside →</span>' if is_wide else ""
    return (
        f'<div class="scroll{" wide" * is_wide}" role="region" tabindex="0" aria-label="{text(caption)}"><table>'
        f"<caption><span>{text(caption)}</span>{hint}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _least_width_px(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> float:
    """About the width below which a table has to scroll: of the longest words (a figure is one), or of the style."""
    total = 0.0
    for i, column in enumerate(columns):
        cells = [piece for row in rows for piece in _TAG.split(row[i])]
        pieces = [
            *column.title.split(),
            *(cells if column.is_number else (word for one in cells for word in one.split())),
        ]
        widest = _LETTER_PX * max((len(html.unescape(piece)) for piece in pieces), default=0)
        if i == 0:
            widest = max(widest, _FIRST_PX)
        elif i == len(columns) - 1 and not column.is_number:
            widest = max(widest, _LAST_PX)
        total += widest + _GAP_PX
    return total


def _alignment(column: Column) -> str:
    return ' class="number"' if column.is_number else ""


def made_with(versions: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The foot of a page: what made it, when, by which command, and from what; empty where nothing is known.

    Args:
        versions: Program -> version.
        made: ``"date"``, ``"command"``, ``"source"``; each may be missing.
    """
    programs = ", ".join(f"{text(program)} {text(version)}" for program, version in versions.items())
    parts = [
        f"with {programs}" if programs else "",
        f"on {text(made['date'])}" if made.get("date") else "",
        f"from <code>{text(made['source'])}</code>" if made.get("source") else "",
        f"by <code>{text(made['command'])}</code>" if made.get("command") else "",
    ]
    told = " ".join(part for part in parts if part)
    return f'<footer class="faint"><p>Made {told}.</p></footer>' if told else ""


def now_utc() -> str:
    """The minute that it is, as pages write it: ``2026-11-27 21:30 UTC``."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def definitions(entries: Sequence[tuple[str, str]]) -> str:
    """Names, plain text, beside what they stand for, HTML."""
    return f"<dl>{''.join(f'<dt>{text(name)}</dt><dd>{value}</dd>' for name, value in entries)}</dl>"
