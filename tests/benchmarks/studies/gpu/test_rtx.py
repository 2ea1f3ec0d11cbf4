"""The stage that asks what TensorRT-RTX does on a GPU: every question is answered by a row, whatever fails."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.device_network import replay, tensor_specs
from support.fake_tensorrt import FakeTensorRt, add_engine, put_in_place
from support.host_gpu import host_gpu, share_kernels
from support.scenes import (
    DEFAULT_PROTOTYPE,
    Thing,
    make_instances,
    raw_outputs,
    small_manifest,
    with_precisions,
    write_bundle,
)
from support.tools import needs_tool
from yolact_benchmarks.studies.gpu import rtx
from yolact_benchmarks.studies.gpu.stage_options import NOT_MEASURED
from yolact_plugins.driver.driver import Device
from yolact_runtime.backends import engine_file
from yolact_runtime.errors import MissingDependencyError

pytestmark = needs_tool("g++")
THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRt]:
    share_kernels(monkeypatch)
    monkeypatch.setattr(rtx, "SIZES", ((30, 40), (70_000, 80_000), (1, 1)))
    tensors = tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape)  # type: ignore[arg-type]  # three numbers
    with host_gpu() as device:
        fake = put_in_place(
            monkeypatch, FakeTensorRt(device, tensors, replay([raw_outputs(small_manifest(), THINGS)]), rtx=True)
        )
        fake.module.Builder = lambda _: Builder(fake)
        fake.module.OnnxParser = lambda *_: SimpleNamespace(parse=bool)
        fake.module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
        fake.module.BuilderFlag = SimpleNamespace(REQUIRE_USER_ALLOCATION="flag")
        monkeypatch.setattr(rtx, "load_tensorrt", engine_file.load_tensorrt)
        # What a test changes here, a process of its own would not see.
        monkeypatch.setattr(rtx, "in_a_process", lambda work: work() or "")
        monkeypatch.setattr(engine_file, "find_gpu", lambda: device.driver.gpu)
        monkeypatch.setattr(rtx, "open_device", lambda: Device(driver=device.driver))
        yield fake


class Builder:
    """``IBuilder`` and its configuration, as far as this stage uses them."""

    def __init__(self, owner: FakeTensorRt) -> None:
        self._owner, self._flags = owner, set[str]()
        self.num_compute_capabilities = 0

    def create_network(self, flags: int) -> object:
        assert flags == 1
        return object()

    def create_builder_config(self) -> Builder:
        return self

    def set_compute_capability(self, capability: object, index: int) -> bool:
        known = self._owner.module.ComputeCapability
        return (capability, index, self.num_compute_capabilities) == (known.CURRENT, 0, 1)

    def set_flag(self, flag: str) -> None:
        self._flags.add(flag)

    def build_serialized_network(self, *_: object) -> Any:
        # What a context of the engine needs follows from how it was built.
        self._owner.requires_user_allocation = bool(self._flags)
        return memoryview(bytes(100)) if self._owner.may("build") else None


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = write_bundle(tmp_path / "m.bundle", THINGS)
    with_precisions(folder, "fp16")
    # Not for the compute capability of this GPU: the stage asks all the same.
    add_engine(folder, "rtx", compute_capabilities="12.0")
    return folder


def rows_of(tmp_path: Path, *words: str, status: int = 0) -> list[dict[str, Any]]:
    rows = tmp_path / "rows.jsonl"
    common = ["--rows", str(rows), "--scale", "0.001", "--work", str(tmp_path / "work")]
    assert rtx.main([*common, *words]) == status
    return [json.loads(line) for line in rows.read_text().splitlines()]


def test_every_question_is_answered(fake: FakeTensorRt, bundle: Path, tmp_path: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    first, plan, *frames, managed, own = rows_of(tmp_path, str(bundle))
    assert (first["version"], first["builds_for"][0]) == ("1.7.1", "7.5")
    assert (plan["validity"], plan["deserialised"], plan["context"], plan["capturable"]) == (
        "('VALID', 0)",
        *(True, True, True),
    )
    assert min(plan["network_launched_us"], plan["network_us"]) > 0
    assert [(frame["height"], frame["found"], frame["graph"]) for frame in frames] == [(64, 2, True), (70, 2, True)]
    assert all(frame["whole_us"] > 0 for frame in frames)
    assert [frame["on_the_cpu"] for frame in frames] == [{"found": 2, "found_by_both": 2}] * 2
    for row, flag in ((managed, True), (own, False)):
        assert (row["REQUIRE_USER_ALLOCATION"], row["engine"], row["bytes"], row["context"]) == (flag, True, 100, True)
        assert row["for_this_gpu"]
        assert row["network_us"] > 0
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("refused", ["deserialize", "context", "build", "execute"])
def test_what_is_refused_is_a_row_with_the_words_of_tensorrt(
    fake: FakeTensorRt, bundle: Path, tmp_path: Path, refused: str
) -> None:
    fake.refuse.add(refused)
    rows = rows_of(tmp_path, str(bundle))
    assert len(rows) == 6
    spoken = [row for row in rows if any(f"{refused} is refused" in line for line in row.get("said", []))]
    assert spoken
    if refused in {"deserialize", "context"}:
        assert all("error" in row for row in rows if "height" in row)
    if refused == "execute":
        assert "network_us" not in rows[1]
        assert "did not run" in rows[1]["error"]


def test_without_the_library_that_is_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise MissingDependencyError("tensorrt-rtx", "Working with it", "rtx")

    monkeypatch.setattr(rtx, "load_tensorrt", missing)
    (row,) = rows_of(tmp_path, "--pack", str(tmp_path / "none"), status=NOT_MEASURED)
    assert "which is not installed" in row["not_measured"]
    assert "On a machine without a network, use --pack" in row["not_measured"]


def test_without_a_bundle_there_is_nothing_to_measure(fake: FakeTensorRt, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, status=NOT_MEASURED)
    assert "name one with --bundle" in rows[-1]["not_measured"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # pytest-xdist has threads; the stage has none
def test_a_process_that_crashes_says_how() -> None:
    assert rtx.in_a_process(lambda: None) == ""
    assert rtx.in_a_process(lambda: os.kill(os.getpid(), signal.SIGKILL)) == "the process ended by SIGKILL"
    assert rtx.in_a_process(lambda: sys.exit(3)) == "the process ended with exit status 1"


def test_instances_that_both_find() -> None:
    boxes = [(2.0, 2.0, 12.0, 12.0), (20.0, 5.0, 40.0, 25.0)]
    expected = make_instances(40, 60, boxes, [0, 1])
    assert rtx.found_by_both(expected, expected) == 2
    assert rtx.found_by_both(make_instances(40, 60, boxes, [0, 2]), expected) == 1
    assert rtx.found_by_both(make_instances(40, 60, [(2.0, 2.0, 12.0, 10.0)], [0]), expected) == 0
    assert rtx.found_by_both(make_instances(40, 60, [], []), expected) == 0
