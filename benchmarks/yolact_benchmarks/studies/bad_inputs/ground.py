"""The sound inputs that bad ones are derived from: a small model, annotated scenes, images of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yolact_benchmarks.studies.bad_inputs.case import Case
from yolact_benchmarks.studies.bad_inputs.trial import run_case
from yolact_calibration import shapes

__all__ = ["Ground", "prepare_ground"]

ROOT = Path(__file__).parents[4]
_NUM_SCENES = 6


@dataclasses.dataclass(frozen=True)
class Ground:
    """Sound inputs that all tries share.

    Attributes:
        folder: Temporary folder of the campaign.
        bundle: Bundle of the model ``shapes``, in float32.
        images: Folder of the scenes.
        annotations: File with the labels of the scenes.
        document: Content of the labels file, parsed.
    """

    folder: Path
    bundle: Path
    images: Path
    annotations: Path
    document: dict[str, Any]
    _numbers: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    @property
    def paths(self) -> list[Path]:
        """The scenes' files, by name."""
        return sorted(self.images.iterdir())

    def new_folder(self) -> Path:
        """Create an empty folder for one try."""
        folder = self.folder / f"try-{next(self._numbers)}"
        folder.mkdir()
        return folder

    def run_words(self, *words: object) -> tuple[str, ...]:
        """Return the arguments of ``yolact-run`` with this model."""
        return (str(self.bundle), *map(str, words), "--threads", "1", "--precision", "fp32")

    def eval_words(self, annotations: Path, result: Path, *words: object) -> tuple[str, ...]:
        """Return the arguments of ``yolact-eval`` with this model."""
        paths = ("--annotations", str(annotations), "--images", str(self.images), "--json", str(result))
        return (str(self.bundle), *paths, "--bootstrap", "0", "--threads", "1", "--precision", "fp32", *map(str, words))


def prepare_ground(folder: Path) -> Ground:
    """Export the model and draw the scenes.

    Raises:
        RuntimeError: One of them failed, so that no try would be meaningful.
    """
    scenes, bundle = folder / "scenes", folder / "shapes.bundle"
    if shapes.main(["--seed", "10000", "--count", str(_NUM_SCENES), "-o", str(scenes), "-q"]) != 0:
        raise RuntimeError("the scenes cannot be drawn")
    words = (str(ROOT / "examples/models/shapes.pth"), "-o", str(bundle), "--no-engine", "-q")
    answer = run_case(Case("", "", "yolact-export", words, lambda _: True))
    if answer.status != 0:
        raise RuntimeError(f"the model cannot be exported: {answer.stderr}")
    annotations = scenes / "instances.json"
    return Ground(folder, bundle, scenes / "images", annotations, json.loads(annotations.read_bytes()))
