"""Network outputs of artificial scenes: a given number of objects of a given size, in the layout of YOLACT at 550."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.model.manifest import DetectionSpec, InputSpec, Manifest, PriorSpec

if TYPE_CHECKING:
    from yolact_runtime.model.mask_iou_network import MaskIouNetwork

__all__ = ["COCO_550", "make_mask_iou_network", "make_outputs", "yolact_manifest"]

Float = npt.NDArray[np.float32]


def yolact_manifest(side: int = 550, num_classes: int = 80) -> Manifest:
    """Return the manifest of the published YOLACT with five feature levels, for a square input of `side` pixels."""
    levels = [-(-side // 8)]
    while len(levels) < 5:
        levels.append(-(-levels[-1] // 2))
    return Manifest(
        name=f"yolact_{side}",
        class_names=tuple(f"class_{i}" for i in range(1, num_classes + 1)),
        input=InputSpec(side, side, (103.94, 116.78, 123.68), (57.38, 57.12, 58.40)),
        priors=PriorSpec(
            feature_sizes=tuple((level, level) for level in levels),
            scales_px=tuple((24.0 * 2**i * side / 550,) for i in range(5)),
            aspect_ratios=(1.0, 0.5, 2.0),
            square=True,
        ),
        detection=DetectionSpec(),
    )


COCO_550 = yolact_manifest()


def make_outputs(
    count: int, box_area: float, seed: int, manifest: Manifest = COCO_550, prototypes: int = 32
) -> dict[str, Float]:
    """Make outputs that a trained network could have returned for `count` objects.

    Args:
        count: Number of objects; each is found by three neighbouring priors, as in a trained model.
        box_area: Mean area of their boxes, as a fraction of the frame; sides vary by a factor of two.
        seed: Seed of the scene.
        manifest: Manifest from :func:`yolact_manifest`. A prototype has twice the rows and columns of the largest
            feature level.
        prototypes: Number K of prototypes.

    Returns:
        The four raw outputs by name, batch 1.
    """
    classes, side = len(manifest.class_names), 2 * manifest.priors.feature_sizes[0][0]
    random = np.random.default_rng(seed)
    priors = make_priors(manifest.priors, manifest.input.height, manifest.input.width)
    stretch = np.exp(random.uniform(-0.35, 0.35, (count, 2)))
    size = np.sqrt(box_area) * stretch / np.sqrt(np.mean(stretch[:, 0] * stretch[:, 1]))
    centre = random.uniform(size / 2, 1 - size / 2)
    # Objects that share a class lie half a frame apart, so that they do not suppress each other.
    repeated = centre[: max(count - classes, 0)]
    centre[classes:] = np.clip((repeated + 0.5) % 1, size[classes:] / 2, 1 - size[classes:] / 2)
    # 97 is prime: neighbouring objects sit on unrelated priors, and none is used twice.
    rows = (np.arange(count)[:, None] * 3 + np.arange(3)) * 97 % len(priors)
    regression = random.normal(0, 0.5, (len(priors), 4)).astype(np.float32)
    logit = random.normal(0, 1, (len(priors), classes + 1)).astype(np.float32)
    logit[:, 0] += 12
    jitter = 1 + random.normal(0, 0.02, (count, 3, 2))
    regression[rows, :2] = (centre[:, None] * jitter - priors[rows, :2]) / (0.1 * priors[rows, 2:])
    regression[rows, 2:] = np.log(size[:, None] * jitter / priors[rows, 2:]) / 0.2
    class_id = np.arange(count) % classes + 1
    logit[rows, class_id[:, None]] = 12 + random.uniform(2, 6, (count, 3))
    # Objects a few prototype pixels across, with outlines as smooth as a network's.
    coarse = random.normal(0, 1, (prototypes, 18, 18))
    maps = np.stack([_smooth(plane, side) for plane in coarse])
    coefficient = np.tanh(random.normal(0, 1, (len(priors), prototypes)))
    return {
        "box_regression": regression[None],
        "class_logit": logit[None],
        "mask_coefficient": coefficient.astype(np.float32)[None],
        "prototype": np.maximum(maps, 0).astype(np.float32)[None] * 2,
    }


def make_mask_iou_network(num_classes: int, seed: int = 0) -> MaskIouNetwork:
    """Make a mask-IoU network of YOLACT++: random weights that keep the scale of activations, predictions near 2."""
    # Scenes are also made for earlier checkouts, which have no such module.
    from yolact_runtime.model.mask_iou_network import WIDTHS, MaskIouNetwork

    rng = np.random.default_rng(seed)
    shapes = [(outputs, inputs, 3, 3) for inputs, outputs in itertools.pairwise(WIDTHS)]
    layers = []
    for shape in [*shapes, (num_classes, WIDTHS[-1], 1, 1)]:
        weight = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        layers.append((weight, rng.normal(0.05, 0.2, shape[0]).astype(np.float32)))
    # A prediction that the last ReLU clips to zero would hide errors.
    layers[-1][1][:] += 2
    return MaskIouNetwork(tuple(layers))


def _smooth(plane: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Interpolate a coarse grid to ``(side, side)`` with a cosine."""
    position = np.linspace(0, plane.shape[0] - 1.001, side)
    low = position.astype(int)
    weight = (1 - np.cos(np.pi * (position - low))) / 2
    rows = plane[low] * (1 - weight)[:, None] + plane[low + 1] * weight[:, None]
    smooth: npt.NDArray[np.float64] = rows[:, low] * (1 - weight) + rows[:, low + 1] * weight
    return smooth
