"""Networks with changed bytes, with the manifest's hash unchanged or recomputed.

Silently wrong: a network that does not match its hash runs and finds other instances; or one whose hash was recomputed,
which makes it another network, gives other results than ONNX Runtime alone computes from the same bytes.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.mutations import mutate_bytes
from yolact_benchmarks.studies.storm.outcome import Finding, ok, silent, visible
from yolact_benchmarks.studies.storm.stage import Stage, open_model, same_instances
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session

__all__ = ["CAMPAIGN"]

NETWORK = "model.fp32.onnx"


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    rng = attempt.rng
    bundle = stage.copy_bundle(attempt.folder / "b")
    content = (bundle / NETWORK).read_bytes()
    # Most of a network is weights; the structure is around them.
    begin, end = rng.choice(((0, len(content)), (0, 4096), (len(content) - 8192, len(content))))
    what, changed = mutate_bytes(content, rng, begin, end)
    (bundle / NETWORK).write_bytes(changed)
    fits = rng.random() < 0.5
    if fits:
        what = f"{what}, hash made again"
        document = copy.deepcopy(stage.manifest)
        entry = document["artefacts"][NETWORK]
        entry["sha256"], entry["size_bytes"] = hashlib.sha256(changed).hexdigest(), len(changed)
        (bundle / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    with open_model(bundle) as segmenter:
        seen = segmenter.frame_path.inspect(stage.frame)
        if same_instances(segmenter(stage.frame), stage.instances):
            return ok(what)
    if not fits:
        return silent(f"{what}: run in spite of its hash")
    alone = _alone(bundle / NETWORK, seen.tensor)
    same = all(np.array_equal(value, alone[name]) for name, value in seen.outputs.items())
    return visible(f"{what}: another network") if same else silent(f"{what}: not what ONNX Runtime alone computes")


def _alone(path: Path, tensor: npt.NDArray[np.float32]) -> dict[str, Any]:
    session = open_cpu_session(path, SessionSettings(num_threads=1))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: tensor}), strict=True))


CAMPAIGN = Campaign("onnx", _attempt, 120, 4)
