"""Tables of a page: on a screen they scroll inside their own box and say so, on paper they shrink until they fit."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Sequence

from yolact_calibration.report.chart_text import text_width
from yolact_calibration.report.html_page import UNDEFINED, text

__all__ = ["Column", "table"]

_TEXT_PX, _GAP_PX, _CODE_PX = 10.67, 7, 118
"""Of a table on paper: size of the letters, room between two columns, and least width of a first column of names."""
_BOLD = 1.15
"""How much wider bold letters are."""
_FIRST_PX, _LAST_PX = 72, 100
"""Least widths of the first column, and of a last column of words, on paper."""
_PAPER_PX = 700
"""Room for a table on A4."""
_SMALLEST_FIT = 0.72
"""Letters are not made smaller than this; words are broken instead."""
_TAG = re.compile(r"<[^>]*>")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Heading, plain text, with the unit.
        is_number: Whether its cells are numbers, which end below each other.
    """

    title: str
    is_number: bool = True


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that scrolls inside its own box where it is wider than the screen.

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
    hint = '<span class="aside" aria-hidden="true"><span>More columns: scroll sideways →</span></span>'
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table{_on_paper(columns, rows)}>'
        f'<caption><span class="told">{text(caption)}</span>{hint}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _alignment(column: Column) -> str:
    return ' class="number"' if column.is_number else ""


def _on_paper(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return attributes that let a table fit on paper, where nothing scrolls: smaller letters, or broken words."""
    fit = min(1.0, _PAPER_PX / _least_width_px(columns, rows))
    if fit == 1.0:
        return ""
    crowded = ' class="crowded"' if fit < _SMALLEST_FIT else ""
    return f'{crowded} style="--fit: {max(fit, _SMALLEST_FIT):.2f}"'


def _least_width_px(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> float:
    """Estimate the least width of a table on paper, from its longest words (a figure is one) and its style."""
    total = 0.0
    for i, column in enumerate(columns):
        cells = [piece for row in rows for piece in _TAG.split(row[i])]
        words = cells if column.is_number else [word for one in cells for word in one.split()]
        head = max((_BOLD * text_width(word, _TEXT_PX) for word in column.title.split()), default=0.0)
        cell = max((text_width(html.unescape(word), _TEXT_PX) for word in words), default=0.0)
        widest = max(head, cell)
        if i == 0:
            is_code = all("<code>" in row[0] for row in rows)
            widest = max(head, _FIRST_PX, min(cell, _CODE_PX) if is_code else _BOLD * cell)
        elif i == len(columns) - 1 and not column.is_number:
            widest = max(widest, _LAST_PX)
        total += widest + _GAP_PX
    return total
