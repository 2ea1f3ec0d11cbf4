"""Tables of costs, compared with those of alternatives: time, memory, and the resources of kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["HEADERS", "ROWS"]


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
    """Return a row for each peer of a record of ``yolact-bench``; none if it has no peers."""
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
    """Return one row: each peer's ratio to this project's network of the same precision."""
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


def _kernels(record: dict[str, Any]) -> list[str]:
    """Return a row for each kernel, with figures over all architectures."""
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


def _host_part(record: dict[str, Any]) -> list[str]:
    """Return a row for each scene, version and source of frames, with times in microseconds."""
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


def _packages(record: dict[str, Any]) -> list[str]:
    return [
        f"| {row['name']} {row['version']} | {row['installed_mb']:.1f} MB | {row['import_ms']} ms "
        f"| {row['memory_mb']} MB |"
        for row in record["results"]["packages"]
    ]


def _evaluators(record: dict[str, Any]) -> list[str]:
    return [
        f"| {'boxes' if row['kind'] == 'bbox' else 'masks'}, {row['images']} images x {row['detections']} detections "
        f"| {row['faster-coco-eval']['cpu_s']:.2f} s | {row['hotcoco']['cpu_s']:.2f} s | **{row['ratio']:.1f} x** "
        f"| {row['faster-coco-eval']['added_mb']:.0f} MB | {row['hotcoco']['added_mb']:.0f} MB "
        f"| {row['max_difference']:.0e} |"
        for row in record["results"]["evaluators"]
    ]


HEADERS = {
    "packages": "| package | installed | import, processor time | import, memory |",
    "evaluators": "| data | faster-coco-eval | hotcoco | ratio | memory, faster-coco-eval | hotcoco "
    "| largest difference |",
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
    "simplifiers": "| graph | made in | nodes | debris | file | largest difference to torch | time over written |",
}
"""Header line by the name of the table."""
ROWS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "bench": _bench,
    "evaluator": _evaluator,
    "evaluators": _evaluators,
    "export": _export,
    "frames": _frames,
    "host_part": _host_part,
    "kernels": _kernels,
    "packages": _packages,
    "postprocess": _postprocess,
    "regressions": _regressions,
    "simplifiers": _simplifiers,
}
"""Function that renders the rows of one record, by the name of the table."""
