"""Documents of precision exports as a real one would write them, with their worst images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.report.contact_sheet import SheetOptions, side_by_side
from yolact_calibration.shapes.scene import CLASS_NAMES, SceneOptions, make_scene
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks

__all__ = ["make_document", "make_pair"]

_GROUPS = (
    "stem",
    "res2",
    "res3",
    "res4",
    "res5",
    "fpn",
    "protonet",
    "head trunk",
    "box head",
    "class head",
    "mask head",
)


def make_document(num_tensors: int = 150, num_images: int = 2) -> dict[str, Any]:
    """Make a document with every part filled; the numbers are artificial, but plausible."""
    random = np.random.default_rng(0)
    return {
        "name": "shapes",
        "created_with": {"yolact-deploy": "0.1.0", "onnxruntime": "1.32.0"},
        "made": {
            "date": "2026-11-27 21:30 UTC",
            "command": "yolact-export shapes.pth --int8 --calib camera/images -o shapes.bundle",
            "versions": {"yolact-deploy": "0.1.0", "python": "3.11.7", "onnxruntime": "1.32.0"},
            "machine": {
                "cpu": "Cortex-A78AE",
                "cores": 6,
                "gpus": ["Orin"],
                "system": "Linux",
                "architecture": "aarch64",
            },
            "files": [{"role": "Checkpoint", "name": "shapes.pth", "sha256": "3f9a52d1c07e44ab" * 4}],
        },
        "calibration": {
            "num_images": 64,
            "method": "mse",
            "digest": "3f9a52d1c07e44ab",
            "warnings": ["64 images are few: 200 or more make the ranges steadier", "backbone.relu was never above 0"],
            "seconds": 12.34,
            "from_cache": False,
        },
        "ranges": [_range(random, i) for i in range(num_tensors)],
        "sensitivity": [_sensitivity(random, name) for name in _GROUPS],
        "search": _search(random),
        "kept_float": [
            {"group": "class head", "convolutions": 5, "why": "INT8 there costs 1.2 points of mask AP and saves 4 ms"},
            {"group": "mask head", "convolutions": 5, "why": "final layers: their outputs are read as numbers"},
        ],
        "guard": {
            "max_drop": 0.5,
            "measure": "AP on 200 labelled images",
            "passed": True,
            "drop": {"box": [0.3, -0.1, 0.7], "mask": [0.4, 0.02, 0.9]},
        },
        "variants": _variants(),
        "verdict": "INT8 is worth it here: 3.4 times as fast for 0.4 points of mask AP",
        "worst_images": [_worst_image(seed) for seed in range(num_images)],
    }


def _variants() -> list[dict[str, Any]]:
    backend = "onnxruntime-cpu, 2 threads"
    shared = {"backend": backend, "agreement": None}
    return [
        {
            "precision": "fp32",
            "file": "model.fp32.onnx",
            "size_bytes": 124_500_000,
            "latency_ms": 551.0,
            "speedup": 1.0,
            "box_ap": 0.677,
            "mask_ap": 0.656,
            "drop": None,
            "verdict": "reference",
            **shared,
        },
        {
            "precision": "fp16",
            "file": "model.fp16.onnx",
            "size_bytes": 62_400_000,
            "latency_ms": 563.2,
            "speedup": 0.98,
            "box_ap": 0.677,
            "mask_ap": 0.6559,
            "drop": {"box": [0.0, -0.02, 0.03], "mask": [0.01, -0.02, 0.04]},
            "verdict": "half the size; not faster on this CPU",
            **shared,
        },
        {
            "precision": "int8",
            "file": "model.int8.onnx",
            "size_bytes": 32_900_000,
            "latency_ms": 162.4,
            "speedup": 3.39,
            "box_ap": 0.674,
            "mask_ap": 0.652,
            "drop": {"box": [0.3, -0.1, 0.7], "mask": [0.4, 0.02, 0.9]},
            "verdict": "worth it",
            **shared,
        },
    ]


def _range(random: np.random.Generator, index: int) -> dict[str, Any]:
    values = np.abs(random.gamma(0.6, 1.5, 4000)) * (random.random(4000) < 0.6)
    if index % 3 == 0:
        values *= random.choice([-1.0, 1.0], 4000)
    counts, edges = np.histogram(values, 128)
    high = float(np.quantile(np.abs(values), 0.999))
    low = -high if index % 3 == 0 else 0.0
    stage, block, layer = 2 + index // 40, index // 4 % 10, index % 4
    return {
        "tensor": f"backbone.layers.{stage}.{block}.conv{layer}_output",
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "low": low,
        "high": high,
        "clipped": float(((values > high) | (values < low)).mean()),
        "sqnr_db": float(random.normal(36, 4)),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _sensitivity(random: np.random.Generator, name: str) -> dict[str, Any]:
    scale = {"class head": 6.0, "mask head": 3.0, "protonet": 2.0}.get(name, 1.0)
    weights, activations = (abs(random.normal(0.03, 0.02, 2)) * scale for _ in range(2))
    milliseconds = float(random.uniform(10, 90))
    lost = {"weights": weights, "activations": activations * 2}
    return {
        "group": name,
        "num_convolutions": int(random.integers(1, 20)),
        "gmacs": float(random.uniform(0.2, 9)),
        **{
            part: {"box": float(values[0]), "mask": float(values[1]), "overlap": float(values.sum())}
            for part, values in lost.items()
        },
        "ms_float": milliseconds,
        "ms_int8": milliseconds / float(random.uniform(2.5, 4)),
    }


def _search(random: np.random.Generator) -> list[dict[str, Any]]:
    actions = ["start: all but the final head layers"]
    actions += [f"{name} back to float" for name in ("class head", "mask head", "protonet", "fpn", "res5")]
    steps = []
    drop, latency, num_int8 = 2.1, 149.0, 81
    for step, action in enumerate([*actions, "protonet in INT8 after all"]):
        accepted = step in (0, 1, 2, 5)
        now = drop if step == 0 else drop - (0.85 if accepted else 0.05)
        time, count = (latency, num_int8) if step == 0 else (latency + random.uniform(2, 9), num_int8 - 5)
        steps.append(
            {
                "step": step,
                "action": action,
                "num_int8": count,
                "num_convolutions": 86,
                "drop": {"box": [now * 0.7, now * 0.7 - 0.4, now * 0.7 + 0.4], "mask": [now, now - 0.45, now + 0.5]},
                "latency_ms": float(time),
                "accepted": accepted,
            }
        )
        if accepted:
            drop, latency, num_int8 = now, time, count
    return steps


def _worst_image(seed: int) -> dict[str, Any]:
    frame, reference, candidate = make_pair(seed)
    pictures = side_by_side(frame, reference, candidate, CLASS_NAMES, SheetOptions(max_picture_bytes=25_000))
    return {
        "name": f"{seed:05d}.png",
        "loss": 0.21 / (seed + 1),
        "num_reference": len(reference),
        "num_matched": len(candidate) - 1,
        "num_extra": seed % 2,
        "reference": pictures[0],
        "candidate": pictures[1],
    }


def make_pair(seed: int, height: int = 320, width: int = 320) -> tuple[npt.NDArray[np.uint8], Instances, Instances]:
    """Make a scene, its truth as one model's detections, and another's: masks shifted, reordered, one missing."""
    scene = make_scene(seed, SceneOptions(height=height, width=width))
    count = len(scene)
    confidence = np.linspace(0.95, 0.5, count).astype(np.float32)
    reference = Instances(scene.xyxy.astype(np.float32), scene.mask, confidence, scene.class_id.astype(np.int32))
    order = np.arange(count)[::-1][: max(1, count - 1)]
    moved = np.roll(scene.mask.dense()[order], 4, axis=2)
    candidate = dataclasses.replace(reference[order], mask=Masks.from_dense(moved), confidence=confidence[: len(order)])
    return scene.image, reference, candidate
