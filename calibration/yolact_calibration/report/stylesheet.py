"""The style sheet of every page: the page, its tables, charts and pictures, on screens, in the dark and on paper.

Colours are those of Okabe and Ito, which colour-blind eyes tell apart; on white, orange and sky are too faint for thin
lines (WCAG 2 asks for a contrast of 3), so that brown and grey stand for them. In the dark the light ones come first.
Paper is white whatever the screen is. No meaning is in a colour alone: lines have dashes, marks have shapes, and bars
are filled in different ways.
"""

from __future__ import annotations

__all__ = ["STYLE"]

_PAGE = """
:root { color-scheme: light dark; --ink: #1b1f24; --page: #fff; --faint: #59636e; --rule: #d0d7de; --panel: #f3f5f7;
  --good: #006b4f; --bad: #b34700; --shade: rgb(0 0 0 / .22);
  --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #cc79a7; --s4: #9a6700; --s5: #6e7781; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --page: #14171b; --faint: #a3abb4;
  --rule: #3a4149; --panel: #1f242a; --good: #3cc79f; --bad: #ff9a4d; --shade: rgb(255 255 255 / .22);
  --s0: #56b4e9; --s1: #e69f00; --s2: #1fb58b; --s3: #cc79a7; --s4: #f0e442; --s5: #d55e00; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 1040px;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0; max-width: 46rem; } .faint { color: var(--faint); } .good { color: var(--good); }
.bad { color: var(--bad); } code, td, th { unicode-bidi: isolate; }
.callout { border-left: 5px solid var(--s0); background: var(--panel); padding: .6rem .9rem; font-size: 1.1rem; }
dl { display: grid; grid-template-columns: fit-content(40%) minmax(0, 1fr); gap: .2rem 1rem; margin: .5rem 0;
  font-size: .9rem; }
dt { color: var(--faint); } dd { margin: 0; } summary { cursor: pointer; padding: .3rem 0; font-weight: 600; }
ul { padding-left: 1.2rem; } footer { margin-top: 2rem; font-size: .85rem; }
@media print { :root { color-scheme: light; } body { font-size: 10pt; max-width: none; padding: 0; }
  tr, figure { break-inside: avoid; } h2, h3, summary { break-after: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""
# A hint's height is zero unless the table is wider than its box: 100 % is the table's width, 100cqw that of the box.
_TABLES = """
.scroll { container-type: inline-size; overflow-x: auto; margin: .6rem 0; padding-right: 2px;
  background: linear-gradient(to right, var(--page) 50%, transparent) left / 28px 100% no-repeat local,
    linear-gradient(to left, var(--page) 50%, transparent) right / 28px 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / 14px 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) right / 14px 100% no-repeat scroll; }
.aside { display: block; position: sticky; left: 0; max-width: 100cqw; height: 0; overflow: hidden; color: var(--ink);
  padding-top: clamp(0px, (100% - 100cqw) * 999, 1.6em); }
.aside span { position: absolute; top: 0; left: 0; white-space: nowrap; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; color: var(--faint); padding-bottom: .3rem; }
.told { display: block; position: sticky; left: 0; max-width: min(60rem, 100cqw); overflow-wrap: anywhere; }
th, td { text-align: left; vertical-align: top; padding: .3rem .55rem .3rem 0; border-bottom: 1px solid var(--rule);
  overflow-wrap: normal; } th { font-weight: 600; } thead th { vertical-align: bottom; }
.number { text-align: right; font-variant-numeric: tabular-nums; } td.number { white-space: nowrap; }
td small { display: block; color: var(--faint); font-size: .85em; } td:not(.number):last-child { min-width: 9rem; }
tbody th { min-width: 6.5rem; overflow-wrap: break-word; }
tbody th code { display: block; min-width: 11rem; overflow-wrap: anywhere; } tr > :last-child { padding-right: 0; }
@media print { .scroll { overflow: visible; container-type: normal; background: none; padding: 0; }
  .aside { display: none; } .told { position: static; max-width: none; } table { font-size: calc(8pt * var(--fit, 1)); }
  tbody th { min-width: 4.5rem; } tbody th code { min-width: 7.5rem; }
  .crowded { table-layout: fixed; width: 100%; } .crowded :is(th, td, code) { min-width: 0; white-space: normal;
    overflow-wrap: anywhere; } .crowded svg { max-width: 100%; } thead { break-after: avoid; } }
"""
_CHARTS = """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: .5rem 1.5rem;
  align-items: end; }
.chart { margin: .6rem 0; max-width: 580px; } .chart figcaption { font-weight: 600; font-size: .95rem; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 15px; paint-order: stroke;
  stroke: var(--page); stroke-width: 3px; }
.axis { stroke: var(--faint); } .grid { stroke: var(--rule); } .limit { stroke: var(--bad); stroke-dasharray: 6 4;
  stroke-width: 1.5; }
svg .limit-name { fill: var(--bad); }
.line { fill: none; stroke: var(--c); stroke-width: 2; } svg .front { stroke: var(--faint); stroke-width: 1.2; }
.mark { fill: var(--c); stroke: var(--page); } .hollow { fill: var(--page); stroke: var(--c); stroke-width: 1.6; }
.span { stroke: var(--c); stroke-width: 1.5; stroke-opacity: .6; fill: none; }
.bar { fill: var(--c); stroke: var(--c); } .bar.c1 { fill-opacity: .25; } .bar.c2 { fill: var(--page); }
.bar.c3 { fill-opacity: .6; stroke: var(--ink); } .bar.c4 { fill: var(--page); stroke-dasharray: 3 2; }
.bar.c5 { fill-opacity: .25; stroke-dasharray: 3 2; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 1rem; margin: .2rem 0; padding: 0; font-size: .85rem;
  min-height: 1.5em; } .legend li { max-width: 100%; }
.legend svg { display: inline-block; width: 30px; height: 12px; margin-right: .35rem; }
.c0 { --c: var(--s0); } .c1 { --c: var(--s1); } .c2 { --c: var(--s2); }
.c3 { --c: var(--s3); } .c4 { --c: var(--s4); } .c5 { --c: var(--s5); }
.histogram { width: 160px; } .histogram .bar { fill: var(--s0); stroke: none; }
.cut { fill: var(--s1); fill-opacity: .18; }
.clip { stroke: var(--s1); stroke-width: 1.5; }
@media print { * { print-color-adjust: exact; }
  .charts { grid-template-columns: 1fr 1fr; } }
"""
_PICTURES = """
.sheet { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 1.2rem 1.5rem; }
.sheet figure { margin: 0; } .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
.pair img { width: 100%; height: auto; display: block; } .sheet figcaption { font-size: .85rem; }
.pair span { font-size: .75rem; color: var(--faint); }
@media print { .sheet { grid-template-columns: 1fr 1fr; } }
"""
STYLE = _PAGE + _TABLES + _CHARTS + _PICTURES
"""CSS."""
