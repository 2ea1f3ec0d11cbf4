"""Text inside charts.

Its width in any font, the part that fits into a given room, and SVG labels that are never cut.
"""

from __future__ import annotations

import unicodedata
from typing import Literal

from yolact_calibration.report.html_page import plain_text, text

__all__ = ["LINE_PX", "TEXT_PX", "draw_label", "shortened", "text_width"]

TEXT_PX, LINE_PX = 15, 16
"""Height of the charts' text, and of a line of it."""
# Widths of letters, for the height of the text, in DejaVu Sans, the widest font that system-ui is anywhere.
_LETTER_WIDTHS = {" !'(),-./:;IJ[\\]`fijlrt|": 0.42, '"*?FLPTY_aceksoxyzv': 0.62, "#$%&+<=>@MWmw^~DGHNOQUC": 1.0}
_WIDTH = {letter: width for letters, width in _LETTER_WIDTHS.items() for letter in letters}
_OTHER_WIDTH, _MARK_WIDTH, _FOREIGN_WIDTH, _EMOJI_WIDTH = 0.7, 0.8, 1.1, 1.5
_FIRST_EMOJI = "\N{MAHJONG TILE EAST WIND}"


def text_width(plain: str, height_px: float = TEXT_PX) -> float:
    """Return the width of a text in pixels, on the safe side: no font that a browser is likely to have is wider.

    Args:
        plain: One line.
        height_px: Size of the font; that of the charts unless it is given.
    """
    return height_px * sum(map(_letter_width, plain))


def _letter_width(letter: str) -> float:
    if letter.isascii():
        return _WIDTH.get(letter, _OTHER_WIDTH)
    if unicodedata.combining(letter):
        return _MARK_WIDTH
    return _FOREIGN_WIDTH if letter < _FIRST_EMOJI else _EMOJI_WIDTH


def _without_stray_marks(plain: str) -> str:
    """Return a text without accents that have no letter of their own, whose width depends on the font."""
    kept = ""
    for letter in unicodedata.normalize("NFC", plain):
        if not unicodedata.combining(letter) or kept[-1:].isalpha():
            kept += letter
    return kept


def shortened(plain: str, room_px: float) -> str:
    """Return a text, or as much of its beginning as fits, with an ellipsis.

    Args:
        plain: One line. Accents without a letter are left out.
        room_px: Maximum width in pixels.
    """
    plain = _without_stray_marks(plain)
    if text_width(plain) <= room_px:
        return plain
    while plain and text_width(plain + "…") > room_px:
        plain = plain[:-1]
    return plain.rstrip() + "…"


def draw_label(
    plain: str,
    x: float,
    y: float,
    room_px: float,
    anchor: Literal["start", "middle", "end"] = "start",
    css_class: str = "",
) -> str:
    """Return an SVG text that takes at most `room_px`; a longer one is shortened, and a tooltip holds the whole.

    Args:
        plain: One line of plain text.
        x: Position of the text's beginning, middle or end, as `anchor` determines.
        y: Position of the baseline.
        room_px: Maximum width in pixels.
        anchor: Part of the text that lies at `x`.
        css_class: Class of the element.
    """
    plain = plain_text(plain)
    shown = shortened(plain, room_px)
    attributes = f' class="{css_class}"' if css_class else ""
    attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
    whole = f"<title>{text(plain)}</title>" if shown.endswith("…") else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{text(shown)}{whole}</text>'
