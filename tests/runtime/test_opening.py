"""Opening models whose manifest says what it should not: an error that can be explained, before memory is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.scenes import Thing, write_bundle
from yolact_runtime import Segmenter, mask_rescoring
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.errors import OutputError, YolactError

THINGS = [Thing((0.1, 0.2, 0.6, 0.8))]
NUMBERS = [
    ("input", "height"),
    ("input", "width"),
    ("input", "mean_bgr", 0),
    ("input", "std_bgr", 0),
    ("priors", "feature_sizes", 0, 0),
    ("priors", "feature_sizes", 1),
    ("priors", "scales_px", 0),
    ("priors", "aspect_ratios"),
    ("priors", "variances", 1),
    ("detection", "score_threshold"),
    ("detection", "top_k"),
    ("detection", "max_instances"),
]
VALUES = [1, 2, 7, 4096, 16_384, 10**5, 10**6, 10**18, 10**19, 1e-6, 0.5, 1e6, [1, 1], [4096, 256], [1.0] * 64]
# Half a gigabyte more than an open session has: an array of the size that a manifest claims does not fit.
_LIMITED = """
import resource, sys
from pathlib import Path
from yolact_runtime import Segmenter, opening
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.errors import YolactError
Segmenter.open(sys.argv[1]).close()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), -1))
for path in sys.argv[2:]:
    try:
        Segmenter.open(path).close()
        print("opened")
    except YolactError as error:
        print(type(error).__name__)
"""


def _write_variants(bundle: Path, place: tuple[str | int, ...]) -> list[Path]:
    text = (bundle / "manifest.json").read_text(encoding="utf-8")
    folders = []
    for number, value in enumerate(VALUES):
        document = json.loads(text)
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        folder = bundle.parent / f"{'.'.join(map(str, place))}.{number}"
        folder.mkdir()
        (folder / "model.fp32.onnx").hardlink_to(bundle / "model.fp32.onnx")
        (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
        folders.append(folder)
    return folders


def test_numbers_of_a_manifest_never_exhaust_memory(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", THINGS)
    folders = [folder for place in NUMBERS for folder in _write_variants(bundle, place)]
    words = [sys.executable, "-c", _LIMITED, str(bundle), *map(str, folders)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = done.stdout.split()
    assert len(outcomes) == len(folders)
    assert {"opened", "ManifestError"} <= set(outcomes)


@pytest.mark.parametrize("count", [1, 2, 100, 10**5])
def test_another_number_of_classes_than_the_network_has(count: int, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", THINGS)
    document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    document["class_names"] = [f"class {number}" for number in range(count)]
    (bundle / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(YolactError, match=r"class_logit|class_names has 100000 entries, 65536 at most"):
        Segmenter.open(bundle)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("input", "height"), 16_384, r'the input "image" should have the shape \(1, 3, 16384, \d+\) for this model'),
        (("priors", "feature_sizes"), [[2000, 2000], [1, 1]], r'the output "box_regression" should have the shape'),
    ],
)
def test_nothing_is_made_in_a_size_that_the_network_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[str, str], value: object, message: str
) -> None:
    bundle = write_bundle(tmp_path / "b", THINGS)
    document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    if place[1] == "feature_sizes":
        document["priors"]["scales_px"] = [[8.0], [8.0]]
        document["priors"]["aspect_ratios"] = [1.0]
    document[place[0]][place[1]] = value
    (bundle / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr("yolact_runtime.cpu.postprocess.make_priors", None)
    with pytest.raises(OutputError, match=message):
        Segmenter.open(bundle)


def test_both_networks_are_closed_where_the_model_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the mask-IoU network of YOLACT++ returns is checked when it is open."""
    bundle = write_bundle(tmp_path / "b.bundle", THINGS, mask_iou=[0.5, 0.5, 0.5])
    closed: list[str] = []
    original = OnnxRuntimeBackend.close

    def close(self: OnnxRuntimeBackend) -> None:
        closed.extend(self.outputs)
        original(self)

    def refuse(*_: object) -> None:
        raise OutputError("another mask-IoU network")

    monkeypatch.setattr(OnnxRuntimeBackend, "close", close)
    monkeypatch.setattr(mask_rescoring, "check_mask_iou_type", refuse)
    with pytest.raises(OutputError, match="another mask-IoU network"):
        Segmenter.open(bundle, "onnxruntime-cpu")
    assert {"mask_iou", "prototype"} <= set(closed)
