"""The record of ``yolact-bench`` as tables: for a terminal of 80 columns, and in Markdown."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yolact_plugins.files import counted, human_size

__all__ = ["Table", "bench_tables", "render_markdown", "render_text", "unstable_lines"]

NONE = "-"
_COLUMNS = 80
_SHORT_STAGES = {"preprocess": "preproc", "candidates": "candid."}


@dataclasses.dataclass(frozen=True)
class Table:
    """A text table.

    Attributes:
        title: Title above the table.
        heads: Headings of the columns.
        rows: Cells of each row; the first `num_names` are names, the others figures.
        num_names: Number of columns that are aligned to the left.
        notes: Notes below the table.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_names: int = 1
    notes: tuple[str, ...] = ()


def bench_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return all tables of a record's results; parts that were not measured have a note with the reason."""
    cases, models = results["cases"], results["models"]
    tables: list[Table | None] = [_latency_table(cases), *_stage_tables(cases), _model_table(models, cases)]
    if any("accuracy" in model for model in models):
        tables.append(_accuracy_table(models, cases))
    if "peers" in results:
        tables.append(_peer_table(results["peers"]))
    tables += [_layer_table(name, one) for name, one in (results.get("layers") or {}).items()]
    return [table for table in tables if table is not None]


def unstable_lines(results: Mapping[str, Any]) -> list[str]:
    """Return the reasons to distrust the figures; those that hold for all of them are listed once."""
    common = results["machine"]["reasons"]
    lines = [f"unstable, all configurations: {reason}" for reason in common]
    for case in results["cases"]:
        lines += [f"unstable, {case['name']}: {r}" for r in case["verdict"]["reasons"] if r not in common]
    return lines + [f"unstable, peers: {reason}" for reason in (results.get("peers") or {}).get("reasons", ())]


