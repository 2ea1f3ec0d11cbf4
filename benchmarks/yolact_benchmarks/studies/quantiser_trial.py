"""What a quantised network is worth, whoever made it: accuracy, integer convolutions, engine, time."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import onnx

from yolact_calibration.evaluation.judge import Judge
from yolact_calibration.pruning.network_timer import time_networks_ms
from yolact_calibration.quantisation.trial import Trial
from yolact_export.engine.layers import int8_convolutions
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.process import build_in_process
from yolact_export.errors import MissingDependencyError, YolactError
from yolact_export.precision.guard_images import GuardImages
from yolact_runtime.model.manifest import Manifest

__all__ = ["QuantiserTrial", "engine_of", "rounded_convolutions"]

# The first RTX generation but one; no GPU is needed to build for it.
_ENGINE = EngineOptions(target="rtx", compute_capabilities=("8.6",))
_FLOAT = "float32"


class QuantiserTrial:
    """Judges networks by one set of images, against one float network.

    Args:
        source: File of the float network.
        manifest: Of it.
        judged: Images to judge by.
        mask_iou: The float mask-IoU network (YOLACT++), or None.
    """

    def __init__(self, source: Path, manifest: Manifest, judged: GuardImages, mask_iou: Path | None) -> None:
        self._source = source
        self._manifest = manifest
        self._trial = Trial(manifest, judged, mask_iou)
        self._judge = Judge(self._trial.find(onnx.load(source)), manifest.class_names, judged.annotations)
        self._timed: list[Path] = []

    @property
    def measure(self) -> str:
        """What a loss is measured in, for people."""
        return self._judge.measure

    @property
    def float_ap(self) -> dict[str, float | None]:
        """``"box"`` and ``"mask"`` AP of the float network: with labels its own, without 1."""
        ap: dict[str, float | None] = self._judge.reference.document()["ap"]
        return ap

    def judge(self, path: Path, wanted: Collection[str], in_integers: bool) -> dict[str, Any]:
        """Of one network.

        Args:
            path: Its file.
            wanted: Names of the convolutions that should be in INT8; empty where the tool chose.
            in_integers: With ONNX Runtime's integer kernels, and not as the graph says; it is timed later, too, and
                its file must stay.
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
        """File name -> time over that of the float network, of what computes in integers, in ONNX Runtime.

        Medians on one thread, taking turns. The float network runs a second time as ``"float32 again"``: how far it is
        from 1 tells what a ratio is worth.

        Args:
            seconds: To spend at least.
        """
        models = {_FLOAT: self._source, f"{_FLOAT} again": self._source, **{path.name: path for path in self._timed}}
        times = time_networks_ms(models, self._manifest.input, num_threads=1, seconds=seconds)
        return {name: round(ms / times[_FLOAT], 3) for name, ms in times.items() if name != _FLOAT}


def engine_of(model: onnx.ModelProto, manifest: Manifest, names: Collection[str]) -> dict[str, Any]:
    """Whether TensorRT-RTX parses and builds a network, and how many convolutions are Int8 by Int8 there.

    Args:
        model: The network.
        manifest: Goes into the engine.
        names: Of the convolutions that the network has in INT8.

    Returns:
        ``{"builds": True, "int8_convolutions": n}``; ``{"builds": False, "error": text}``, with None where TensorRT-RTX
        is not installed.
    """
    try:
        engine = build_in_process(model.SerializeToString(), manifest.to_json(), _ENGINE)
    except MissingDependencyError as error:
        return {"builds": None, "error": str(error)}
    except YolactError as error:
        return {"builds": False, "error": _first_reason(str(error))}
    return {"builds": True, "int8_convolutions": len(int8_convolutions(engine.layers, names))}


def _first_reason(text: str) -> str:
    """The first line of what TensorRT said, without places in its source; the line before it is ours."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"\s*In \w+ at /.*", "", lines[min(1, len(lines) - 1)])[:300]


def rounded_convolutions(model: onnx.ModelProto) -> set[str]:
    """Names of the convolutions whose data and weights are both read from a DequantizeLinear."""
    producer: Mapping[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.output}

    def is_rounded(name: str) -> bool:
        return name in producer and producer[name].op_type == "DequantizeLinear"

    return {node.name for node in model.graph.node if node.op_type == "Conv" and all(map(is_rounded, node.input[:2]))}
