from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from support.scenes import Thing, small_manifest, write_bundle
from yolact_benchmarks.machine.machine_state import MachineWatch
from yolact_benchmarks.measure.frames import FrameSet
from yolact_benchmarks.measure.host_timer import HostModel
from yolact_benchmarks.measure.measurement import Plan
from yolact_benchmarks.measure.planted import planted_outputs
from yolact_benchmarks.measure.scenes import COCO_550, make_outputs
from yolact_benchmarks.peers.dense_numpy import dense_numpy_postprocess, opencv_preprocess
from yolact_benchmarks.peers.dense_postprocess import dense_postprocess
from yolact_benchmarks.peers.peer_networks import PeerMissingError
from yolact_benchmarks.peers.peers import Peer, PeerTimer, find_peers, measure_peers
from yolact_runtime import SegmenterOptions, open_bundle
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.cpu.preprocess import preprocess

OPTIONS = SegmenterOptions(min_confidence=0.3, num_threads=1)
FRAMES = FrameSet("60x40", "made up", (np.full((40, 60, 3), 255, np.uint8),))
QUICK = Plan(duration_s=0.02, warm_up_s=0.0)
HEIGHT, WIDTH = 135, 240


@pytest.mark.parametrize("count", [0, 1, 40])
def test_all_post_processings_return_the_same(count: int) -> None:
    """Or their times could not be compared."""
    outputs = planted_outputs(COCO_550, make_outputs(1, 0.1, seed=0), count)
    post = Postprocessor.of(COCO_550, OPTIONS.nms_settings(COCO_550))
    ours = post(outputs, HEIGHT, WIDTH)
    dense = dense_numpy_postprocess(outputs, post.priors, 0.3, HEIGHT, WIDTH)
    tensors = {name: torch.from_numpy(array[0]) for name, array in outputs.items()}
    theirs = dense_postprocess(
        **tensors, priors=torch.from_numpy(post.priors), height=HEIGHT, width=WIDTH, min_confidence=0.3
    )
    assert len(ours) == count
    for class_id, confidence, xyxy, mask in (
        (dense.class_id, dense.confidence, dense.xyxy, dense.mask),
        tuple(np.asarray(value) for value in (theirs.class_id, theirs.confidence, theirs.xyxy, theirs.mask)),
    ):
        assert np.array_equal(class_id, ours.class_id)
        assert np.allclose(confidence, ours.confidence, atol=1e-5)
        inside = np.clip(xyxy, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        assert np.allclose(inside, np.clip(ours.xyxy, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]), atol=0.01)
        # OpenCV's interpolation rounds a little differently, at the outline.
        assert np.count_nonzero(mask != ours.mask.dense()) <= 1e-3 * mask.size


def test_preprocessing_with_opencv_is_ours_but_for_its_rounding() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    ours, theirs = preprocess(frame, COCO_550.input), opencv_preprocess(frame, COCO_550.input)
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() < 0.03


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    things = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), 2, 0.6, prototype=1)]
    return write_bundle(tmp_path_factory.mktemp("model") / "small.bundle", things)


def measured(folder: Path, peers: list[Peer], count: int | None) -> dict[str, Any]:
    with HostModel(open_bundle(folder), "onnxruntime-cpu", OPTIONS) as model:
        watch = MachineWatch()
        return measure_peers({"fp32": model}, model.bundle, peers, FRAMES, count, OPTIONS, QUICK, watch)


