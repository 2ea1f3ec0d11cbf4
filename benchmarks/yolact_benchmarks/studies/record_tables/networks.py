"""Tables of trained, pruned and quantised networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["HEADERS", "ROWS"]


def _models(record: dict[str, Any]) -> list[str]:
    if "training" not in record:
        return []
    accuracy, config = record["validation"], record["config"]
    return [
        f"| {record['checkpoint']} ({record['checkpoint_mb']:.1f} MB) | {config['name']}, {config['input_width']} px "
        f"| {len(record['class_names'])} | {_stages(record)} "
        f"| {accuracy['images']} images | {accuracy['bbox']['AP']:.3f} | **{accuracy['segm']['AP']:.3f}** "
        f"| {accuracy['segm']['AP50']:.3f} |"
    ]


def _stages(record: dict[str, Any]) -> str:
    """Return steps and batch of a training, after those of the trainings that it started from."""
    training, size = record["training"], record["config"]["input_width"]
    own = f"{training['num_steps']} x {training['batch_size']} at {size} px"
    return f"{_stages(record['start_record'])}, {own}" if "start_record" in record else own


def _pruning(record: dict[str, Any]) -> list[str]:
    if "report" not in record:
        return []
    report, scores = record["report"], record["scores"]
    dense, final = scores["dense"], scores.get("recovered", scores["pruned"])
    (name,) = (name for name in dense if name in {"mask AP", "mask agreement"})
    parameters, gflops = report["num_parameters"], report["gflops"]
    before, after = report["measured_ms"]
    return [
        f"| {record['checkpoint']} | {parameters[0] / 1e6:.2f} -> {parameters[1] / 1e6:.2f} M "
        f"| {gflops[0]:.2f} -> {gflops[1]:.2f} | {before:.1f} -> {after:.1f} ms (**{after / before:.0%}**) "
        f"| {dense[name]:.3f} | {scores['pruned'][name]:.3f} | **{final[name]:.3f}** | {report['backend']} |"
    ]


def _quantisers(record: dict[str, Any]) -> list[str]:
    """Return a row for each quantiser and its settings; the scopes of INT8 are side by side."""
    results = record["results"]
    rows: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in results["rows"]:
        rows.setdefault((row["label"], row["form"], row["ranges"]), {})[row["scope"]] = row
    network = f"{results['model']}: {results['measure']}"
    lines = []
    for (label, form, ranges), scopes in rows.items():
        first, most = next(iter(scopes.values())), scopes.get("all") or scopes.get("every operator")
        head = f"| {network} | {label}, {'CPU' if form == 'cpu' else 'TensorRT'} | {ranges} "
        if first["error"] is not None:
            lines.append(f"{head}| {first['error']} | | | | | |")
            continue
        lines.append(
            f"{head}| {_lost(most)} | {_lost(scopes.get('heads in float'))} "
            f"| {first['seconds']:.1f} s ({first['cpu_seconds']:.1f} s) | {first['extra_peak_mb']} MB "
            f"| {_engine(first)} | {_over_float(first)} |"
        )
    lines += [
        f"| {network} | {entry['label']} | {entry['ranges']} | not measured: {entry['why']} | | | | | |"
        for entry in results["missing"]
    ]
    return lines


def _lost(row: dict[str, Any] | None) -> str:
    """Return the loss of box AP, mask AP and agreement, in points."""
    if row is None or row["error"] is not None:
        return "-"
    return f"{row['drop']['box'][0]:.2f}, {row['drop']['mask'][0]:.2f}, {row['loss']:.2f}"


def _engine(row: dict[str, Any]) -> str:
    engine = row["engine"]
    if engine["builds"] is None:
        return "not tried"
    if not engine["builds"]:
        return "refused"
    return f"builds, {engine['int8_convolutions']} of {row['int8_convolutions']} in Int8"


def _over_float(row: dict[str, Any]) -> str:
    return f"{row['time_over_float']:.2f}" if "time_over_float" in row else "-"


HEADERS = {
    "models": "| checkpoint | configuration | classes | steps x batch | judged on | box AP | mask AP | mask AP50 |",
    "pruning": "| checkpoint | parameters | GFLOPs | network | dense mask AP | pruned | recovered | measured on |",
    "quantisers": "| network, measure | quantiser, for | ranges | lost, all in INT8 | lost, final heads in float "
    "| made in (processor time) | extra memory | TensorRT-RTX | time over float32 |",
}
"""Header line by the name of the table."""
ROWS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "models": _models,
    "pruning": _pruning,
    "quantisers": _quantisers,
}
"""Function that renders the rows of one record, by the name of the table."""
