"""Pairs of pictures: what two models find in the same image, or what its labels say and what a model finds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from yolact_calibration.report.html_page import figure, finite, text
from yolact_plugins.files import counted

__all__ = ["draw_changed_images", "draw_held_back"]

_Rows = Sequence[Mapping[str, Any]]
# Pictures that cannot hold a script, and no address from where anything would be loaded.
_PICTURE = re.compile(r"data:image/(jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")
_COLOUR = "The same colour is the same object on both sides. "
_RANKS = {"best": "Best", "median": "Median", "worst": "Worst"}


def draw_changed_images(images: _Rows | None) -> str:
    """Return the detections of two models side by side, as HTML; empty if no images were compared.

    Args:
        images: Images as for :func:`yolact_calibration.report.contact_sheet.draw_sheet`. ``"sides"`` are the names of
            the two.
    """
    if images is None:
        return ""
    if not images:
        return "<p>No image changed.</p>"
    lead = f"<p>{_COLOUR}Mean IoU is over all instances of the image; one that is lost or new counts as 0.</p>"
    return lead + _sheet(images, ("instance", "found again", "new"))


def draw_held_back(held_back: Mapping[str, Any]) -> str:
    """Return the best, median and worst of the images that a model was not trained on, as HTML.

    Args:
        held_back: Object with ``"num_images"``, the number of compared images; ``"num_empty"``, those of them that show
            nothing and have no detection; ``"truth"``, the source of the comparison, such as ``"labels"``; and
            ``"pictures"``, each with its ``"rank"``: ``"best"``, ``"median"`` or ``"worst"``.
    """
    pictures: _Rows = held_back["pictures"]
    num_images, num_empty = held_back["num_images"], held_back["num_empty"]
    if not pictures:
        return f"<p>There is nothing to see on {counted(num_images, 'image')}: no object, and no detection.</p>"
    groups = {rank: [one for one in pictures if one["rank"] == rank] for rank in _RANKS}
    empty = ""
    if num_empty:
        verbs = ("shows", "is") if num_empty == 1 else ("show", "are")
        empty = f" {num_empty} of them {verbs[0]} no object, which is what was found, and {verbs[1]} not ranked."
    lead = (
        f"<p>{counted(num_images, 'image')} that the model was not trained on, ranked by mean mask IoU against the "
        f"{text(held_back['truth'])}: an object that is missed counts as 0, and so does a detection where there is no "
        f"object. Shown are the highest, the middle and the lowest of the ranking.{empty} Detections count from a "
        f"confidence of 0.3; weaker ones only where they match an object. {_COLOUR}</p>"
    )
    return lead + "".join(
        f"<h3>{_RANKS[rank]}</h3>{_sheet(some, ('object', 'found', 'false'))}" for rank, some in groups.items() if some
    )


def _sheet(images: _Rows, words: tuple[str, str, str]) -> str:
    return f'<div class="sheet">{"".join(_pair(image, words) for image in images)}</div>'


def _pair(image: Mapping[str, Any], words: tuple[str, str, str]) -> str:
    noun, found_again, extra = words
    loss = finite(image.get("loss"))
    facts = [] if loss is None else [f"mean IoU {figure(1 - loss, decimals=2)}"]
    if finite(image.get("num_reference")) is not None:
        matched, total = (figure(image.get(key), decimals=0) for key in ("num_matched", "num_reference"))
        facts.append(f"{matched} of {total} {noun}{'s' * (total != '1')} {found_again}")
    if finite(image.get("num_extra")):
        facts.append(f"{figure(image.get('num_extra'), decimals=0)} {extra}")
    names = image.get("sides") or ("FP32", "INT8")
    sides = [_side(image, key, str(name)) for key, name in zip(("reference", "candidate"), names, strict=True)]
    caption = f"<figcaption><code>{text(image.get('name'))}</code>: {', '.join(facts)}</figcaption>"
    return f'<figure><div class="pair">{"".join(sides)}</div>{caption}</figure>'


def _side(image: Mapping[str, Any], key: str, name: str) -> str:
    address = str(image.get(key) or "")
    if not _PICTURE.fullmatch(address):
        return f"<div><span>{text(name)}: no picture</span></div>"
    alternative = f"{text(image.get('name'))}, {text(name)}"
    return f'<div><span>{text(name)}</span><img src="{address}" alt="{alternative}" decoding="async"></div>'
