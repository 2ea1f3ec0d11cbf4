"""Networks whose outputs are replaced, so that every frame has exactly N instances.

The time of post-processing depends on what is found, and what a network finds in an image cannot be chosen. The network
therefore runs on its frame as usual, and its outputs are replaced by outputs of the same shapes that contain exactly N
objects. Each object is found by three priors, as in a trained network, with a score above any usual threshold; boxes
cover 2.5 % of the frame on average and vary by a factor of two; masks have the smooth outline of a blob.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_runtime.backends import Backend
from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.errors import UsageError
from yolact_runtime.model.manifest import Manifest

__all__ = ["BOX_AREA", "PRIORS_OF_OBJECT", "PlantedBackend", "planted_outputs"]

Array = npt.NDArray[np.floating]
Float = npt.NDArray[np.float64]
BOX_AREA = 0.025
PRIORS_OF_OBJECT = 3
_BACKGROUND = 12.0
_SHIFT = 0.1
"""Largest shift of an object's centre, in cells of the grid that keeps objects from suppressing each other."""
_BLOB_SIDE = 18


class PlantedBackend:
    """A network whose outputs are replaced. Closing it leaves the network open.

    Args:
        network: Network to run on every frame.
        outputs: Outputs to return instead, by name; they must not be written to.
    """

    def __init__(self, network: Backend, outputs: Mapping[str, Array]) -> None:
        self.name = network.name
        self._network = network
        self._outputs = outputs

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, Array]:
        """Run the network, drop its outputs, and return the planted ones."""
        self._network.infer(tensor)
        return self._outputs

    def close(self) -> None:
        """Do nothing: the network belongs to the caller."""


def planted_outputs(manifest: Manifest, like: Mapping[str, Array], count: int, seed: int = 0) -> dict[str, Array]:
    """Make outputs that contain exactly `count` objects, in the shapes and dtypes of a network's.

    Args:
        manifest: Manifest of the network.
        like: Outputs of the network for any frame.
        count: Number of objects.
        seed: Seed of the scene.

    Raises:
        UsageError: The number is too large: the model returns at most ``max_instances``, or has too few priors.
    """
    priors = make_priors(manifest.priors, manifest.input.height, manifest.input.width).astype(np.float64)
    most = min(manifest.detection.max_instances, len(priors) // PRIORS_OF_OBJECT)
    if not 0 <= count <= most:
        raise UsageError(f"--instances: this model can return 0 to {most} instances, found {count}")
    random = np.random.default_rng(seed)
    outputs: dict[str, Any] = {name: random.normal(0, 0.5, array.shape) for name, array in like.items()}
    outputs["class_logit"][..., 0] += _BACKGROUND
    outputs["mask_coefficient"] = np.tanh(2 * outputs["mask_coefficient"])
    outputs["prototype"] = _blobs(random, like["prototype"].shape)
    if count:
        rows = random.permutation(len(priors))[: count * PRIORS_OF_OBJECT].reshape(count, PRIORS_OF_OBJECT)
        outputs["box_regression"][0, rows] = _regressions(random, priors[rows], manifest.priors.variances)
        class_id = np.arange(count) % len(manifest.class_names) + 1
        score = random.uniform(2, 4, (count, PRIORS_OF_OBJECT))
        # Suppression considers a limited number of candidates per class; the best prior of every object must be among
        # them.
        score[:, 0] += 2
        outputs["class_logit"][0, rows, class_id[:, None]] = outputs["class_logit"][0, rows, 0] + score
        # One object has one mask, whichever of its priors is kept.
        outputs["mask_coefficient"][0, rows] = outputs["mask_coefficient"][0, rows[:, :1]]
    return {name: np.ascontiguousarray(array, like[name].dtype) for name, array in outputs.items()}


def _regressions(random: np.random.Generator, priors: Float, variances: tuple[float, float]) -> Float:
    """Return ``(N, 3, 4)`` box regressions of objects in the cells of a grid, found by priors ``(N, 3, 4)``."""
    count = len(priors)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cell = np.stack(np.divmod(np.arange(count), columns)[::-1], axis=1)
    centre = (cell + 0.5 + random.uniform(-_SHIFT, _SHIFT, (count, 2))) / [columns, rows]
    stretch = np.exp(random.uniform(-0.35, 0.35, (count, 2)))
    size = np.sqrt(BOX_AREA) * stretch / np.sqrt(np.mean(stretch[:, 0] * stretch[:, 1]))
    # The three priors regress slightly different boxes for the same object.
    seen = 1 + random.normal(0, 0.02, (count, PRIORS_OF_OBJECT, 2))
    shifted = centre[:, None] + size[:, None] * (seen - 1)
    return np.concatenate(
        [
            (shifted - priors[..., :2]) / (variances[0] * priors[..., 2:]),
            np.log(size[:, None] * seen / priors[..., 2:]) / variances[1],
        ],
        axis=2,
    )


def _blobs(random: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Return prototypes ``(1, K, Hp, Wp)`` as smooth as a network's, 0 and above."""
    _, prototypes, height, width = shape
    coarse = random.normal(0, 1, (prototypes, _BLOB_SIDE, _BLOB_SIDE))
    low, weight = _cosine(height)
    rows = coarse[:, low] * (1 - weight)[:, None] + coarse[:, low + 1] * weight[:, None]
    low, weight = _cosine(width)
    maps = rows[:, :, low] * (1 - weight) + rows[:, :, low + 1] * weight
    return np.maximum(maps, 0)[None] * 2


def _cosine(side: int) -> tuple[npt.NDArray[np.int64], Float]:
    position = np.linspace(0, _BLOB_SIDE - 1.001, side)
    low = position.astype(np.int64)
    return low, (1 - np.cos(np.pi * (position - low))) / 2
