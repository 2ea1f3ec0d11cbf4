"""Evaluation of a quantised network, independent of its quantiser: accuracy, INT8 convolutions, engine, time."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import onnx

from yolact_calibration.evaluation.judge import Judge
from yolact_calibration.precision.guard_images import GuardImages
from yolact_calibration.pruning.network_timer import time_networks_ms
from yolact_calibration.quantisation.trial import Trial
from yolact_export.engine.layers import int8_convolutions
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.process import build_in_process
from yolact_export.errors import MissingDependencyError, YolactError
from yolact_runtime.model.manifest import Manifest

__all__ = ["QuantiserTrial", "engine_of", "rounded_convolutions"]

# Ampere, the second RTX generation; no GPU is needed to build for it.
_ENGINE = EngineOptions(target="rtx", compute_capabilities=("8.6",))
_FLOAT = "float32"


class QuantiserTrial:
    """Evaluation of networks on one set of images, against one float network.

    Args:
        source: Path of the float network.
        manifest: Manifest of the float network.
        judged: Images to evaluate on.
        mask_iou: Path of the float mask-IoU network (YOLACT++), or None.
    """

    def __init__(self, source: Path, manifest: Manifest, judged: GuardImages, mask_iou: Path | None) -> None:
        self._source = source
        self._manifest = manifest
        self._trial = Trial(manifest, judged, mask_iou)
        self._judge = Judge(self._trial.find(onnx.load(source)), manifest.class_names, judged.annotations)
        self._timed: list[Path] = []

    @property
    def measure(self) -> str:
        """Human-readable name of the measure of a loss."""
        return self._judge.measure

    @property
    def float_ap(self) -> dict[str, float | None]:
        """AP of the float network by ``"box"`` and ``"mask"``: its own AP with labels, 1 without."""
        ap: dict[str, float | None] = self._judge.reference.document()["ap"]
        return ap

    def judge(self, path: Path, wanted: Collection[str], in_integers: bool) -> dict[str, Any]:
        """Evaluate one network and return its row of the record.

        Args:
            path: Path of the network.
            wanted: Names of the convolutions that should be in INT8; empty if the tool chose them.
            in_integers: Whether to run it with ONNX Runtime's integer kernels, and not as the graph states. Such a
                network is timed later, so its file must stay.
        """
        model = onnx.load(path)
        found = rounded_convolutions(model)
        judgement = self._judge.judge(self._trial.find(model, simulate=not in_integers))
        if in_integers:
            self._timed.append(path)
        return {
            "int8_convolutions": len(found),
            "same_convolutions": not wanted or found == set(wanted),
            "file_mb": round(path.stat().st_size / 1e6, 1),
            **judgement.document(),
            "engine": engine_of(model, self._manifest, found),
        }

    def times_over_float(self, seconds: float) -> dict[str, float]:
        """Time the networks that compute in integers, in ONNX Runtime, relative to the float network.

        The ratios, by file name, are of medians on one thread, interleaved. The float network runs a second time as
        ``"float32 again"``: its distance from 1 shows the uncertainty of a ratio.

        Args:
            seconds: Minimum time to spend, seconds.
        """
        models = {_FLOAT: self._source, f"{_FLOAT} again": self._source, **{path.name: path for path in self._timed}}
        times = time_networks_ms(models, self._manifest.input, num_threads=1, seconds=seconds)
        return {name: round(ms / times[_FLOAT], 3) for name, ms in times.items() if name != _FLOAT}


def engine_of(model: onnx.ModelProto, manifest: Manifest, names: Collection[str]) -> dict[str, Any]:
    """Check whether TensorRT-RTX parses and builds a network, and count its convolutions that are Int8 by Int8.

    Args:
        model: Network to build.
        manifest: Manifest to embed in the engine.
        names: Names of the convolutions that the network has in INT8.

    Returns:
        JSON object ``{"builds": True, "int8_convolutions": n}`` or ``{"builds": False, "error": text}``; ``"builds"``
        is None if TensorRT-RTX is not installed.
    """
    try:
        engine = build_in_process(model.SerializeToString(), manifest.to_json(), _ENGINE)
    except MissingDependencyError as error:
        return {"builds": None, "error": str(error)}
    except YolactError as error:
        return {"builds": False, "error": _first_reason(str(error))}
    return {"builds": True, "int8_convolutions": len(int8_convolutions(engine.layers, names))}


def _first_reason(text: str) -> str:
    """Return the first line of TensorRT's message, without source locations; the line before it is this project's."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"\s*In \w+ at /.*", "", lines[min(1, len(lines) - 1)])[:300]


def rounded_convolutions(model: onnx.ModelProto) -> set[str]:
    """Return the names of the convolutions whose data and weights both come from a DequantizeLinear."""
    producer: Mapping[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.output}

    def is_rounded(name: str) -> bool:
        return name in producer and producer[name].op_type == "DequantizeLinear"

    return {node.name for node in model.graph.node if node.op_type == "Conv" and all(map(is_rounded, node.input[:2]))}
