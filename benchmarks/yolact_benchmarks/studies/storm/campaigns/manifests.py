"""Manifests of unsigned bundles with a change: a value missing, of another type, out of range, or slightly different.

Such a manifest is trusted, and a change of it may change the result. Silently wrong: the instances are not those of the
intact bundle, and nothing shows why: the manifest in use is the intact one, or input or priors were changed and the
comparison with the manifest inside the network does not notice.
"""

from __future__ import annotations

import dataclasses
import json

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.mutations import mutate_json
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome, judge_answer, ok, silent, visible
from yolact_benchmarks.studies.storm.stage import Stage, open_model, same_instances
from yolact_runtime.errors import SelfTestError
from yolact_runtime.model.manifest import Manifest

__all__ = ["CAMPAIGN"]


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    bundle = stage.copy_bundle(attempt.folder / "b")
    changes = []
    document = stage.manifest
    for _ in range(attempt.rng.choice((1, 1, 1, 2))):
        what, document = mutate_json(document, attempt.rng)
        changes.append(what)
    what = "; ".join(changes)
    (bundle / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    if attempt.rng.random() < 0.05:
        return judge_answer(attempt.run("yolact-run", (bundle, stage.picture, "--threads", 1)), what)
    intact = Manifest.from_json((stage.bundle / "manifest.json").read_bytes(), "intact")
    with open_model(bundle) as segmenter:
        found = segmenter(stage.frame)
        manifest = segmenter.manifest
        if same_instances(found, stage.instances) and manifest.class_names == intact.class_names:
            return ok(what)
        if dataclasses.replace(manifest, artefacts={}) == dataclasses.replace(intact, artefacts={}):
            return silent(f"{what}: other instances, and the manifest in use is the intact one")
        if manifest.input != intact.input or manifest.priors != intact.priors:
            return _compared(segmenter, what)
    return Finding(Outcome.VISIBLE, f"{what}: the manifest in use says so")


def _compared(segmenter: object, what: str) -> Finding:
    try:
        segmenter.compare_manifests()  # type: ignore[attr-defined]
    except SelfTestError as error:
        return visible(f"{what}: {error}")
    return silent(f"{what}: other instances, and the comparison of manifests finds nothing")


CAMPAIGN = Campaign("manifests", _attempt, 150, 5)
