"""The report of ``yolact-bench``: a self-contained HTML page for a screen, a phone and print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolact_benchmarks.report.charts import (
    draw_blocks,
    draw_distributions,
    draw_history,
    draw_machine,
    draw_pareto,
    draw_stages,
)
from yolact_benchmarks.report.tables import Table, bench_tables, unstable_lines
from yolact_calibration.report.html_page import definitions, draw_page, figure, section, text
from yolact_calibration.report.html_table import Column, table
from yolact_calibration.report.image_pairs import draw_changed_images
from yolact_calibration.report.provenance import draw_byline, draw_provenance

__all__ = ["draw_bench_report"]

_SAMPLED = {
    "other_load": "the load of other processes",
    "stolen": "the hypervisor's share",
    "clock_mhz": "the clock",
    "yardstick_ms": "a fixed piece of work",
    "temperature_c": "the temperature",
    "throttle_events": "throttling",
    "quota_events": "a container's quota",
    "gpu": "the GPU",
    "parallel_yardstick_ms": "a fixed piece of work on all cores",
}
"""Human-readable names of the fields of :class:`yolact_benchmarks.machine.machine_state.MachineSample`."""
_STYLE = """
.note { font-size: .85rem; }
.callout details { font-size: .95rem; }
.verdict { border-left-color: var(--good); } .verdict.unstable { border-left-color: var(--bad); }
"""


def draw_bench_report(record: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]] | None = None) -> str:
    """Draw the HTML page of a record.

    Args:
        record: Record from :func:`yolact_benchmarks.report.document.envelope`.
        pictures: Detections of two networks in the same images; see :mod:`yolact_calibration.report.contact_sheet`.
    """
    results = record["results"]
    cases, models = results["cases"], results["models"]
    title = f"Speed of {models[0]['name']}" if models else "Speed"
    latency, *others = bench_tables(results)
    made = _made(record)
    sections = [
        f"<h1>{text(title)}</h1>",
        draw_byline(made),
        _verdict(results),
        section("End to end", _table(latency) + _charts(draw_distributions(cases))),
        section("Stages", "".join(_table(t) for t in others if t.title.startswith("stages")) + _stages(cases)),
        section("Models", "".join(_table(t) for t in others if t.title == "models")),
        section("Accuracy beside speed", _accuracy(others, models, cases)),
        section("Parts of the network", _blocks(others, results.get("layers") or {})),
        section("Peers, side by side", "".join(_table(t) for t in others if t.title.startswith("peers"))),
        section("Pictures that differ most", draw_changed_images(pictures)),
        section("The machine meanwhile", _machine(results["machine"], cases)),
        section("How it was measured", _method(record)),
        draw_provenance(made, _variables(record)),
    ]
    return draw_page(title, "\n".join(filter(None, sections)), _STYLE)


def _charts(figures: str) -> str:
    return f'<div class="charts">{figures}</div>' if figures else ""


def _verdict(results: Mapping[str, Any]) -> str:
    last = results["cases"][-1]
    latency = last["latency"]
    count = last["instances"]
    seen = "with what it finds" if count == "found" else f"with {count} instance{'s' * (count != 1)}"
    sentence = (
        f"{text(last['precision'])}, {text(last['frames']['name'])} {text(seen)}: "
        f"<strong>{figure(latency['percentiles_ms']['p50'], 'ms')}</strong> a frame "
        f"({figure(latency['median_low_ms'])} to {figure(latency['median_high_ms'])}), "
        f"{figure(latency['throughput_fps'])} frames a second on {text(last['backend'])}"
        f"{_where(results, last)}."
    )
    lines = unstable_lines(results)
    if not lines:
        return f'<p class="callout verdict">{sentence} <span class="good">✓ The measurement was stable.</span></p>'
    reasons = "".join(f"<li>{text(line)}</li>" for line in lines)
    summary = "one reason" if len(lines) == 1 else f"{len(lines)} reasons"
    return (
        f'<div class="callout verdict unstable"><p>{sentence}</p><p class="bad">▲ The measurement was not '
        f"stable; do not rely on these figures.</p><details><summary>{summary}</summary><ul>{reasons}</ul></details>"
        "</div>"
    )


def _where(results: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    """Name the processor of post-processing, for the backend whose processor depends on the installation."""
    model: Mapping[str, Any] = next((m for m in results["models"] if m["precision"] == case["precision"]), {})
    if case["backend"] != "onnxruntime-cuda" or "postprocessing" not in model:
        return ""
    return f", post-processing on the {model['postprocessing'].upper()}"


def _table(one: Table) -> str:
    if not one.rows:
        return f'<p class="faint note">{text(one.title[:1].upper() + one.title[1:])}: {text("; ".join(one.notes))}</p>'
    kept = [i for i, head in enumerate(one.heads) if head or any(row[i] for row in one.rows)]
    columns = [Column(one.heads[i] or "unstable", is_number=i >= one.num_names) for i in kept]
    rows = [[text(row[i]) if row[i] != "-" else "\N{EN DASH}" for i in kept] for row in one.rows]
    notes = "".join(f'<p class="faint note">{text(note)}</p>' for note in one.notes)
    return table(f"{one.title[:1].upper()}{one.title[1:]}", columns, rows) + notes


def _stages(cases: Sequence[Mapping[str, Any]]) -> str:
    body = _charts(draw_stages(cases))
    if not body:
        return "<p>This backend does not report its stages.</p>"
    known = {stage["name"]: stage for case in cases for stage in case["stages"]}
    return body + definitions([(name, text(stage["what"])) for name, stage in known.items()])


def _accuracy(tables: Sequence[Table], models: Sequence[Mapping[str, Any]], cases: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(_table(one) for one in tables if one.title.startswith("accuracy"))
    return rows + _charts(draw_pareto(models, cases)) if rows else ""


def _blocks(tables: Sequence[Table], layers: Mapping[str, Any]) -> str:
    if not layers:
        return ""
    return _charts(draw_blocks(layers)) + "".join(_table(one) for one in tables if one.title.startswith("parts"))


def _machine(machine: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> str:
    silent = [_SAMPLED.get(name, name.replace("_", " ")) for name in machine["not_measured"]]
    energy = sorted({reason for case in cases if (reason := case["energy"].get("not_measured"))})
    lines = [f"Not measured, because this machine does not provide it: {text(', '.join(silent))}."] if silent else []
    lines += [f"Energy was not measured: {text(reason)}." for reason in energy]
    if machine["peak_device_memory_mb"] is not None:
        lines.append(f"Most GPU memory in use: {figure(machine['peak_device_memory_mb'], 'MB')}.")
    paragraphs = "".join(f'<p class="faint">{line}</p>' for line in lines)
    return _charts(draw_history(cases) + draw_machine(machine["samples"])) + paragraphs


def _method(record: Mapping[str, Any]) -> str:
    settings = record["settings"]
    entries = [
        ("Frames", text("; ".join(dict.fromkeys(case["frames"]["source"] for case in record["results"]["cases"])))),
        ("Clock", text(settings.get("frame_clock"))),
        ("Processes", text(f"{settings.get('processes', 1)}, one after the other, sharing the time")),
        ("Defaults in force", text(" ".join(settings.get("defaults") or ["none"]))),
    ]
    return definitions(entries)


def _made(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance of the page; records of earlier versions have less of it."""
    environment = record["environment"]
    versions = {
        **record.get("created_with", {}),
        "python": environment.get("python"),
        **environment.get("packages", {}),
    }
    told = {key: record[key] for key in ("date", "command", "files") if record.get(key)}
    return {**told, "versions": versions, "machine": environment}


def _variables(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = record["environment"].get("variables") or {}
    return [("Variables", text(", ".join(f"{name}={value}" for name, value in found.items())))] if found else []