def _latency_table(cases: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for case in cases:
        latency = case["latency"]
        percentiles = latency["percentiles_ms"]
        half = (latency["median_high_ms"] - latency["median_low_ms"]) / 2
        rows.append(
            (
                *_names(case),
                _ms(percentiles["p50"]),
                f"{_ms(half)}",
                *(_ms(percentiles[name]) for name in ("p90", "p99", "p99.9")),
                _ms(latency["jitter_ms"]),
                f"{latency['cov']:.1%}",
                _fps(latency["throughput_fps"]),
                "" if case["verdict"]["stable"] else "!",
            )
        )
    heads = ("network", "frames", "N", "median", "±", "p90", "p99", "p99.9", "jitter", "CoV", "fps", "")
    frames = [case["latency"]["count"] for case in cases]
    told = f"{min(frames)} to {max(frames)}" if min(frames) < max(frames) else f"{frames[0]}"
    told += f" frame{'s' * (max(frames) != 1)} each"
    processes = cases[0]["latency"].get("processes", 1)
    told += f", from {processes} processes" if processes > 1 else ""
    note = f"{told}; ± half the 95 % interval of the median; {NONE} too few frames for it; ! unstable"
    return Table("end to end, ms a frame", heads, tuple(rows), 3, (note,))


def _stage_tables(cases: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table for the host's clock and one for the device's; their times do not add up to each other."""
    by_clock: dict[str, list[str]] = {}
    for stage in (stage for case in cases for stage in case["stages"]):
        names = by_clock.setdefault(stage["clock"], [])
        if stage["name"] not in names:
            names.append(stage["name"])
    has_network = {clock: "network" in names for clock, names in by_clock.items()}
    titles = {"wall": "stages, medians, ms", "device": "stages on the GPU, medians, ms"}
    return [_stage_table(titles[clock], names, cases, has_network[clock]) for clock, names in by_clock.items()]


def _stage_table(title: str, stages: Sequence[str], cases: Sequence[Mapping[str, Any]], with_around: bool) -> Table:
    rows = []
    for case in cases:
        known = {stage["name"]: stage for stage in case["stages"]}
        figures = [_ms(known[name]["median_ms"]) if name in known else NONE for name in stages]
        around = case["around_network"]
        tail = (NONE if around is None else f"{around:.1%}",) if with_around else ()
        rows.append((*_names(case), *figures, *tail))
    heads = ("network", "frames", "N", *(_SHORT_STAGES.get(name, name) for name in stages))
    notes = ("around: time of a frame outside of its network, over the network's",) if with_around else ()
    return Table(title, (*heads, "around") if with_around else heads, tuple(rows), 3, notes)


def _model_table(models: Sequence[Mapping[str, Any]], cases: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for model in models:
        cold = model.get("cold_start") or {}
        of_model = [case for case in cases if case["precision"] == model["precision"]]
        streams = [s["fps"] for case in of_model if (s := case.get("streaming") or {}).get("fps")]
        rows.append(
            (
                model["precision"],
                human_size(model["size_bytes"]),
                NONE if cold.get("peak_memory_mb") is None else f"{cold['peak_memory_mb']:.0f} MB",
                _ms(cold.get("open")),
                _ms(cold.get("first_frame")),
                _ms(cold.get("to_first_result")),
                _fps(streams[-1]) if streams else NONE,
                _energy(of_model[-1]["energy"]) if of_model else NONE,
            )
        )
    heads = ("network", "file", "memory", "open", "1st frame", "cold start", "stream fps", "J/frame")
    notes = ["memory: peak of a fresh process; cold start: process to first instances, ms"]
    notes += sorted({f"energy not measured: {e}" for case in cases if (e := case["energy"].get("not_measured"))})
    reasons = {(case.get("streaming") or {}).get("not_measured") for case in cases}
    notes += [f"streaming not measured: {reason}" for reason in sorted(filter(None, reasons))]
    return Table("models", heads, tuple(rows), 1, tuple(notes))


def _accuracy_table(models: Sequence[Mapping[str, Any]], cases: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    measure = images = None
    for model in models:
        accuracy = model.get("accuracy")
        if accuracy is None:
            continue
        measure, images = accuracy["measure"], accuracy["images"]
        latency = [case["latency"] for case in cases if case["precision"] == model["precision"]][-1]
        rows.append(
            (
                model["precision"],
                _ms(latency["percentiles_ms"]["p50"]),
                *(cell for kind in ("box", "mask") for cell in _interval(accuracy[kind])),
            )
        )
    heads = ("network", "median ms", f"box {measure}", "95 %", f"mask {measure}", "95 %")
    note = f"{measure} on {counted(images or 0, 'image')}; median of the last row above of that network"
    return Table("accuracy beside speed", heads, tuple(rows), 1, (note,))


def _peer_table(peers: Mapping[str, Any]) -> Table:
    rows = [
        (
            row["name"],
            row["over"],
            _ms(row["median_ms"]),
            f"{row['ratio']:.2f} x",
            f"{row['low']:.2f} to {row['high']:.2f}",
        )
        for row in peers["rows"]
    ]
    ours = ", ".join(f"{name} {_ms(ms)} ms" for name, ms in peers["ours"].items())
    notes = [f"{peers['caption']}; ours: {ours}"]
    notes += [f"missing: {one['name']}: {one['why']}" for one in peers["missing"]]
    return Table("peers over ours", ("peer", "ours", "median", "ratio", "95 %"), tuple(rows), 2, tuple(notes))


def _layer_table(precision: str, profile: Mapping[str, Any]) -> Table | None:
    if "blocks" not in profile:
        return Table(f"parts of {precision}", ("part",), (), 1, (f"not measured: {profile['not_measured']}",))
    rows = [
        (
            block["name"],
            _ms(block["ms"]),
            f"{block['share']:.1%}",
            f"{block['mb']:.1f}",
            NONE if block["operations_per_byte"] is None else f"{block['operations_per_byte']:.0f}",
            block["bound_by"] or NONE,
            ", ".join(block["precisions"]),
        )
        for block in sorted(profile["blocks"], key=lambda one: -one["ms"])
    ]
    heads = ("part", "ms", "share", "MB", "op/byte", "bound by", "convolutions")
    return Table(f"parts of {precision}", heads, tuple(rows), 1, tuple(profile["suggestions"]))


def _names(case: Mapping[str, Any]) -> tuple[str, str, str]:
    return case["precision"], case["frames"]["name"], str(case["instances"])


def _interval(figures: Sequence[float | None]) -> tuple[str, str]:
    estimate, low, high = figures
    if estimate is None or low is None or high is None:
        return NONE, NONE
    return f"{estimate:.3f}", f"{low:.3f} to {high:.3f}"


def _ms(value: float | None) -> str:
    """Format with three digits, at most two of them after the point."""
    if value is None:
        return NONE
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def _fps(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _energy(energy: Mapping[str, Any]) -> str:
    known = [one["joules_per_frame"] for one in energy.values() if isinstance(one, dict)]
    return f"{known[0]:.3g}" if known else NONE


def render_text(tables: Sequence[Table], bold: Callable[[str], str] = str) -> list[str]:
    """Render lines for a terminal, at most as wide as their figures need.

    Args:
        tables: Tables in order.
        bold: Function that emphasises a title.
    """
    lines: list[str] = []
    for table in tables:
        grid = [table.heads, *table.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(table.heads))]
        # Two spaces between columns if there is room.
        gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= _COLUMNS else " "
        lines += ["", bold(table.title)] if lines else [bold(table.title)]
        for row in grid:
            cells = [
                f"{cell:<{width}}" if i < table.num_names else f"{cell:>{width}}"
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append(gap.join(cells).rstrip())
        lines += [part for note in table.notes for part in _wrapped(note)]
    return lines


def _wrapped(text: str, width: int = _COLUMNS - 1) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")


def render_markdown(tables: Sequence[Table]) -> str:
    """Render the tables in Markdown."""
    parts = []
    for table in tables:
        rule = ["---" if i < table.num_names else "---:" for i in range(len(table.heads))]
        rows = [table.heads, tuple(rule), *table.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
        notes = "\n".join(f"*{note}*  " for note in table.notes)
        parts.append(f"### {table.title[:1].upper()}{table.title[1:]}\n\n{body}\n\n{notes}".rstrip())
    return "\n\n".join(parts) + "\n"
