"""The common basis of all tries: the sound inputs of the campaign of bad inputs, and right results to compare with."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.studies.bad_inputs.ground import ROOT, Ground, prepare_ground
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.masks.instances import Instances

__all__ = ["Stage", "open_model", "prepare_stage", "same_instances", "tests_support"]

Frame = npt.NDArray[np.uint8]
CHECKPOINT = ROOT / "examples" / "models" / "shapes.pth"


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """Sound inputs, made once; forked tries share them and do not change them.

    Attributes:
        folder: Temporary folder of the storm.
        ground: Bundle, scenes and labels of the campaign of bad inputs.
    """

    folder: Path
    ground: Ground

    @property
    def bundle(self) -> Path:
        """Bundle of the model ``shapes`` in float32, unsigned."""
        return self.ground.bundle

    @cached_property
    def picture(self) -> Path:
        """Image of the scene in which most instances are found."""
        from yolact_runtime.media.images import read_image

        with open_model(self.bundle) as segmenter:
            return max(self.ground.paths, key=lambda path: len(segmenter(read_image(path))))

    @property
    def checkpoint(self) -> Path:
        """Checkpoint that the bundle was exported from."""
        return CHECKPOINT

    @cached_property
    def frame(self) -> Frame:
        """Pixels of `picture`, ``(H, W, 3)`` uint8, BGR."""
        from yolact_runtime.media.images import read_image

        frame: Frame = read_image(self.picture)
        return frame

    @cached_property
    def instances(self) -> Instances:
        """Instances that the intact bundle finds in `frame`."""
        with open_model(self.bundle) as segmenter:
            return segmenter(self.frame)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Intact manifest, parsed."""
        document: dict[str, Any] = json.loads((self.bundle / "manifest.json").read_bytes())
        return document

    @cached_property
    def keys(self) -> tuple[Path, Path]:
        """Paths of a private and a public Ed25519 key in PEM format."""
        private, public = self.folder / "sign.pem", self.folder / "verify.pem"
        for words in (
            ("genpkey", "-algorithm", "ed25519", "-out", private),
            ("pkey", "-in", private, "-pubout", "-out", public),
        ):
            subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
        return private, public

    def copy_bundle(self, target: Path) -> Path:
        """Copy the intact bundle and return the path of the copy."""
        shutil.copytree(self.bundle, target)
        return target


def prepare_stage(folder: Path) -> Stage:
    """Export the model, draw the scenes, and compute the right results."""
    stage = Stage(folder, prepare_ground(folder))
    if not len(stage.instances):
        raise RuntimeError("the intact model finds nothing, so no try would be meaningful")
    return stage


def open_model(path: Path, **options: Any) -> Segmenter:
    """Open a segmenter with one thread, because a fork loses all others."""
    return Segmenter.open(path, "onnxruntime-cpu", SegmenterOptions(num_threads=1, min_confidence=0.3), **options)


def same_instances(first: Instances, second: Instances) -> bool:
    """Return whether two results are the same to the last bit."""
    return (
        np.array_equal(first.xyxy, second.xyxy)
        and np.array_equal(first.confidence, second.confidence)
        and np.array_equal(first.class_id, second.class_id)
        and bool(first.mask == second.mask)
    )


def tests_support() -> None:
    """Make the support of the tests importable: small bundles, videos, a fake TensorRT."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))
