"""Signed bundles with a changed byte: of the manifest, a listed file, or a file of the signature.

Every try opens the bundle with the public key or without one. Silently wrong: with the key, a changed file that the
signature covers is opened, even if the manifest's hashes were recomputed; or without the key, a changed manifest is
opened. A release that does not accept a key cannot refuse, and is judged by the same rules.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.mutations import mutate_bytes, mutate_json
from yolact_benchmarks.studies.storm.outcome import Finding, ok, silent, visible
from yolact_benchmarks.studies.storm.stage import Stage, open_model, same_instances
from yolact_runtime import Segmenter

__all__ = ["CAMPAIGN"]

_NETWORK, _MANIFEST = "model.fp32.onnx", "manifest.json"


@cache
def _signed(stage: Stage) -> Path:
    """Return the intact bundle, signed."""
    bundle = stage.copy_bundle(stage.folder / "signed.bundle")
    # The former name of the module is tried, too, so that earlier releases can be tested.
    name = next(name for name in ("bundle_signature", "engine_signature") if find_spec(f"yolact_runtime.model.{name}"))
    importlib.import_module(f"yolact_runtime.model.{name}").sign_bundle(bundle, stage.keys[0])
    return bundle


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    rng = attempt.rng
    bundle = attempt.folder / "b"
    shutil.copytree(_signed(stage), bundle)
    kind = rng.choice(("bytes", "bytes", "bytes", "remade", "meaning", "removed"))
    signature_files = sorted(path.name for path in bundle.iterdir() if "sig" in path.name)
    covered = [_MANIFEST, *stage.manifest["artefacts"]]
    name = rng.choice([*covered, _MANIFEST, *signature_files])
    if kind == "removed":
        name = rng.choice(signature_files)
        (bundle / name).unlink()
        what = f"{name} removed"
    elif kind == "meaning":
        name = _MANIFEST
        what, document = mutate_json(stage.manifest, rng)
        (bundle / name).write_text(json.dumps(document), encoding="utf-8")
    else:
        what, changed = mutate_bytes((bundle / name).read_bytes(), rng)
        (bundle / name).write_bytes(changed)
        what = f"{name}: {what}"
        if kind == "remade" and name in stage.manifest["artefacts"]:
            _make_again(bundle, name)
            what, name = f"{what}, hash made again", _MANIFEST
    with_key = rng.random() < 0.6
    return _judge(stage, bundle, name, f"{what}; {'with' if with_key else 'without'} the key", with_key)


def _make_again(bundle: Path, name: str) -> None:
    document = json.loads((bundle / _MANIFEST).read_bytes())
    content = (bundle / name).read_bytes()
    document["artefacts"][name] |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (bundle / _MANIFEST).write_text(json.dumps(document), encoding="utf-8")


def _judge(stage: Stage, bundle: Path, name: str, what: str, with_key: bool) -> Finding:
    options = {}
    if with_key and "verify_key" in inspect.signature(Segmenter.open).parameters:
        options["verify_key"] = stage.keys[1]
    intact = all(
        (bundle / file).exists() and (bundle / file).read_bytes() == (_signed(stage) / file).read_bytes()
        for file in (_MANIFEST, *stage.manifest["artefacts"])
    )
    with open_model(bundle, self_test=name == "golden.npz", **options) as segmenter:
        same = same_instances(segmenter(stage.frame), stage.instances)
    if not same and intact:
        return silent(f"{what}: opened, and other instances")
    if intact and not with_key:
        # Only the signature was changed: the model is the signed one.
        return ok(what)
    if with_key and not intact:
        return silent(f"{what}: opened with the key")
    if with_key and not _signature_is_intact(stage, bundle):
        return silent(f"{what}: opened with a signature that was changed")
    if not with_key and name == _MANIFEST and (bundle / "manifest.json.sig").exists():
        return silent(f"{what}: a changed manifest of a signed bundle was opened")
    return ok(what) if same else visible(what)


def _signature_is_intact(stage: Stage, bundle: Path) -> bool:
    path = bundle / "manifest.json.sig"
    return path.exists() and path.read_bytes() == (_signed(stage) / path.name).read_bytes()


CAMPAIGN = Campaign("signatures", _attempt, 120, 5, _signed)
