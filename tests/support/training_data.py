"""Small data sets and models for the tests of the training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from yolact_calibration import shapes
from yolact_calibration.data.batch import Batch, Truth
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_runtime.media.images import write_image

__all__ = ["TinyObjective", "make_truth", "square", "tiny_batches", "tiny_network", "write_scenes", "write_set"]


def write_scenes(folder: Path, count: int, size: int = 64, seed: int = 0) -> tuple[Path, Path]:
    """Write scenes of shapes; return the annotation file and the image folder."""
    words = ["--seed", str(seed), "--count", str(count), "-o", str(folder), "--size", f"{size}x{size}", "-q"]
    assert shapes.main(words) == 0
    return folder / "instances.json", folder / "images"


def square(left: int, top: int, side: int) -> list[list[int]]:
    """Return the polygons of an axis-aligned square, in pixels."""
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def write_set(
    folder: Path, objects: Sequence[Sequence[dict[str, Any]]], names: Sequence[str] = ("cat", "dog"), size: int = 64
) -> tuple[Path, Path]:
    """Write gray noise images with these annotation objects, whose ``bbox`` and ``image_id`` are filled in."""
    images = folder / "images"
    images.mkdir(parents=True)
    document: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 10 * (c + 1), "name": name} for c, name in enumerate(names)],
    }
    rng = np.random.default_rng(0)
    for number, items in enumerate(objects):
        name = f"{number}.png"
        write_image(images / name, rng.integers(100, 150, (size, size, 3), dtype=np.uint8))
        document["images"].append({"id": number, "file_name": name, "height": size, "width": size})
        for item in items:
            points = np.array(item["segmentation"][0], float).reshape(-1, 2)
            low, extent = points.min(axis=0), np.ptp(points, axis=0)
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 10,
                    "iscrowd": 0,
                    "bbox": [*low.tolist(), *extent.tolist()],
                    "area": float(extent.prod()),
                    **item,
                }
            )
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    CocoAnnotations.from_file(path)
    return path, images


def make_truth(
    boxes: Sequence[Sequence[float]],
    class_id: Sequence[int],
    mask: torch.Tensor | None = None,
    ignored: Sequence[Sequence[float]] = (),
    size: int = 32,
) -> Truth:
    """Make the truth of relative boxes; without `mask`, objects fill their boxes."""
    xyxy = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    if mask is None:
        centre = (torch.arange(size) + 0.5) / size
        across = (centre >= xyxy[:, 0, None]) & (centre < xyxy[:, 2, None])
        down = (centre >= xyxy[:, 1, None]) & (centre < xyxy[:, 3, None])
        mask = down[:, :, None] & across[:, None, :]
    regions = torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4)
    return Truth(xyxy, torch.tensor(class_id, dtype=torch.int64), mask, regions)


def tiny_network(seed: int = 0) -> nn.Module:
    """Make a network of convolution, batch norm and convolution, which trains in a millisecond."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))


class TinyObjective:
    """Objective with two terms: the output's distance from the image's first channel, and its magnitude."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        output = model(batch.image).float()
        return {
            "distance": (output - batch.image[:, :1]).square().mean(),
            "size": 0.1 * output.abs().mean(),
        }


def tiny_batches(first: int, last: int) -> Any:
    """Yield batches of noise, each of which depends on its number only."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        yield Batch(torch.randn(2, 3, 8, 8, generator=generator), (), step)
