"""Annotation files with one change.

Silently wrong: the file is read without a message, and images, class names or the number of labels are not those that
it states. Other labels that match the changed file are visible.
"""

from __future__ import annotations

import json
from typing import Any

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.mutations import mutate_json
from yolact_benchmarks.studies.storm.outcome import Finding, judge_answer, ok, silent, visible
from yolact_benchmarks.studies.storm.stage import Stage

__all__ = ["CAMPAIGN"]


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    from yolact_calibration.labels.coco import CocoAnnotations

    what, document = mutate_json(stage.ground.document, attempt.rng)
    path = attempt.folder / "a.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    if attempt.rng.random() < 0.1:
        result = attempt.folder / "r.json"
        return judge_answer(attempt.run("yolact-eval", stage.ground.eval_words(path, result)), what)
    found = CocoAnnotations.from_file(path)
    intact = CocoAnnotations.from_document(stage.ground.document, "intact")
    if found.findings != intact.findings:
        return visible(f"{what}: {'; '.join(found.findings)}")
    if _facts(found) == _facts(intact):
        return ok(what)
    if not _states(document, found):
        return silent(f"{what}: labels that the file does not have")
    return visible(f"{what}: other labels, as the file says")


def _facts(annotations: Any) -> Any:
    return annotations.images, annotations.category_ids, annotations.category_names, _instances(annotations)


def _instances(annotations: Any) -> dict[Any, list[str]]:
    return {image_id: [repr(item) for item in group] for image_id, group in annotations.instances.items()}


def _states(document: Any, found: Any) -> bool:
    """Return whether the counts, names and sizes that were read are those of the changed document."""
    images = {(image["id"], image["file_name"], image["height"], image["width"]) for image in document["images"]}
    read = {(image.image_id, image.file_name, image.height, image.width) for image in found.images}
    # A number is accepted as a name, and shown as one.
    names = {str(category["name"]) for category in document["categories"]}
    return read == images and set(found.category_names) <= names and found.num_instances <= len(document["annotations"])


CAMPAIGN = Campaign("labels", _attempt, 100, 4)
