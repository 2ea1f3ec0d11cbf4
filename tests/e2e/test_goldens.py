"""Checkpoint to masks through the two commands, against the outputs and the detections of the original implementation.

A network of these takes a second for a picture: each is run as rarely as can be, and all is asked of what it gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from support.goldens import (
    CONFIG_NAMES,
    FOLDER,
    IMAGE_NAMES,
    load_golden,
    require_same_outputs,
    write_golden_checkpoint,
)
from yolact_export import golden as golden_frame
from yolact_export.commands import cli as export_cli
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.commands import run_cli
from yolact_runtime.masks.masks import Masks

CONFIDENCE_TOLERANCE = 2e-3
CORNER_TOLERANCE_PX = 1.0
MASK_IOU = 0.99
RUNS = (
    ("fast_nms@0.3", ["--score", "0.3"]),
    ("fast_nms@0", ["--score", "0"]),
    ("cross_class_fast_nms@0.3", ["--score", "0.3", "--nms", "cross-class"]),
)


Outputs = Mapping[str, npt.NDArray[np.floating[Any]]]


def run_networks_once(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, bytes], Outputs]:
    """Let networks be loaded once, and run once for each input: the runs differ only in what comes after them.

    Returns:
        What they gave, by the name and the bytes of their input; fills as they run.
    """
    start, sessions = onnxruntime.InferenceSession, dict[int, Any]()
    infer, known = OnnxRuntimeBackend.infer, dict[tuple[str, bytes], Outputs]()

    def load(content: bytes, *rest: Any, **options: Any) -> Any:
        # Of the two networks of a bundle one is a hundred times as large.
        if len(content) not in sessions:
            sessions[len(content)] = start(content, *rest, **options)
        return sessions[len(content)]

    def remember(self: OnnxRuntimeBackend, tensor: npt.NDArray[np.float32]) -> Outputs:
        key = next(iter(self.inputs)), tensor.tobytes()
        if key not in known:
            known[key] = infer(self, tensor)
        # Outputs belong to the caller.
        return {name: array.copy() for name, array in known[key].items()}

    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    monkeypatch.setattr(OnnxRuntimeBackend, "infer", remember)
    return known


@pytest.mark.long
@pytest.mark.parametrize("name", CONFIG_NAMES)
def test_commands_reproduce_outputs_and_detections_of_the_original(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = load_golden(name)
    checkpoint = write_golden_checkpoint(golden, tmp_path)
    bundle = tmp_path / "model.bundle"
    known = run_networks_once(monkeypatch)
    # The choice among several is tested with small networks.
    monkeypatch.setattr(golden_frame, "_MAX_PICTURES", 1)
    assert export_cli.main([str(checkpoint), "-o", str(bundle), "--quiet"]) == 0
    checkpoint.unlink()
    known.clear()
    images = [str(FOLDER / "images" / f"{image}.png") for image in IMAGE_NAMES]
    for key, options in RUNS:
        output = tmp_path / "result.json"
        assert run_cli.main([str(bundle), *images, "--json", str(output), "--quiet", *options]) == 0
        document = json.loads(output.read_text())
        assert [image["file"] for image in document["images"]] == images
        for image_name, image in zip(IMAGE_NAMES, document["images"], strict=True):
            require_same(image, golden.document["images"][image_name], key, f"{name} {key} {image_name}")
    outputs = [found for (input_name, _), found in known.items() if input_name == "image"]
    for image_name, found in zip(IMAGE_NAMES, outputs, strict=True):
        require_same_outputs(golden, image_name, *found.values())


def require_same(image: Mapping[str, Any], golden: Mapping[str, Any], key: str, what: str) -> None:
    expected, found = golden.get(key, []), list(image["instances"])
    assert [image["height"], image["width"]] in ([*reversed(golden["size"])], [*golden["size"]])
    assert len(found) == len(expected), what
    for instance in expected:
        partner = next((candidate for candidate in found if is_partner(candidate, instance)), None)
        assert partner is not None, f"{what}: no partner for {instance['class']} {instance['score']} {instance['box']}"
        found.remove(partner)


def is_partner(found: Mapping[str, Any], golden: Mapping[str, Any]) -> bool:
    if found["class_id"] != golden["class"] or abs(found["confidence"] - golden["score"]) > CONFIDENCE_TOLERANCE:
        return False
    if "mask_score" in golden and abs(found["mask_confidence"] - golden["mask_score"]) > CONFIDENCE_TOLERANCE:
        return False
    if max(abs(a - b) for a, b in zip(found["xyxy"], golden["box"], strict=True)) > CORNER_TOLERANCE_PX:
        return False
    mask = Masks.from_rle([found["mask"]])
    area = int(mask.area()[0])
    if "mask" not in golden:
        return abs(area - golden["area"]) <= 0.01 * golden["area"] + 1
    other = Masks.from_rle([golden["mask"]])
    return bool(mask.iou(other)[0, 0] >= MASK_IOU) or (area == 0 and other.area()[0] == 0)
