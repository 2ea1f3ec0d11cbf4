"""Checkpoints with changed bytes: of the whole file, or of the pickle in it with recomputed checksums.

Silently wrong: the file is loaded, and its tensors are neither those of the intact file nor, if the checksums were
recomputed, those that PyTorch itself loads from the changed one. One try in twenty is a whole export: it is silently
wrong if it ends with status 0 and the network finds other instances.
"""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.mutations import mutate_bytes
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome, judge_answer, ok, silent, visible
from yolact_benchmarks.studies.storm.stage import Stage, open_model, same_instances

__all__ = ["CAMPAIGN"]

Tensors = Mapping[str, torch.Tensor]
_PICKLE = "data.pkl"
_intact: dict[str, Any] = {}


def _prepare(stage: Stage) -> None:
    from yolact_export.checkpoint.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    loaded = load_checkpoint(stage.checkpoint)
    # Copies: the tensors of a loaded checkpoint are those of its mapped file.
    tensors = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    legacy = io.BytesIO()
    torch.save(torch.load(stage.checkpoint, weights_only=True), legacy, _use_new_zipfile_serialization=False)
    _intact.update(config=loaded.config, names=loaded.class_names, tensors=tensors, legacy=legacy.getvalue())


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    rng, path = attempt.rng, attempt.folder / "shapes.pth"
    kind = rng.choice(("file", "file", "pickle", "directory", "legacy"))
    content = stage.checkpoint.read_bytes()
    if kind == "pickle":
        what, content = _changed_pickle(content, rng)
    elif kind == "directory":
        # The central directory at the end of the zip.
        what, content = mutate_bytes(content, rng, begin=content.rfind(b"PK\1\2", 0, len(content) - 4096))
    elif kind == "legacy":
        # That format has no checksums: only bytes before the weights are changed.
        what, content = mutate_bytes(_intact["legacy"], rng, end=20_000)
    else:
        what, content = mutate_bytes(content, rng)
    path.write_bytes(content)
    what = f"{kind}: {what}"
    return _exported(stage, attempt, path, what, kind) if rng.random() < 0.05 else _loaded(path, what, kind)


def _changed_pickle(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return the archive with a changed pickle, and matching checksums."""
    archive = io.BytesIO()
    what = ""
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith(_PICKLE):
                what, data = mutate_bytes(data, rng)
            target.writestr(entry.filename, data)
    return what, archive.getvalue()


def _loaded(path: Path, what: str, kind: str) -> Finding:
    from yolact_export.checkpoint.checkpoint import load_checkpoint

    loaded = load_checkpoint(path)
    found = loaded.model.state_dict()
    if loaded.config == _intact["config"] and _same(found, _intact["tensors"]):
        if loaded.class_names == _intact["names"]:
            return ok(what)
        return visible(f"{what}: other class names")
    if kind in ("pickle", "legacy"):
        theirs = _read_by_torch(path)
        if theirs is not None and all(key in theirs and _equal(value, theirs[key]) for key, value in found.items()):
            return visible(f"{what}: another checkpoint, read as PyTorch reads it")
    return silent(f"{what}: other weights or another configuration")


def _read_by_torch(path: Path) -> Tensors | None:
    """Return all tensors of a file by their last keys, as loaded by PyTorch itself; None if it fails."""
    try:
        content = torch.load(path, weights_only=True)
    except Exception:
        return None
    found: dict[str, torch.Tensor] = {}
    pending = [content]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            found |= {key: value for key, value in item.items() if isinstance(value, torch.Tensor)}
            pending += item.values()
    return found


def _exported(stage: Stage, attempt: Attempt, path: Path, what: str, kind: str) -> Finding:
    bundle = attempt.folder / "b"
    answer = attempt.run("yolact-export", (path, "-o", bundle, "--no-engine", "-q"))
    finding = judge_answer(answer, f"export of {what}")
    if finding.outcome is not Outcome.OK:
        if bundle.exists():
            return Finding(Outcome.TORN, f"{finding.what}: and a bundle was written")
        return finding
    with open_model(bundle) as segmenter:
        if same_instances(segmenter(stage.frame), stage.instances):
            return finding
    # The checksums match: it is another checkpoint, whose hash is in the manifest.
    return visible(what) if kind in ("pickle", "legacy") else silent(finding.what)


def _same(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(_equal(value, second[key]) for key, value in first.items())


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and bool(torch.equal(first, second.to(first.dtype)))


CAMPAIGN = Campaign("checkpoints", _attempt, 140, 4, _prepare)
