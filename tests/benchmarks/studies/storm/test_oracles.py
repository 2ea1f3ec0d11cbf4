"""The oracle of each campaign finds a fault that is planted for it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support.scenes import Thing, fake_segmenter, small_manifest, write_bundle
from yolact_benchmarks.studies.bad_inputs.case import Answer
from yolact_benchmarks.studies.bad_inputs.ground import Ground
from yolact_benchmarks.studies.storm.attempt import Attempt
from yolact_benchmarks.studies.storm.campaigns import (
    checkpoints,
    concurrency,
    disks,
    kills,
    labels,
    manifests,
    numbers,
    onnx_files,
    options,
    pictures,
    plans,
    signatures,
    soak,
    videos,
)
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome
from yolact_benchmarks.studies.storm.stage import Stage
from yolact_benchmarks.studies.storm.writers import Writer, torn_files
from yolact_runtime.cpu import postprocess

THINGS = [Thing((0.25, 0.25, 0.75, 0.75))]
FRAME = np.full((40, 60, 3), 255, np.uint8)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A small bundle of the tests in place of the exported one."""
    bundle = write_bundle(tmp_path / "model.bundle", THINGS)
    images = tmp_path / "images"
    images.mkdir()
    stage = Stage(tmp_path, Ground(tmp_path, bundle, images, tmp_path / "a.json", {}))
    stage.__dict__["frame"] = FRAME
    stage.__dict__["picture"] = images / "a.png"
    return stage


def _attempts(tmp_path: Path, count: int) -> Iterator[Attempt]:
    for number in range(count):
        folder = tmp_path / f"try-{number}"
        folder.mkdir()
        yield Attempt(random.Random(number), number, folder)


def _outcomes(campaign: Any, stage: Stage, count: int) -> set[Outcome]:
    """Of some tries in this process; those that the project refuses are left out."""
    found = set()
    for attempt in _attempts(stage.folder, count):
        try:
            found.add(campaign._attempt(stage, attempt).outcome)
        except Exception:
            continue
    return found


def _other_instances(_: object, **__: Any) -> Any:
    """A model that finds something else than the intact one."""
    return fake_segmenter([[Thing((0.0, 0.0, 0.3, 0.3), class_id=1)]])[0]


def test_a_bundle_that_is_opened_in_spite_of_its_signature(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "open_model", _other_instances)
    assert Outcome.SILENT in _outcomes(signatures, stage, 8)


def test_a_key_that_is_ignored(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "open_model", lambda *_, **__: fake_segmenter([THINGS])[0])
    monkeypatch.setattr(signatures, "same_instances", lambda *_: True)
    bundle = stage.copy_bundle(stage.folder / "b")
    (bundle / "manifest.json").write_text((bundle / "manifest.json").read_text() + " ")
    (bundle / "manifest.json.sig").write_bytes(bytes(64))
    for with_key in (True, False):
        found = signatures._judge(stage, bundle, "manifest.json", "a space", with_key)
        assert found.outcome is Outcome.SILENT


def test_a_manifest_whose_change_nothing_shows(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "open_model", _other_instances)
    assert _outcomes(manifests, stage, 6) - {Outcome.REFUSED} == {Outcome.SILENT}


