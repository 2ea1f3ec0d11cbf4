"""YOLACT++ on the GPU: the mask-IoU network among the kernels of a frame, against ONNX Runtime's on the CPU's way."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import numpy_helper

from support.device_network import HostNetwork, replay, tensor_specs
from support.host_gpu import HostDriver
from support.mask_iou_models import mask_iou_network_model
from support.scenes import mask_iou_model, small_manifest
from support.tools import needs_tool
from yolact_plugins.driver.driver import Device
from yolact_runtime import NmsMethod, Segmenter, SegmenterOptions
from yolact_runtime.backends import FakeBackend
from yolact_runtime.errors import BackendError, OutputError
from yolact_runtime.mask_rescoring import MaskRescoring
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.manifest import DetectionSpec
from yolact_runtime.model.model_file import ModelFile

pytestmark = [needs_tool("g++"), pytest.mark.usefixtures("kernel_cache")]

# Few detections, because every block of a grid takes its time on the simulated GPU.
MANIFEST = small_manifest(mask_rescoring=True, detection=DetectionSpec(top_k=24))
SIDES = (66, 71)
NETWORK = mask_iou_network_model(3, SIDES)
FRAME = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
OPTIONS = SegmenterOptions(min_confidence=0.3, max_instances=16, frames_in_flight=1)
Outputs = dict[str, npt.NDArray[np.float32]]


def outputs(seed: int, sides: tuple[int, int] = SIDES) -> Outputs:
    """Many candidates; prototypes of waves, so that masks have shapes."""
    rng, priors = np.random.default_rng(seed), MANIFEST.priors.num_priors
    y, x = np.mgrid[: sides[0], : sides[1]]
    waves = [np.sin(a * y / 9 + b) + np.cos(b * x / 7 + a) for a, b in rng.uniform(0, 3, (6, 2))]
    return {
        "box_regression": rng.normal(0, 2, (1, priors, 4)).astype(np.float32),
        "class_logit": rng.normal(0, 3, (1, priors, 4)).astype(np.float32),
        "mask_coefficient": rng.normal(0, 1, (1, priors, 6)).astype(np.float32),
        "prototype": np.stack(waves)[None].astype(np.float32),
    }


@dataclasses.dataclass
class Pair:
    """One model on both ways."""

    gpu: Segmenter
    cpu: Segmenter

    def check(self, frame: Any = FRAME) -> Instances:
        found, expected = self.gpu(frame), self.cpu(frame)
        assert found.class_id.tolist() == expected.class_id.tolist()
        assert found.mask_confidence is not None
        assert expected.mask_confidence is not None
        # ONNX Runtime adds in another order, and probabilities are as the CPU's to some roundings.
        np.testing.assert_allclose(found.mask_confidence, expected.mask_confidence, rtol=1e-4)
        return found


def segmenter(network: Any, content: bytes, options: SegmenterOptions, runs_on: str) -> Segmenter:
    rescoring = MaskRescoring(ModelFile(Path("mask_iou.fp32.onnx"), content), runs_on, 0, MANIFEST)
    return Segmenter(MANIFEST, network, rescoring, options)


@pytest.fixture
def pair(device: Device) -> Iterator[Callable[..., Pair]]:
    opened: list[Segmenter] = []

    def make(
        scenes: list[Outputs],
        options: SegmenterOptions = OPTIONS,
        dtype: npt.DTypeLike = np.float32,
        content: bytes = NETWORK,
    ) -> Pair:
        rounded: list[Any] = [{name: array.astype(dtype) for name, array in scene.items()} for scene in scenes]
        specs = tensor_specs(MANIFEST, scenes[0]["prototype"].shape[1:], dtype)  # type: ignore[arg-type]  # three
        network = HostNetwork(device, specs, replay(scenes))
        opened.append(segmenter(network, content, options, "tensorrt"))
        opened.append(segmenter(FakeBackend(rounded), content, options, "onnxruntime-cpu"))
        return Pair(opened[-2], opened[-1])

    yield make
    for each in opened:
        each.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("margin", [0.0, 0.2])
@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.CROSS_CLASS])
def test_scores_of_masks(pair: Callable[..., Pair], margin: float, dtype: npt.DTypeLike, method: NmsMethod) -> None:
    options = dataclasses.replace(OPTIONS, crop_margin=margin, nms=method)
    found = pair([outputs(1)], options, dtype).check()
    assert len(found) > 10
    assert found.mask_confidence is not None
    assert len(np.unique(found.mask_confidence)) == len(found)


def test_scores_do_not_move_with_the_crop_margin(pair: Callable[..., Pair]) -> None:
    """The network sees the published crop, whatever the masks have."""
    scores = [
        pair([outputs(2)], dataclasses.replace(OPTIONS, crop_margin=margin)).check().mask_confidence
        for margin in (0.0, 0.5, np.inf)
    ]
    assert scores[0] is not None
    for other in scores[1:]:
        assert other is not None
        assert (other == scores[0]).all()


@pytest.mark.parametrize("device", [{"integrated": True}, {"order": 1}, {"order": 2}], indirect=True, ids=str)
def test_frames_in_flight_and_frames_without_objects(pair: Callable[..., Pair]) -> None:
    empty = outputs(0)
    empty["class_logit"][..., 0] = 100
    scenes = [outputs(3), empty, outputs(4), outputs(5)]
    both = pair([*scenes, *scenes], dataclasses.replace(OPTIONS, frames_in_flight=2))
    frames = [FRAME, FRAME, FRAME[:30], FRAME[:30]]
    found = list(both.gpu.stream(frames))
    expected = list(both.cpu.stream(frames))
    assert [len(each) for each in found] == [len(each) for each in expected]
    assert len(found[1]) == 0
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.mask_confidence is not None
        assert theirs.mask_confidence is not None
        np.testing.assert_allclose(mine.mask_confidence, theirs.mask_confidence, rtol=1e-4)


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_a_frame_waits_once(pair: Callable[..., Pair], device: Device, margin: float) -> None:
    """One launch of a graph, one wait, and no copy besides that of the frame."""
    both = pair([outputs(1)], dataclasses.replace(OPTIONS, crop_margin=margin))
    for _ in range(4):
        both.gpu(FRAME)
    assert isinstance(device.driver, HostDriver)
    with device.driver.recording() as calls:
        both.gpu(FRAME)
    names = [str(call) for call in calls]
    assert len([name for name in names if "Synchronize" in name]) == 1
    assert [name for name in names if "Memcpy" in name or "Alloc" in name] == ["cuMemcpyHtoDAsync"]
    assert names.count("cuGraphLaunch") == 1


def test_on_the_device(pair: Callable[..., Pair]) -> None:
    both = pair([outputs(6)])
    expected = both.check()
    with both.gpu.on_device(FRAME) as found:
        assert found.mask_confidence is not None
        assert (found.mask_confidence.numpy(found.stream) == expected.mask_confidence).all()
    assert expected.mask_confidence is not None
    without = both.gpu.share(dataclasses.replace(OPTIONS, mask_rescoring=False))
    with without, without.on_device(FRAME) as found:
        assert found.mask_confidence is None


def test_no_inference_library_is_asked(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolact_runtime.mask_rescoring.create_backend", None)
    scene = outputs(1)
    network = HostNetwork(device, tensor_specs(MANIFEST, (6, *SIDES)), replay([scene]))
    with segmenter(network, NETWORK, OPTIONS, "tensorrt") as gpu:
        assert gpu(FRAME).mask_confidence is not None


def test_a_shared_segmenter_on_the_cpu_opens_one(pair: Callable[..., Pair]) -> None:
    both = pair([outputs(1)])
    expected = both.check()
    with both.gpu.share(dataclasses.replace(OPTIONS, cpu_postprocessing=True)) as other:
        found = other(FRAME)
    assert expected.mask_confidence is not None
    assert found.mask_confidence is not None
    np.testing.assert_allclose(found.mask_confidence, expected.mask_confidence, rtol=1e-4)


def test_another_network_runs_on_the_host_and_that_is_said_once(
    pair: Callable[..., Pair], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "yolact_runtime"):
        both = pair([outputs(1)], content=mask_iou_model([1, 2, 4]))
        both.check()
        both.gpu.share().close()
    (said,) = (record.getMessage() for record in caplog.records)
    assert "its operations are ReduceMean, Mul; expected six times Conv, Relu" in said
    assert "run by ONNX Runtime, which costs a download and a second wait for each frame" in said


def test_a_network_of_other_classes_is_refused(pair: Callable[..., Pair]) -> None:
    with pytest.raises(OutputError, match=r'"mask_iou" should have the shape \(.*3\) for this model'):
        pair([outputs(1)], content=mask_iou_network_model(4, SIDES))


def test_prototypes_that_are_too_small(pair: Callable[..., Pair]) -> None:
    with pytest.raises(BackendError, match="prototypes of 62 x 71 are too small for mask re-scoring, which needs 63 x"):
        pair([outputs(1, (62, 71))])


def test_a_prediction_that_is_not_finite(pair: Callable[..., Pair]) -> None:
    def overflow(model: Any) -> None:
        weight = model.graph.initializer[8]
        array = np.full_like(numpy_helper.to_array(weight), 3e38)
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))

    with np.errstate(over="ignore", invalid="ignore"):
        both = pair([outputs(1)], content=mask_iou_network_model(3, SIDES, change=overflow))
    with pytest.raises(BackendError, match="the mask-IoU network predicts NaN or infinity: its weights are damaged"):
        both.gpu(FRAME)