@pytest.mark.parametrize(("count", "found"), [(None, 2), (10, 10)])
def test_peers_take_turns_with_ours_and_those_that_are_missing_are_listed(
    folder: Path, count: int | None, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    document = measured(folder, find_peers(None), count)
    (row,) = document["rows"]
    assert (row["name"], row["over"], row["found"]) == ("ONNX Runtime fp32, dense NumPy/OpenCV", "fp32", found)
    assert row["low"] <= row["ratio"] <= row["high"]
    assert row["frames"] >= 10
    why = {one["name"].split(",")[0]: one["why"] for one in document["missing"]}
    assert why["PyTorch eager"] == why["torch.compile"] == "needs the checkpoint: give --checkpoint FILE.pth"
    assert "pip install openvino" in why["OpenVINO fp32"]
    assert why["OpenVINO int8-cpu"] == "the bundle has no int8-cpu network"
    assert isinstance(document["reasons"], list)


def test_a_peer_that_fails_to_start_is_missing(folder: Path) -> None:
    def fails(*_: Any) -> Any:
        raise PeerMissingError("no licence")

    document = measured(folder, [Peer("other", fails)], 1)
    assert document["missing"] == [{"name": "other", "why": "no licence"}]
    assert document["rows"] == []


def test_pytorch_with_the_checkpoint(tmp_path: Path) -> None:
    """The made-up weights find nothing; what counts is that ours and theirs are fed the same planted outputs."""
    from yolact_export.commands.cli import main as export

    checkpoint = Path(__file__).parents[3] / "examples" / "models" / "shapes.pth"
    folder = tmp_path / "shapes.bundle"
    assert export([str(checkpoint), "-o", str(folder), "-q"]) == 0
    eager = find_peers(checkpoint)[0]
    segment = eager.make(open_bundle(folder), 7, SegmenterOptions(min_confidence=0.3))
    assert PeerTimer(segment).time(FRAMES.frames[0]).num_instances == 7
    # Another checkpoint would be compared with ours in silence.
    other = find_peers(checkpoint.with_name("shapes.pruned.pth"))[0]
    with pytest.raises(PeerMissingError, match=r"shapes.pruned.pth is not the file that the bundle was exported from"):
        other.make(open_bundle(folder), 7, SegmenterOptions(min_confidence=0.3))


def test_openvino_is_a_backend_below_our_post_processing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in of the library: what it is asked for, and that its outputs are kept apart by name."""
    from support.scenes import raw_outputs

    raw = raw_outputs(small_manifest(), [Thing((0.25, 0.25, 0.75, 0.75))])
    names = list(raw)

    class Request:
        def infer(self, inputs: list[Any], share_inputs: bool) -> None:
            assert inputs[0].shape == (1, 3, 32, 48)

        def get_output_tensor(self, i: int) -> Any:
            return SimpleNamespace(data=raw[names[i]])

    outputs = [SimpleNamespace(get_any_name=lambda name=name: name) for name in names]
    model = SimpleNamespace(outputs=outputs, create_infer_request=Request)
    asked: list[Any] = []

    class Core:
        def read_model(self, content: bytes) -> bytes:
            return content

        def compile_model(self, content: bytes, device: str, config: dict[str, Any]) -> Any:
            asked.append((content, device, config))
            return model

    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=Core))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    peer = next(one for one in find_peers(None) if one.name.startswith("OpenVINO fp32"))
    assert PeerTimer(peer.make(open_bundle(folder), None, OPTIONS)).time(FRAMES.frames[0]).num_instances == 1
    assert PeerTimer(peer.make(open_bundle(folder), 5, OPTIONS)).time(FRAMES.frames[0]).num_instances == 5
    content, device, config = asked[0]
    assert (content, device, config["INFERENCE_NUM_THREADS"]) == ((folder / "model.fp32.onnx").read_bytes(), "CPU", 1)


def test_peers_run_what_was_opened(tmp_path: Path) -> None:
    """A signature may have been looked at; what lies there by now was looked at by nobody."""
    folder = write_bundle(tmp_path / "mine.bundle", [Thing((0.25, 0.25, 0.75, 0.75))])
    peer = next(one for one in find_peers(None) if one.name.startswith("ONNX Runtime fp32"))
    bundle = open_bundle(folder)
    (folder / "model.fp32.onnx").write_bytes(b"forged")
    assert PeerTimer(peer.make(bundle, None, OPTIONS)).time(FRAMES.frames[0]).num_instances == 1
