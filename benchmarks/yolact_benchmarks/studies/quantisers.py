"""INT8 networks of several tools: ``python -m yolact_benchmarks.studies.quantisers MODEL.onnx --calib DIR``.

All tools get the same float network, the same preprocessed calibration images, and the same convolutions to quantise.
The packages of NVIDIA Model Optimizer are incompatible with this project's, so it runs in a Python environment of its
own.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from yolact_benchmarks.report.record import write_record
from yolact_benchmarks.studies.quantiser_process import Request, Work, run_quantiser
from yolact_benchmarks.studies.quantiser_trial import QuantiserTrial
from yolact_calibration.data.dataset import AnnotatedImages
from yolact_calibration.errors import UsageError
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.precision.guard_images import GuardImages
from yolact_calibration.quantisation.calibration_images import CalibrationImages, find_calibration_images
from yolact_calibration.quantisation.network_graph import FINAL_GROUPS, NetworkGraph
from yolact_plugins.staging import scratch_folder
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.model.manifest import METADATA_KEY, InputSpec, Manifest

__all__ = ["ALL", "EVERY_OPERATOR", "HEADS_IN_FLOAT", "Contender", "contenders", "main"]

ALL, HEADS_IN_FLOAT, EVERY_OPERATOR = "all", "heads in float", "every operator"
"""Scope of INT8: all convolutions; all but those of the network's outputs; every operator that the tool supports."""
_HELD_BACK = 1 / 3
_PEER = "NVIDIA Model Optimizer"
_ORT = "ONNX Runtime"
_TUNED = {"activation_type": "QUInt8", "per_channel": True}


@dataclasses.dataclass(frozen=True)
class Contender:
    """A tool with its settings.

    Attributes:
        label: Human-readable name.
        tool: Name of the tool, as in :class:`~yolact_benchmarks.studies.quantiser_process.Request`.
        form: Form of the graph: ``"tensorrt"`` graphs are evaluated as they state, ``"cpu"`` ones with ONNX Runtime's
            integer kernels, as their users run them.
        ranges: Method that chooses the ranges, by the tool's name for it.
        options: Further options of the tool.
        scopes: Scopes of INT8 to try.
    """

    label: str
    tool: str
    form: str
    ranges: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    scopes: tuple[str, ...] = (ALL, HEADS_IN_FLOAT)


