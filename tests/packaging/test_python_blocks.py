"""Python in README and docs does what it shows: every block is run, those of a document in order, in one namespace.

A block finds a scratch folder with the bundles that documents name, made small, and `camera`, `frame` and what else a
reader has at hand. The simulated GPU stands in for a real one, and a stand-in for PyTorch on CUDA, where a block needs
them. A block that cannot run on this machine is listed in `NOT_RUN`, with the reason.
"""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from support.device_network import replay, tensor_specs
from support.fake_tensorrt import FakeTensorRt, add_engine, put_in_place
from support.host_gpu import HostDriver, host_gpu, share_kernels
from support.scenes import DEFAULT_PROTOTYPE, Thing, raw_outputs, small_manifest, write_bundle
from support.signing_keys import write_keys
from support.tools import require_tool
from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.dlpack import CUDA, import_capsule
from yolact_plugins.driver.driver import Device
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_runtime.commands import run_cli
from yolact_runtime.media.images import write_image
from yolact_runtime.model.bundle_signature import sign_bundle

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# (document, a line of the block) -> why it cannot run here. There is none at present.
NOT_RUN: dict[tuple[str, str], str] = {}
BUNDLES = ("balloons", "base", "mine", "shapes")
THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]
FRAME = np.full((40, 60, 3), 250, np.uint8)

Namespace = dict[str, Any]


def blocks_of(path: Path) -> list[tuple[int, str]]:
    """Line number and text of each Python block."""
    text = path.read_text(encoding="utf-8")
    found = re.finditer(r"^```(?:python|py)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text[: match.start(1)].count("\n"), match[1]) for match in found]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


WITH_BLOCKS = [path for path in DOCUMENTS if blocks_of(path)]


@contextmanager
def gpu_at_hand(patch: pytest.MonkeyPatch) -> Iterator[Namespace]:
    """A robot with a GPU and an engine in a signed bundle.

    PyTorch's part is to own a frame there, and to take an array by DLPack.
    """
    require_tool("g++")
    share_kernels(patch)
    with host_gpu() as device:
        tensors = tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape)  # type: ignore[arg-type]  # three numbers
        put_in_place(patch, FakeTensorRt(device, tensors, replay([raw_outputs(small_manifest(), THINGS)])))
        add_engine(Path("mine.bundle"))
        private, public = write_keys(Path("keys"))
        sign_bundle(Path("mine.bundle"), private)
        public.rename("vendor.pub")
        buffer = DeviceBuffer(device, FRAME.nbytes)
        _memory(device, buffer.pointer, FRAME.shape)[...] = FRAME
        at_hand = {
            "torch_cuda_frame": DeviceArray(device, buffer.pointer, FRAME.shape, np.uint8, owner=buffer),
            "nv12": np.full((60, 60), 128, np.uint8),
            "torch": SimpleNamespace(from_dlpack=lambda array: _taken_by_dlpack(device, array)),
        }
        try:
            yield at_hand
        finally:
            buffer.close()


def _memory(device: Device, pointer: int, shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray[Any, Any]:
    assert isinstance(device.driver, HostDriver)
    return device.driver.view(pointer, shape, dtype)


def _taken_by_dlpack(device: Device, array: Any) -> np.ndarray[Any, Any]:
    assert array.__dlpack_device__() == (CUDA, 0)
    layout = import_capsule(array.__dlpack__(stream=1)).layout
    device.synchronize()
    return _memory(device, layout.pointer, layout.shape, layout.dtype).copy()


def lines_of_a_run(capsys: pytest.CaptureFixture[str]) -> io.StringIO:
    """What ``yolact-run … --jsonl -`` writes for a picture and one that is missing."""
    write_image(Path("photo.png"), FRAME)
    words = ["shapes.bundle", "photo.png", "missing.png", "--jsonl", "-", "-q", "--backend", "onnxruntime-cpu"]
    assert run_cli.main(words) == 1
    return io.StringIO(capsys.readouterr().out)


def write_clip(path: str, frame: np.ndarray[Any, Any], count: int = 5) -> None:
    """A video of the same frame again and again."""
    writer: Any = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10.0, frame.shape[1::-1])
    for _ in range(count):
        writer.write(frame)
    writer.release()


def check_readme(namespace: Namespace, said: str) -> None:
    assert len(namespace["instances"]) == len(namespace["detections"]) == 2
    assert namespace["instance"].class_name == "bird"
    assert said.startswith("cat 0.")


def check_getting_started(namespace: Namespace, said: str) -> None:
    assert [line.split()[0] for line in said.splitlines()] == ["cat", "bird"]


def check_runtime(namespace: Namespace, said: str) -> None:
    assert namespace["segmenter"].postprocessing == "gpu"
    labels = namespace["labels"]
    assert (labels.shape, labels.dtype) == (FRAME.shape[:2], np.int32)
    assert len(np.unique(labels)) == 3  # two things, and the background
    assert [classes[:2] for classes in namespace["classes"]] == [[0, 2]] * 5
    assert namespace["labels_of_pixels"].shape == FRAME.shape[:2]
    assert namespace["on_top"] == 0
    assert namespace["names"] == ["cat", "bird"]
    assert namespace["large"].class_id.tolist() == [0, 2]
    assert (namespace["picture"] != FRAME).any()
    assert "<Instances: 2 in a frame of 60 x 40: cat 0.90, bird 0.60>\n" in said


