"""Results as JSON documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yolact_runtime.masks.instances import Instances

__all__ = ["image_document"]


def image_document(file: str, instances: Instances, class_names: Sequence[str]) -> dict[str, Any]:
    """The JSON object of one image.

    Args:
        file: Name to record.
        instances: Of that image.
        class_names: Indexed by class id.

    Returns:
        ``{"file", "height", "width", "instances": [{"class_id", "class_name", "confidence", "mask_confidence"?, "xyxy",
        "mask": {"size", "counts"}}]}``; boxes in pixels to a hundredth, confidences to six decimals, masks as COCO RLE.
    """
    entries = []
    for i, rle in enumerate(instances.mask.rle()):
        class_id = int(instances.class_id[i])
        entry: dict[str, Any] = {
            "class_id": class_id,
            "class_name": class_names[class_id],
            "confidence": round(float(instances.confidence[i]), 6),
        }
        if instances.mask_confidence is not None:
            entry["mask_confidence"] = round(float(instances.mask_confidence[i]), 6)
        entry["xyxy"] = [round(float(value), 2) for value in instances.xyxy[i]]
        entry["mask"] = rle
        entries.append(entry)
    return {"file": file, "height": instances.height, "width": instances.width, "instances": entries}