def test_input_and_priors_that_are_not_compared(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = small_manifest(input=dataclasses.replace(small_manifest().input, mean_bgr=(0.0, 0.0, 0.0)))
    segmenter = SimpleNamespace(manifest=changed, compare_manifests=lambda: None)
    assert manifests._compared(segmenter, "another mean").outcome is Outcome.SILENT


def test_a_network_that_runs_in_spite_of_its_hash(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_files, "open_model", _other_instances)
    monkeypatch.setattr(onnx_files, "_alone", lambda *_: {})
    for attempt in _attempts(stage.folder, 12):
        try:
            found = onnx_files._attempt(stage, attempt)
        except KeyError:
            # The hash was made again: compared with ONNX Runtime alone, which says nothing here.
            continue
        assert found.outcome is Outcome.SILENT
        return
    raise AssertionError("no try left the hash as it was")


def test_weights_that_are_not_those_of_the_file(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from yolact_export.checkpoint import checkpoint

    intact = {"w": torch.zeros(3)}
    monkeypatch.setattr(checkpoints, "_intact", {"config": 1, "names": ("a",), "tensors": intact})

    def read(tensors: dict[str, Any], names: tuple[str, ...] = ("a",)) -> Finding:
        model = SimpleNamespace(state_dict=lambda: tensors)
        loaded = SimpleNamespace(config=1, class_names=names, model=model)
        monkeypatch.setattr(checkpoint, "load_checkpoint", lambda _: loaded)
        return checkpoints._loaded(path, "a flip", "pickle")

    path = stage.folder / "a.pth"
    torch.save({"w": torch.ones(3)}, path)
    assert read(intact).outcome is Outcome.OK
    assert read(intact, ("b",)).outcome is Outcome.VISIBLE
    assert read({"w": torch.ones(3)}).outcome is Outcome.VISIBLE
    assert read({"w": torch.full((3,), 2.0)}).outcome is Outcome.SILENT


def test_pictures_that_are_read_wrong(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolact_runtime.media import images

    pictures._prepare(stage)
    monkeypatch.setattr(images, "read_image", lambda _: np.zeros_like(FRAME))
    monkeypatch.setattr(pictures, "judge_answer", lambda *_: Finding(Outcome.SILENT, ""))
    monkeypatch.setattr(Attempt, "run", lambda *_: Answer(0, "", ""))
    assert _outcomes(pictures, stage, 10) == {Outcome.SILENT}


def test_videos_that_are_short_in_silence(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolact_runtime.media import videos as media

    class Short:
        faults = ()

        def __init__(self, path: Path) -> None: ...

        def __enter__(self) -> Short:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Iterator[int]:
            return iter(range(23))

    monkeypatch.setattr(media, "VideoReader", Short)
    monkeypatch.setattr(videos, "_videos", {"a.mp4": bytes(1000)})
    monkeypatch.setattr(Attempt, "run", lambda *_: Answer(0, "", ""))
    assert Outcome.SILENT in _outcomes(videos, stage, 3)


def test_labels_that_the_file_does_not_have(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolact_calibration.labels.coco import CocoAnnotations

    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [{**box, "segmentation": [[1, 1, 5, 1, 5, 5]]}],
    }
    stage.ground.document.update(document)
    wrong = json.loads(json.dumps(document))
    wrong["images"][0]["height"] = 9
    monkeypatch.setattr(CocoAnnotations, "from_file", lambda _: CocoAnnotations.from_document(wrong, "wrong"))
    monkeypatch.setattr(Attempt, "run", lambda *_: Answer(0, "", ""))
    assert Outcome.SILENT in _outcomes(labels, stage, 5)


def test_options_that_take_everything(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_sound_words", lambda *_: [])
    monkeypatch.setattr(Attempt, "run", lambda *_: Answer(0, "", ""))
    assert _outcomes(options, stage, 60) == {Outcome.OK, Outcome.SILENT}
    monkeypatch.setattr(Attempt, "run", lambda *_: Answer(2, "", "error: no"))
    stage.folder.joinpath("again").mkdir()
    again = dataclasses.replace(stage, folder=stage.folder / "again")
    assert _outcomes(options, again, 150) == {Outcome.REFUSED, Outcome.SILENT}


def test_plans_that_reach_tensorrt(stage: Stage) -> None:
    facts = {"os": "linux", "arch": "x86_64", "library_version": "10.3.0", "compute_capabilities": "8.7"}
    plan = stage.bundle / "model.fp16.plan"

    def judge(sha256: str, given: list[bytes], **build: str) -> Outcome:
        sound = {"sha256": sha256, "build": facts}
        document = {"artefacts": {plan.name: {**sound, "build": facts | build}}}
        (stage.bundle / "manifest.json").write_text(json.dumps(document))
        return plans._judge(stage.bundle, plan, sound, given, None, "changed").outcome

    fits = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert judge(fits, [b"x"]) is Outcome.OK
    assert judge("0" * 64, [b"x"]) is Outcome.SILENT
    assert judge(fits, [b"x"], library_version="9.9") is Outcome.SILENT
    assert judge(fits, [b"x"], compute_capabilities="8.6, 8.7") is Outcome.VISIBLE
    assert judge(fits, []) is Outcome.SILENT


@dataclasses.dataclass(frozen=True, eq=False)
class _Planted(Writer):
    """A command that is a function of the folder that it writes into."""

    write: Callable[[Path], int] = lambda _: 0

    def call(self, stage: Stage, folder: Path) -> int:
        return self.write(folder)


def _writer(write: Callable[[Path], int]) -> Writer:
    return _Planted("planted", "", lambda *_: (), 1, write=write)


def _tries_of(campaign: Any, stage: Stage, writer: Writer, monkeypatch: pytest.MonkeyPatch, count: int) -> set[Outcome]:
    kills.clean_run.cache_clear()
    temporary = stage.folder / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(campaign, "choose_writer", lambda _: writer)
    return _outcomes(campaign, stage, count)


def test_kills_find_torn_files(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path) -> int:
        (folder / "r.json").write_text('{"half": ')
        (folder / "x").mkdir(exist_ok=True)
        (folder / "r.json").write_text('{"half": 1}')
        return 0

    assert Outcome.TORN in _tries_of(kills, stage, _writer(write), monkeypatch, 12)


def test_what_lies_below_a_hidden_name_is_not_torn_but_unfinished(tmp_path: Path) -> None:
    for name in (".b.0123456789abcdef.partial/model.onnx", "b/x.json", ".r.json.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"half": ')
    assert torn_files(tmp_path) == ["b/x.json"]


def test_kills_find_what_is_left_over(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path) -> int:
        names = (folder / f".r.json.{number}.tmp" for number in itertools.count())
        temporary = next(path for path in names if not path.exists())
        temporary.write_text("{}")
        temporary.rename(folder / "r.json")
        return 0

    assert Outcome.LEFTOVER in _tries_of(kills, stage, _writer(write), monkeypatch, 12)


def test_disks_find_lost_results(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path) -> int:
        with contextlib.suppress(OSError):
            (folder / "r.json").write_text(json.dumps("x" * 3_000_000))
        return 0

    assert Outcome.SILENT in _tries_of(disks, stage, _writer(write), monkeypatch, 6)


def test_disks_find_errors_without_a_name(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path) -> int:
        try:
            (folder / "r.json").write_text("1")
        except OSError as error:
            sys.stderr.write(f"error: {errno.errorcode[error.errno or 0]}\n")
            return 1
        return 0

    assert Outcome.TRACEBACK in _tries_of(disks, stage, _writer(write), monkeypatch, 8)


def test_mixtures_of_several_writers(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolact_plugins import files

    monkeypatch.setattr(files, "write_atomically", lambda path, content: path.write_bytes(content + b"!"))
    attempt = next(_attempts(stage.folder, 1))
    assert concurrency._writes(stage, attempt).outcome is Outcome.TORN


def test_use_that_gives_wrong_frames_or_keeps_threads(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    soak._prepare(stage)
    monkeypatch.setattr(soak, "_ROUNDS", 1)
    ended = threading.Event()

    def leak(*_: object) -> str:
        threading.Thread(target=ended.wait).start()
        return ""

    try:
        monkeypatch.setattr(soak, "_USES", {"leak": leak})
        assert _outcomes(soak, stage, 1) == {Outcome.LEFTOVER}
    finally:
        ended.set()
    monkeypatch.setattr(soak, "_USES", {"calls": soak._by_call})
    monkeypatch.setattr(soak, "same_instances", lambda *_: False)
    stage.folder.joinpath("again").mkdir()
    soak._prepare(again := dataclasses.replace(stage, folder=stage.folder / "again"))
    assert _outcomes(soak, again, 1) == {Outcome.SILENT}


def test_numbers_that_differ_from_the_reference(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    call = postprocess.Postprocessor.__call__
    monkeypatch.setattr(numbers, "_frames", numbers._outputs)
    monkeypatch.setattr(numbers.Postprocessor, "__call__", lambda *given: call(*given)[1:])
    assert Outcome.SILENT in _outcomes(numbers, stage, 10)
