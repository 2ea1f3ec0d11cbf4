"""Tables in documents, made from the records: ``python -m yolact_benchmarks.studies.tables [--check]``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolact_benchmarks.studies.instructions import table as instructions

__all__ = ["main", "render"]

ROOT = Path(__file__).parents[3]
DOCUMENTS = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "bad-inputs",
            "benchmarks",
            "decisions",
            "kernels",
            "mutants",
            "precision",
            "reliability",
            "runtime",
            "training",
        )
    ),
)
RESULTS, MODELS = Path("benchmarks", "results"), Path("examples", "models")


def main(arguments: list[str] | None = None) -> int:
    """Entry point: rewrite the tables, or with ``--check`` only say whether they are current."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = render(before, ROOT)
        if before != after:
            stale.append(name)
            if not options.check:
                path.write_text(after, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'out of date; run: make tables' if options.check else 'rewritten'}")
    return 1 if options.check and stale else 0


def render(text: str, root: Path) -> str:
    """`text` with everything between ``<!-- table: NAME -->`` and ``<!-- end -->`` made anew from the records.

    Args:
        text: Of a document.
        root: Of the repository: measurements lie in ``benchmarks/results``, trained models in ``examples/models``.
    """

    def table(match: re.Match[str]) -> str:
        name = match[1]
        records = _RECORDS.get(name, name)
        found = (root / MODELS).glob("*.json") if name in _OF_MODELS else (root / RESULTS).glob(f"*/{records}*.json")
        loaded = [_load(path) for path in sorted(found)]
        rows = _OF_ALL[name](loaded) if name in _OF_ALL else [row for each in loaded for row in _TABLES[name](each)]
        header = _HEADERS[name]
        lines = [header, re.sub(r"[^|]+", " --- ", header), *rows]
        return f"<!-- table: {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", table, text, flags=re.DOTALL)


def _load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _machine(record: dict[str, Any]) -> str:
    return f"{record['environment']['cpu']}, {record['environment']['cores']} cores"


def _postprocess(record: dict[str, Any]) -> list[str]:
    return [
        f"| {row['instances']} instances, boxes of {row['box_area']:.1%} of {row['frame'][1]} x {row['frame'][0]} "
        f"| {row['ours']['median_ms']:.1f} ms | {row['dense_torch']['median_ms']:.0f} ms | **{row['ratio']:.0f} x** "
        f"| {row['ours_peak_mb']:.0f} MB | {row['dense_torch_peak_mb']:.0f} MB | {_machine(record)} |"
        for row in record["results"]
    ]


def _evaluator(record: dict[str, Any]) -> list[str]:
    return [
        f"| {row['images']} images x 100 detections, {row['classes']} class{'es' if row['classes'] > 1 else ''} "
        f"| {row['ours']['median_ms'] / 1e3:.2f} s | {row['pycocotools']['median_ms'] / 1e3:.2f} s "
        f"| **{row['ratio']:.1f} x** | {row['max_difference']:.0e} | {_machine(record)} |"
        for row in record["results"]
    ]


def _bench(record: dict[str, Any]) -> list[str]:
    """Peers of a record of ``yolact-bench``, where it has any."""
    results = record["results"]
    peers = results.get("peers")
    if peers is None:
        return []
    model = results["models"][0]["name"]
    steady = "yes" if not peers["reasons"] else "no"
    return [
        f"| {model}, {peers['frames']}, {peers['instances']} instances | {row['name']} | {row['median_ms']:.0f} ms "
        f"| {row['over']} {peers['ours'][row['over']]:.0f} ms | **{row['ratio']:.2f} x** "
        f"| {row['low']:.2f} to {row['high']:.2f} | {steady} | {_machine(record)} |"
        for row in peers["rows"]
    ]


def _frames(record: dict[str, Any]) -> list[str]:
    """The same in one row: each peer over our network of the same precision."""
    results = record["results"]
    peers = results.get("peers")
    if peers is None:
        return []
    ratio = {(row["name"], row["over"]): row["ratio"] for row in peers["rows"]}

    def cell(peer: str, precision: str) -> str:
        found = [value for (name, over), value in ratio.items() if name.startswith(peer) and over == precision]
        return f"{found[0]:.2f} x" if found else "-"

    ours = peers["ours"]
    cells = [f"{ours['fp32']:.0f} ms", cell("PyTorch eager", "fp32"), cell("torch.compile", "fp32")]
    cells += [cell("ONNX Runtime fp32", "fp32"), cell("OpenVINO fp32", "fp32")]
    cells += [f"{ours['int8-cpu']:.0f} ms", cell("PyTorch eager", "int8-cpu"), cell("OpenVINO int8", "int8-cpu")]
    return [f"| {results['models'][0]['name']} | {' | '.join(cells)} |"]