def check_run(namespace: Namespace, said: str) -> None:
    assert said.splitlines()[0].startswith("photo.png None cat [")
    assert "missing.png: " in said
    assert namespace["line"]["schema"] == "yolact-results/1"


def check_export(namespace: Namespace, said: str) -> None:
    assert said.splitlines()[-1] == "mine.bundle 320 True"
    assert (Path("mine.bundle") / "model.fp32.onnx").exists()


def check_precision(namespace: Namespace, said: str) -> None:
    assert said.startswith("True ['golden.npz', 'model.fp32.onnx', 'model.int8-cpu.onnx']")


def check_training(namespace: Namespace, said: str) -> None:
    assert namespace["result"].mask_ap is not None


def check_benchmarks(namespace: Namespace, said: str) -> None:
    assert namespace["speed"].cases[0]["instances"] == 10
    assert float(said.split()[0]) > 0


def prepare_export() -> None:
    import torch

    from support.narrow_models import narrow_state_dict

    torch.save(narrow_state_dict("yolact_resnet50"), "mine.pth")


def prepare_precision() -> None:
    from support.precision_trials import make_frames, write_small_bundle

    shutil.rmtree("mine.bundle")
    write_small_bundle(Path("mine.bundle"))
    Path("photos").mkdir()
    for name, frame in make_frames(8, 1):
        write_image(Path("photos", name), frame)


def prepare_training() -> None:
    """A picture, and a label for the cat in it."""
    Path("val").mkdir()
    write_image(Path("val", "1.png"), FRAME)
    outline = [[15, 10, 45, 10, 45, 30, 15, 30]]
    label = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline, "bbox": [15, 10, 30, 20]}
    document = {
        "images": [{"id": 1, "file_name": "1.png", "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{**label, "area": 600.0, "iscrowd": 0}],
    }
    Path("val.json").write_text(json.dumps(document))


# What a reader of a document has, besides the bundles.
PREPARED: dict[str, Callable[[], None]] = {
    "docs/export.md": prepare_export,
    "docs/precision.md": prepare_precision,
    "docs/training.md": prepare_training,
}
# What shows that the blocks of a document did something.
CHECKS: dict[str, Callable[[Namespace, str], None]] = {
    "README.md": check_readme,
    "docs/benchmarks.md": check_benchmarks,
    "docs/export.md": check_export,
    "docs/getting-started.md": check_getting_started,
    "docs/precision.md": check_precision,
    "docs/run.md": check_run,
    "docs/runtime.md": check_runtime,
    "docs/training.md": check_training,
}


@pytest.fixture
def _logging_as_it_was() -> Iterator[None]:
    """Undo what blocks do to logging, whose levels and handlers outlive a test."""
    loggers = [logging.getLogger(name) for name in (None, "yolact_runtime", "yolact_plugins")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.usefixtures("_logging_as_it_was")
@pytest.mark.parametrize("path", WITH_BLOCKS, ids=name_of)
def test_python_blocks_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in BUNDLES:
        write_bundle(tmp_path / f"{name}.bundle", THINGS)
    namespace: Namespace = {"__name__": "__main__", "frame": FRAME, "camera": [FRAME, FRAME[:20]]}
    blocks = [(line, text) for line, text in blocks_of(path) if not reason_not_to_run(path, text)]
    assert blocks
    on_a_gpu = any("cuda" in text or "on_device" in text for _, text in blocks)
    if any("sys.stdin" in text for _, text in blocks):
        monkeypatch.setattr(sys, "stdin", lines_of_a_run(capsys))
    PREPARED.get(name_of(path), lambda: None)()
    if any("clip.avi" in text for _, text in blocks):
        write_clip("clip.avi", FRAME)
    with monkeypatch.context() as patch, gpu_at_hand(patch) if on_a_gpu else no_more() as at_hand:
        namespace |= at_hand
        for line, text in blocks:
            # With its place in the document, which a traceback then shows.
            exec(compile("\n" * line + text, str(path), "exec"), namespace)
    said = capsys.readouterr()
    if name_of(path) in CHECKS:
        CHECKS[name_of(path)](namespace, said.out + said.err)


@contextmanager
def no_more() -> Iterator[Namespace]:
    yield {}


def reason_not_to_run(path: Path, text: str) -> str | None:
    return next(
        (why for (name, line), why in NOT_RUN.items() if name == name_of(path) and line in text.splitlines()), None
    )


def test_the_documents_have_blocks_and_every_exception_is_one() -> None:
    assert set(CHECKS) <= {name_of(path) for path in WITH_BLOCKS}
    texts = {name_of(path): [text for _, text in blocks_of(path)] for path in WITH_BLOCKS}
    for name, line in NOT_RUN:
        assert sum(line in text.splitlines() for text in texts[name]) == 1, (name, line)


def test_a_block_that_is_wrong_is_found(tmp_path: Path) -> None:
    document = tmp_path / "x.md"
    document.write_text("a\n\n```python\nb = 1\nraise KeyError\n```\n\n```console\n$ c\n```\n\n```python\nd = b\n```\n")
    (first, wrong), (second, _) = blocks_of(document)
    assert (first, second) == (3, 12)
    with pytest.raises(KeyError) as raised:
        exec(compile("\n" * first + wrong, str(document), "exec"), {})
    assert raised.traceback[-1].lineno == 4  # counted from 0
