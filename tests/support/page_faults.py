"""Layout faults of a page in a browser: clipped and overlapping text, overflow, low contrast."""

from __future__ import annotations

from support.browser import Browser

__all__ = ["WIDTHS", "faults", "faults_everywhere"]

WIDTHS = (390, 768, 1280)
"""Of a phone, a tablet and a desk, CSS pixels."""
_PAPER_PX = 718
"""A4 within its margins."""

# Letters stand between about 0.15 and 0.95 of the height of their box, so that lines that only touch do not overlap.
_QUESTION = r"""
(() => {
  const found = [], width = document.documentElement.clientWidth;
  const name = e => `<${e.tagName.toLowerCase()}${e.classList.length ? '.' + e.classList[0] : ''}> "` +
    (e.firstChild?.nodeType === 3 ? e.firstChild.data : e.textContent).trim().slice(0, 40) + '"';
  const isShown = e => e.checkVisibility({visibilityProperty: true, contentVisibilityAuto: true});
  for (const svg of document.querySelectorAll('svg')) {
    if (!isShown(svg)) continue;
    const view = svg.viewBox.baseVal, boxes = [];
    for (const one of svg.querySelectorAll('text')) {
      const b = one.getBBox();
      if (b.x < view.x - .5 || b.x + b.width > view.x + view.width + .5 || b.y + .15 * b.height < view.y ||
          b.y + .95 * b.height > view.y + view.height)
        found.push(`${name(one)} is outside of its picture`);
      for (const [other, c] of boxes)
        if (b.x + .5 < c.x + c.width && c.x + .5 < b.x + b.width &&
            b.y + .15 * b.height < c.y + .95 * c.height && c.y + .15 * c.height < b.y + .95 * b.height)
          found.push(`${name(one)} lies on ${name(other)}`);
      boxes.push([one, b]);
    }
    for (const one of svg.querySelectorAll('rect, circle, polyline, polygon, line, path')) {
      const b = one.getBBox();
      if (b.x < view.x - 1.5 || b.x + b.width > view.x + view.width + 1.5 || b.y < view.y - 1.5 ||
          b.y + b.height > view.y + view.height + 1.5)
        found.push(`${name(one)} ${one.getAttribute('class')} is drawn outside of its picture`);
    }
    const size = parseFloat(getComputedStyle(svg.querySelector('text') || svg).fontSize) *
      svg.getBoundingClientRect().width / view.width;
    if (svg.querySelector('text') && size < 9) found.push(`letters of ${size.toFixed(1)} px in ${name(svg)}`);
  }
  if (document.documentElement.scrollWidth > width)
    found.push(`the page is ${document.documentElement.scrollWidth} px wide`);
  for (const one of document.body.querySelectorAll('*')) {
    if (one.ownerSVGElement || !isShown(one)) continue;
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    const scroller = one.closest('.scroll');
    if (box.width && (!scroller || scroller === one) && (box.left < -.5 || box.right > width + .5))
      found.push(`${name(one)} reaches from ${box.left.toFixed(0)} to ${box.right.toFixed(0)} px`);
    if (style.overflowX === 'hidden' && one.scrollWidth > one.clientWidth + 1 && !one.classList.contains('aside'))
      found.push(`${name(one)} is cut`);
    if (one.matches('td, th, dt, dd, li, p, figcaption, caption, h1, h2, summary') &&
        one.scrollWidth > one.clientWidth + 1 && style.display !== 'inline')
      found.push(`${name(one)} is wider than its box`);
  }
  for (const one of document.querySelectorAll('.scroll')) {
    if (!isShown(one)) continue;
    const hint = one.querySelector('.aside'), box = hint?.getBoundingClientRect();
    const isWide = one.scrollWidth > one.clientWidth + 1;
    const isTold = Boolean(box && isShown(hint) && box.height > 10 && box.width > 60 && box.right < width + 1);
    if (isWide && IS_PRINT) found.push(`${name(one)}: a table is cut on paper`);
    else if (isWide !== isTold)
      found.push(`${name(one)}: ${isWide ? 'no word of columns aside' : 'a hint at columns that do not exist'}`);
  }
  const channels = text => (text.match(/[\d.]+/g) || []).map(Number);
  const luminance = c => {
    const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = channels(getComputedStyle(e).backgroundColor);
      if (c.length === 3) return c;
    }
    return [255, 255, 255];
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + .05) / (low + .05);
  };
  const told = new Set();
  const judge = (one, colour, least, what) => {
    if (colour.length !== 3) return;
    const ratio = contrast(colour, behind(one));
    const line = `${what} of contrast ${ratio.toFixed(2)}: ${colour}`;
    if (ratio < least && !told.has(line)) { told.add(line); found.push(`${line} in ${name(one)}`); }
  };
  for (const one of document.body.querySelectorAll('*')) {
    if (!isShown(one)) continue;
    const style = getComputedStyle(one);
    if (one.tagName === 'text') judge(one, channels(style.fill), 4.5, 'letters');
    else if (one.ownerSVGElement && one.matches('.bar, .mark, .limit, .hollow, .line')) {
      // What is filled faintly, or as the page is, has an outline.
      const isFilled = one.matches('.mark, .c0.bar, .histogram .bar');
      judge(one, channels(isFilled ? style.fill : style.stroke), 3, 'marks');
    } else if ([...one.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && !one.ownerSVGElement)
      judge(one, channels(style.color), 4.5, 'letters');
  }
  return found;
})()
"""


def faults(
    browser: Browser, page: str, width: int = 1280, *, is_dark: bool = False, is_print: bool = False
) -> list[str]:
    """Return a line for each fault of a page; empty if there are none.

    Faults are text or marks outside of their chart, overlapping text, text that is too small, anything wider than the
    window that does not scroll inside its own box, a box that scrolls without a hint (or has a hint without scrolling),
    anything cut off, and low contrast (WCAG 2: 4.5 for text, 3 for marks).

    Args:
        browser: Browser that shows the page.
        page: Content of the page, HTML.
        width: Width of the window, CSS pixels.
        is_dark: Whether the reader prefers dark colours.
        is_print: Whether to lay the page out for print, where nothing scrolls.
    """
    browser.show(page, width, is_dark=is_dark, is_print=is_print)
    found: list[str] = browser.run(_QUESTION.replace("IS_PRINT", "true" if is_print else "false"))
    return found


def faults_everywhere(browser: Browser, page: str) -> dict[str, list[str]]:
    """Return the :func:`faults` at every width, in dark mode and in print, by place; empty if there are none."""
    found = {f"{width} px": faults(browser, page, width) for width in WIDTHS}
    found["dark"] = faults(browser, page, is_dark=True)
    found["paper"] = faults(browser, page, _PAPER_PX, is_print=True)
    return {where: lines for where, lines in found.items() if lines}