def _regressions(record: dict[str, Any]) -> list[str]:
    results = record["results"]
    told = [", ".join(f"{n} {outcome}" for outcome, n in results[kind].items()) for kind in ("rerun", "planted")]
    shown = f"{results['model']} {results['precision']}, {results['instances']} instances"
    return [
        f"| {shown}; {results['processes']} processes, {results['seconds']:g} s "
        f"| {told[0]} | {told[1]} | {results['again']} times | {_machine(record)} |"
    ]


def _export(record: dict[str, Any]) -> list[str]:
    row = record["results"]
    return [
        f"| {row['checkpoint']} ({row['checkpoint_mb']:.0f} MB) | {row['seconds']:.1f} s "
        f"| {row['extra_peak_mb']:.0f} MB | {row['extra_over_checkpoint']:.1f} x | {_machine(record)} |"
    ]


def _simplifiers(record: dict[str, Any]) -> list[str]:
    return [
        f"| {row['graph']} | {row['seconds']:.1f} s | {row['nodes']} | {row['debris']} | {row['mb']:.1f} MB "
        f"| {row['max_difference']:.0e} | {row['time_over_written']:.2f} |"
        for row in record["results"]
    ]


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
    """Steps and batch of a training, after those of the trainings that it started from."""
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


def _kernels(record: dict[str, Any]) -> list[str]:
    """A row for each kernel; figures over all architectures."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in record["results"]["kernels"]:
        rows.setdefault((row["family"], row["kernel"]), []).append(row)
    lines = []
    for (_, kernel), of_archs in rows.items():
        registers = [row["registers"] for row in of_archs]
        spilled = max(row["spill_store_bytes"] + row["spill_load_bytes"] + row["stack_bytes"] for row in of_archs)
        shared = max(row["shared_bytes"] for row in of_archs)
        lines.append(
            f"| `{kernel}` | {min(registers)} to {max(registers)} | {shared} | {spilled} | {len(of_archs)} "
            f"| NVRTC {record['results']['nvrtc']} |"
        )
    return lines


def _suite(record: dict[str, Any]) -> list[str]:
    results, versions = record["results"], record["results"]["versions"]

    def version(*names: str) -> str:
        return next((number for name, number in versions.items() if name in names), "-")

    cells = [results["environment"], record["environment"]["python"], version("numpy")]
    cells += [version("cuda-bindings"), version("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")]
    cells += [version("onnxruntime"), version("opencv-python-headless")]
    cells += [str(results[outcome]) for outcome in ("passed", "failed", "skipped")]
    return [f"| {' | '.join(cells)} | {results['date']} |"]


def _host_part(record: dict[str, Any]) -> list[str]:
    """A row for each scene, version and way of a frame; times in microseconds."""
    results = record["results"]
    rows = results["rows"]
    first = {row["scene"]: row["us"]["call"] for row in reversed(rows)}
    lines = []
    for row in rows:
        us, masks = row["us"], row["masks_us"]
        version = f"before ({results['before']})" if row["version"] == "before" else row["version"]
        source = "an array" if row["source"] == "array" else "a frame buffer"
        lines.append(
            f"| {row['scene']}, {row['runs']} runs | {version}, {source} | {us['take']:.0f} | {us['enqueue']:.0f} "
            f"| {us['wait']:.0f} | {us['results']:.0f} | **{us['call']:.0f}** "
            f"| {first[row['scene']] / us['call']:.1f} x "
            f"| {masks['start, end, offset']:.0f} | {masks['area']:.0f} | {masks['rle']:.0f} | {masks['id_map']:.0f} "
            f"| {_machine(record)} |"
        )
    return lines


def _quantisers(record: dict[str, Any]) -> list[str]:
    """A row for each way to quantise; what differs between the convolutions chosen is side by side."""
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
    """Box AP, mask AP and agreement lost, points."""
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


def _bad_inputs(record: dict[str, Any]) -> list[str]:
    outcomes = ("right", "said", "refused", "lost", "silent", "broken")
    return [
        f"| {row['kind']} | {row['tries']} | {' | '.join(str(row[outcome]) for outcome in outcomes)} |"
        for row in record["results"]
    ]


def _storm(record: dict[str, Any]) -> list[str]:
    """A row for each campaign, and one of all."""
    results = record["results"]
    outcomes = ("ok", "refused", "visible", "traceback", "hang", "crash", "silent", "torn", "leftover")
    rows = sorted(results["rows"], key=lambda row: str(row["campaign"]))
    total = {name: sum(row[name] for row in rows) for name in ("tries", *outcomes)}
    return [
        f"| {results['release']} | {row['campaign']} | {row['tries']} | {' | '.join(str(row[n]) for n in outcomes)} |"
        for row in (*rows, {"campaign": "**all**", **total})
    ]


def _mutants(record: dict[str, Any]) -> list[str]:
    """A row for each module: what was tried, and what the tests noticed."""
    lines = []
    for row in record["results"]["modules"]:
        excused = sum("reason" in survivor for survivor in row["survivors"])
        lines.append(
            f"| {row['name']} (`{Path(row['module']).name}`) | {record['results']['tests']} "
            f"| {row['tried']} of {row['of']} | {row['noticed']} (**{row['noticed'] / row['tried']:.0%}**) "
            f"| {excused} | {len(row['survivors']) - excused} |"
        )
    return lines


def _mutant_survivors(record: dict[str, Any]) -> list[str]:
    """A row for each survivor of the present tests."""
    if record["results"]["tests"] != "now":
        return []
    return [
        f"| {row['name']}, line {survivor['line']} | `{_in_a_cell(survivor['change'])}` "
        f"| {survivor.get('reason', '')} |"
        for row in record["results"]["modules"]
        for survivor in row["survivors"]
    ]


def _in_a_cell(code: str) -> str:
    short = code if len(code) <= 160 else f"{code[:78]} … {code[-78:]}"
    return short.replace("|", "\\|").replace("`", "'")


_OF_MODELS = {"models", "pruning"}
# Tables whose records have another name.
_RECORDS = {
    "frames": "bench",
    "bad_inputs": "bad-inputs",
    "mutant_survivors": "mutants",
    "instructions_times": "instructions",
    "instructions_kernels": "instructions",
    "host_part": "host-part",
}
_HEADERS = {
    **instructions.HEADERS,
    "bad_inputs": "| kind of bad input | tries | right | done, with a warning | refused, with the reason | others lost "
    "| wrong in silence | broken |",
    "frames": "| model | ours, fp32 | PyTorch eager | torch.compile | ONNX Runtime, dense NumPy | OpenVINO fp32 "
    "| ours, INT8 | PyTorch eager | OpenVINO INT8 |",
    "bench": "| model, frames | peer | median | ours | peer over ours | 95 % | steady machine | machine |",
    "regressions": "| model; each measurement | the same again | 5 % slower | doubtful, measured again | machine |",
    "postprocess": "| scene | this runtime | dense PyTorch | ratio | peak memory | dense PyTorch | machine |",
    "evaluator": "| detections | ours | pycocotools | ratio | largest difference | machine |",
    "host_part": "| scene | version, frame in | take the frame | enqueue | begin to wait | instances | in all | faster "
    "| runs in int64 | areas | RLE | id map | machine |",
    "export": "| checkpoint | export with verification | extra memory | over checkpoint | machine |",
    "kernels": "| kernel | registers of a thread | shared memory, bytes | stack and spills, bytes | architectures "
    "| compiler |",
    "models": "| checkpoint | configuration | classes | steps x batch | judged on | box AP | mask AP | mask AP50 |",
    "mutants": "| module | tests | tried | noticed | survive, with a reason | survive |",
    "mutant_survivors": "| module | change | why it may survive |",
    "pruning": "| checkpoint | parameters | GFLOPs | network | dense mask AP | pruned | recovered | measured on |",
    "quantisers": "| network, measure | quantiser, for | ranges | lost, all in INT8 | lost, final heads in float "
    "| made in (processor time) | extra memory | TensorRT-RTX | time over float32 |",
    "suite": "| environment | Python | NumPy | cuda-bindings | NVRTC | ONNX Runtime | OpenCV | passed | failed "
    "| skipped | date |",
    "storm": "| release | campaign | tries | ok | refused | visible | traceback | hang | crash | silently wrong | torn "
    "| leftover |",
    "simplifiers": "| graph | made in | nodes | debris | file | largest difference to torch | time over written |",
}
# Tables that compare records with each other.
_OF_ALL = {
    "instructions": instructions.scene_rows,
    "instructions_times": instructions.time_rows,
    "instructions_kernels": instructions.kernel_rows,
}
_TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "bad_inputs": _bad_inputs,
    "bench": _bench,
    "frames": _frames,
    "regressions": _regressions,
    "postprocess": _postprocess,
    "evaluator": _evaluator,
    "export": _export,
    "host_part": _host_part,
    "kernels": _kernels,
    "models": _models,
    "mutants": _mutants,
    "mutant_survivors": _mutant_survivors,
    "pruning": _pruning,
    "quantisers": _quantisers,
    "simplifiers": _simplifiers,
    "storm": _storm,
    "suite": _suite,
}


if __name__ == "__main__":
    sys.exit(main())