def contenders() -> tuple[Contender, ...]:
    """Return all contenders, those for TensorRT first."""
    ours = [Contender("ours", "ours", "tensorrt", ranges) for ranges in ("mse", "minmax", "entropy", "percentile")]
    theirs = [Contender(_PEER, "modelopt", "tensorrt", ranges) for ranges in ("entropy", "max")]
    calibrated = [Contender(_ORT, "onnxruntime", "cpu", ranges) for ranges in ("MinMax", "Entropy", "Percentile")]
    return (
        *(dataclasses.replace(c, options={"dialect": "tensorrt"}) for c in ours),
        *theirs,
        Contender("ours", "ours", "cpu", "mse", {"dialect": "cpu"}),
        *calibrated,
        # As its documentation advises for x86 processors.
        Contender(f"{_ORT}, uint8 per channel", "onnxruntime", "cpu", "MinMax", _TUNED, (ALL, HEADS_IN_FLOAT)),
        Contender(f"{_ORT}, every operator", "onnxruntime", "cpu", "MinMax", scopes=(EVERY_OPERATOR,)),
        Contender(
            f"{_ORT}, every operator, uint8 per channel", "onnxruntime", "cpu", "MinMax", _TUNED, (EVERY_OPERATOR,)
        ),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print a line for each network, write a record, and return the exit status."""
    options = _parser().parse_args(arguments)
    with scratch_folder("quantisers") as folder:
        results = _Comparison(options, Path(folder)).run()
    if options.results:
        name = results["model"]
        path = write_record(options.results, f"quantisers-{name}", results, _command(options))
        print(path.name)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.quantisers", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="float network that yolact-export wrote")
    parser.add_argument("--calib", nargs="+", required=True, metavar="DIR", help="images to calibrate with")
    parser.add_argument("--limit", type=int, metavar="N", help="take at most N images of --calib, spread evenly")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="COCO labels to judge AP by")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="images of --annotations; without labels, images to measure agreement on",
    )
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter that has NVIDIA Model Optimizer")
    parser.add_argument("--seconds", type=float, default=20.0, help="time to measure the CPU networks for")
    parser.add_argument(
        "--memory-limit", type=int, default=12000, metavar="MB", help="most memory that a quantiser may use"
    )
    parser.add_argument("--only", metavar="TOOL", help="ours, onnxruntime or modelopt")
    parser.add_argument("--one-scope", action="store_true", help="leave out the networks with heads in float")
    parser.add_argument("--note", help="note for readers of the record")
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    return parser


def _command(options: argparse.Namespace) -> str:
    """Return the command line, without paths of this machine."""
    words = [f"{options.model.parent.name}/{options.model.name}", "--calib", *(Path(w).name for w in options.calib)]
    for name in ("limit", "annotations", "images", "peer_python", "seconds", "memory_limit", "only"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", Path(value).name if name in _PLACES else str(value)]
    words += ["--one-scope"] * options.one_scope
    return f"python -m yolact_benchmarks.studies.quantisers {' '.join(words)}"


_PLACES = {"annotations", "images", "peer_python"}


class _Comparison:
    """Comparison of all contenders on one network and one set of images."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._source: Path = options.model
        self._model = onnx.load(self._source)
        self._manifest = _manifest_of(self._model, self._source)
        self._graph = NetworkGraph(self._model)
        self._calibration, self._judged, self._held_back = _images(options)

    def run(self) -> dict[str, Any]:
        """Run all contenders and return the results of the record."""
        load = [round(os.getloadavg()[0], 2)]
        inputs = self._folder / "inputs.npy"
        _write_inputs(self._calibration, self._manifest.input, inputs)
        mask_iou = self._source.parent / "mask_iou.fp32.onnx"
        trial = QuantiserTrial(self._source, self._manifest, self._judged, mask_iou if mask_iou.exists() else None)
        print(f"{trial.measure}; calibrated on {len(self._calibration)} images")
        rows: list[dict[str, Any]] = []
        missing: list[dict[str, str]] = []
        for contender in contenders():
            if self._options.only not in (None, contender.tool):
                continue
            if contender.tool == "modelopt" and not self._options.peer_python:
                missing.append({"label": contender.label, "ranges": contender.ranges, "why": "no --peer-python given"})
                continue
            for scope in contender.scopes[: 1 if self._options.one_scope else None]:
                # Named by its index, so that its time can be matched to its row.
                output = self._folder / f"{len(rows)}.onnx"
                rows.append(self._row(contender, scope, inputs, output, trial))
        times = trial.times_over_float(self._options.seconds)
        for index, row in enumerate(rows):
            row |= {"time_over_float": times[f"{index}.onnx"]} if f"{index}.onnx" in times else {}
        load.append(round(os.getloadavg()[0], 2))
        return {
            "model": _name_of(self._source),
            "input": [self._manifest.input.height, self._manifest.input.width],
            "convolutions": len(self._graph.convolutions),
            "calibration_images": len(self._calibration),
            "measure": trial.measure,
            "labelled": self._judged.annotations is not None,
            "float_ap": trial.float_ap,
            "float_again": times.get("float32 again"),
            "load_average": load,
            "memory_limit_mb": self._options.memory_limit,
            **({"note": self._options.note} if self._options.note else {}),
            "rows": rows,
            "missing": missing,
        }

    def _row(
        self, contender: Contender, scope: str, inputs: Path, output: Path, trial: QuantiserTrial
    ) -> dict[str, Any]:
        int8, single = _split(self._graph, scope)
        work = self._quantise(contender, int8, single, inputs, output)
        row: dict[str, Any] = {
            "label": contender.label,
            "tool": contender.tool,
            "form": contender.form,
            "ranges": contender.ranges,
            "scope": scope,
            **dataclasses.asdict(work),
        }
        if work.error is None:
            row |= trial.judge(output, int8, in_integers=contender.form == "cpu")
        print(_line(row), flush=True)
        return row

    def _quantise(
        self, contender: Contender, int8: Sequence[str], single: Sequence[str], inputs: Path, output: Path
    ) -> Work:
        # In a folder of its own: some tools leave files beside the model.
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            model = shutil.copy(self._source, Path(folder, "model.onnx"))
            request = Request(
                tool=contender.tool,
                ranges=contender.ranges,
                model=str(model),
                output=str(output),
                int8=tuple(int8),
                single=tuple(single),
                images=tuple(self._options.calib),
                most=self._options.limit,
                held_back=self._held_back,
                inputs=str(inputs),
                options=contender.options,
            )
            python = self._options.peer_python if contender.tool == "modelopt" else sys.executable
            return run_quantiser(request, python, self._options.memory_limit)


def _manifest_of(model: onnx.ModelProto, path: Path) -> Manifest:
    found = {prop.key: prop.value for prop in model.metadata_props}
    if METADATA_KEY not in found:
        raise UsageError(f"{path} carries no manifest: give a network that yolact-export wrote")
    return Manifest.from_json(found[METADATA_KEY], str(path))


def _name_of(path: Path) -> str:
    """Return the name of the model: that of the bundle, because every bundle gives its network the same name."""
    return path.parent.name.removesuffix(".bundle") if path.parent.name.endswith(".bundle") else path.stem


def _images(options: argparse.Namespace) -> tuple[CalibrationImages, GuardImages, int]:
    """Return images to calibrate on, images to evaluate on, and how many of the first were held back as the second."""
    calibration = find_calibration_images(options.calib, most=options.limit)
    if options.annotations is not None:
        if options.images is None:
            raise UsageError("--annotations needs --images: the folder of the images it names")
        data = AnnotatedImages.open(CocoAnnotations.from_file(options.annotations), options.images)
        return calibration, GuardImages.labelled(data, None), 0
    if options.images is not None:
        return calibration, GuardImages(find_calibration_images([str(options.images)]), "agreement"), 0
    count = max(1, round(len(calibration) * _HELD_BACK))
    rest, held = calibration.hold_back(count)
    return rest, GuardImages(held, "agreement"), count


def _write_inputs(images: CalibrationImages, spec: InputSpec, path: Path) -> None:
    """Write the images as inputs of the network, ``(N, 3, H, W)`` float32."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, (len(images), 3, spec.height, spec.width))
    for index, (_, frame) in enumerate(images):
        array[index] = preprocess(frame, spec)[0]
    array.flush()


def _split(graph: NetworkGraph, scope: str) -> tuple[list[str], list[str]]:
    """Return the names of the convolutions in INT8, and of the others; both are empty if the tool chooses."""
    if scope == EVERY_OPERATOR:
        return [], []
    single = [c.name for c in graph.convolutions if scope == HEADS_IN_FLOAT and c.group in FINAL_GROUPS]
    return [c.name for c in graph.convolutions if c.name not in set(single)], single


def _line(row: dict[str, Any]) -> str:
    head = f"{row['label']}, {row['form']}, {row['ranges']}, {row['scope']}"
    if row["error"] is not None:
        return f"{head}: {row['error']}"
    drop = ", ".join(f"{kind} {value[0]:.2f}" for kind, value in row["drop"].items())
    return (
        f"{head}: {row['int8_convolutions']} convolutions, lost {drop} (agreement {row['loss']:.2f}), "
        f"{row['seconds']} s, {row['extra_peak_mb']} MB, engine {row['engine']}"
    )


if __name__ == "__main__":
    sys.exit(main())
