"""Golden outputs of the original YOLACT, and deterministic weights for any model of this project.

Errors are relative to the larger of the expected value and the root mean square of the expected tensor, so that neither
a few large values nor many small ones can hide a difference.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from goldens import fill

FOLDER = Path(__file__).parents[1] / "goldens"
CONFIG_NAMES = ("yolact_resnet50", "yolact_base", "yolact_im400", "yolact_plus_resnet50")
IMAGE_NAMES = ("astronaut", "coffee", "chelsea")

Float32 = npt.NDArray[np.float32]
_NUM_SAMPLES = 4096
# Measured: 6e-6 in torch and 1.1e-5 in ONNX Runtime. The contract is 1e-3.
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Golden:
    """Results of the original implementation for one configuration.

    Attributes:
        name: Name of the configuration.
        document: JSON document with keys, seeds of the weights, and detections.
        samples: Sampled values by ``<image>.<tensor>``; see :func:`sampled`.
    """

    name: str
    document: Mapping[str, Any]
    samples: Mapping[str, Float32]

    @property
    def size(self) -> int:
        """Side of the square network input, pixels."""
        return int(self.document["max_size"])


@functools.cache
def load_golden(name: str) -> Golden:
    """Load the golden of a configuration in :data:`CONFIG_NAMES`."""
    path = FOLDER / "official" / name
    document = json.loads(gzip.decompress(path.with_suffix(".json.gz").read_bytes()))
    with np.load(path.with_suffix(".npz")) as arrays:
        return Golden(name, document, dict(arrays))


def golden_arrays(golden: Golden) -> dict[str, npt.NDArray[Any]]:
    """Return the weights that the original implementation ran with, by state-dict key."""
    document = golden.document
    seeds = document["residual_norm"], document["num_classes"], document["background_logit"]
    return {key: fill.tensor(key, tuple(shape), *seeds) for key, shape in document["keys"].items()}


def weights_sha256(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the digest of the weights that a golden's document records."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(key.encode() + arrays[key].tobytes())
    return digest.hexdigest()


def write_golden_checkpoint(golden: Golden, folder: Path) -> Path:
    """Write a checkpoint as the original would have saved it, under a published name; return its path."""
    path = folder / f"{golden.name}_54_800000.pth"
    torch.save({key: torch.from_numpy(value) for key, value in golden_arrays(golden).items()}, path)
    return path


def filled_state_dict(shapes: Mapping[str, tuple[int, ...]], num_classes: int) -> dict[str, torch.Tensor]:
    """Make weights for a model of any structure that keep activations bounded, as in a trained model."""
    return {
        key: torch.from_numpy(np.array(fill.tensor(key, shape, _residual_norm(key), num_classes, 3.0)))
        for key, shape in shapes.items()
    }


def _residual_norm(key: str) -> str:
    """Return the batch norm that closes a residual block of the family that `key` seems to belong to."""
    closing = ("bn3", "conv2.1", "conv.3", "bn2")
    return next((name for name in closing if f".{name}." in key), "bn3")


def golden_input(golden: Golden, image_name: str) -> Float32:
    """Return the network input ``(1, 3, S, S)`` of a golden image, by section 3 of the specification."""
    frame = cv2.imread(str(FOLDER / "images" / f"{image_name}.png"))
    stretched = stretch(frame.astype(np.float32), golden.size, golden.size)
    mean = np.array([103.94, 116.78, 123.68], np.float32)
    std = np.array([57.38, 57.12, 58.40], np.float32)
    rgb = ((stretched - mean) / std)[..., ::-1]
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])


def stretch(frame: Float32, height: int, width: int) -> Float32:
    """Resize ``frame (H, W, 3)`` bilinearly, with half-pixel centres and without antialiasing."""
    top, bottom, down = _neighbours(frame.shape[0], height)
    left, right, across = _neighbours(frame.shape[1], width)
    rows = frame[top] * (1 - down)[:, None, None] + frame[bottom] * down[:, None, None]
    return rows[:, left] * (1 - across)[None, :, None] + rows[:, right] * across[None, :, None]


def _neighbours(old: int, new: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float32]:
    # In float32, as PyTorch computes it: at 550 columns the rounding shows in the fifth digit of the input.
    position = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
    position = np.maximum(position, np.float32(0))
    first = np.minimum(position.astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), (position - first).astype(np.float32)


def sampled(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the elements of a tensor that the goldens store."""
    flat = np.ascontiguousarray(values).ravel()
    return flat[:: max(1, flat.size // _NUM_SAMPLES)][:_NUM_SAMPLES]


def relative_error(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the maximum of ``|actual - expected| / max(|expected|, rms(expected))`` over all elements."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    reference = expected.astype(np.float64)
    scale = np.maximum(np.abs(reference), np.sqrt(np.mean(reference**2)))
    return float(np.max(np.abs(actual.astype(np.float64) - reference) / scale))


def require_same_outputs(
    golden: Golden,
    image_name: str,
    box: npt.NDArray[Any],
    logit: npt.NDArray[Any],
    coefficient: npt.NDArray[Any],
    prototype: npt.NDArray[Any],
) -> None:
    """Assert that the four outputs of a network for a golden image are the original's."""
    outputs = {
        "loc": box[0],
        "conf": softmax(logit[0]),
        "mask": coefficient[0],
        "proto": prototype[0].transpose(1, 2, 0),
    }
    for name, value in outputs.items():
        assert list(value.shape) == golden.document["images"][image_name][name]["shape"]
        error = relative_error(sampled(value), golden.samples[f"{image_name}.{name}"])
        assert error < _TOLERANCE, (image_name, name)


def softmax(logit: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Compute the softmax over the last axis."""
    power = np.exp(logit - logit.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)
