"""What every try starts from: the ground of the bad inputs, and intact answers to compare with."""

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
    """The sound things, made once; forked tries share them, and none changes them.

    Attributes:
        folder: A temporary folder of this storm.
        ground: Bundle, scenes and labels of the bad inputs.
    """

    folder: Path
    ground: Ground

    @property
    def bundle(self) -> Path:
        """``shapes`` in float32, unsigned."""
        return self.ground.bundle

    @cached_property
    def picture(self) -> Path:
        """The scene in which most is found."""
        from yolact_runtime.media.images import read_image

        with open_model(self.bundle) as segmenter:
            return max(self.ground.paths, key=lambda path: len(segmenter(read_image(path))))

    @property
    def checkpoint(self) -> Path:
        """That the bundle was made of."""
        return CHECKPOINT

    @cached_property
    def frame(self) -> Frame:
        """The pixels of `picture`."""
        from yolact_runtime.media.images import read_image

        frame: Frame = read_image(self.picture)
        return frame

    @cached_property
    def instances(self) -> Instances:
        """What the intact bundle finds in `frame`."""
        with open_model(self.bundle) as segmenter:
            return segmenter(self.frame)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The intact manifest, parsed."""
        document: dict[str, Any] = json.loads((self.bundle / "manifest.json").read_bytes())
        return document

    @cached_property
    def keys(self) -> tuple[Path, Path]:
        """A private and a public key of Ed25519."""
        private, public = self.folder / "sign.pem", self.folder / "verify.pem"
        for words in (
            ("genpkey", "-algorithm", "ed25519", "-out", private),
            ("pkey", "-in", private, "-pubout", "-out", public),
        ):
            subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
        return private, public

    def copy_bundle(self, target: Path) -> Path:
        """The intact bundle once more."""
        shutil.copytree(self.bundle, target)
        return target


def prepare_stage(folder: Path) -> Stage:
    """Export the model, draw the scenes, and compute what is right."""
    stage = Stage(folder, prepare_ground(folder))
    if not len(stage.instances):
        raise RuntimeError("the intact model finds nothing, so that no try would say anything")
    return stage


def open_model(path: Path, **options: Any) -> Segmenter:
    """A segmenter with one thread, so that no thread of it is lost in a fork."""
    return Segmenter.open(path, "onnxruntime-cpu", SegmenterOptions(num_threads=1, min_confidence=0.3), **options)


def same_instances(first: Instances, second: Instances) -> bool:
    """Whether two results are the same to the last bit."""
    return (
        np.array_equal(first.xyxy, second.xyxy)
        and np.array_equal(first.confidence, second.confidence)
        and np.array_equal(first.class_id, second.class_id)
        and bool(first.mask == second.mask)
    )


def tests_support() -> None:
    """Make the support of the tests importable: small bundles, videos, a TensorRT that is none."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))
