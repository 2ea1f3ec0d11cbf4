"""The frame path on a GPU against the CPU's: the kernels as the GPU's own compiler makes them.

Skipped, and listed, where there is no GPU. A GPU day (docs/gpu.md) runs this also under compute-sanitizer, and in a dry
run on the simulated GPU, which ``YOLACT_GPU_DRIVER`` names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from support.device_network import EchoBackend, EchoNetwork, HostNetwork, tensor_specs
from support.host_gpu import HostDriver
from support.properties import example_count
from support.scenes import camera_frames, small_manifest
from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_benchmarks.measure.scenes import make_mask_iou_network
from yolact_benchmarks.studies.gpu.stage_options import open_device
from yolact_calibration.shapes.scene import SceneOptions, make_clip
from yolact_plugins import reference
from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device, Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_plugins.errors import CudaUnavailableError, MissingDependencyError
from yolact_runtime import NmsMethod, Segmenter, SegmenterOptions
from yolact_runtime.backends import FakeBackend
from yolact_runtime.cuda import frame_memory
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.mask_rescoring import MaskRescoring
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.manifest import DetectionSpec, Manifest, PriorSpec
from yolact_runtime.model.mask_iou_network import MaskIouNetwork

CASES = example_count(120)
# Under a sanitizer and on the simulated GPU every block that finds nothing to do costs time, too.
FEW = CASES < 20
MOST_INSTANCES, TOP_K = (6, 20) if FEW else (100, 200)
LARGEST = 200 if FEW else 500
DTYPES: list[Any] = [np.float32] if FEW else [np.float32, np.float16]
SHAPES = Path(__file__).parents[3] / "examples" / "models" / "shapes.pth"
# More priors than a class of Fast NMS holds at once (256), so that the best are selected by radix rounds.
WIDE = small_manifest(
    name="wide",
    priors=PriorSpec(((16, 24), (8, 12)), ((8.0,), (16.0,)), (1.0, 0.5, 2.0), square=False),
    detection=DetectionSpec(top_k=TOP_K),
)


def _why_not() -> str:
    try:
        open_device().close()
    except (CudaUnavailableError, MissingDependencyError) as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(reason := _why_not()), reason=reason)


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with open_device() as device:
        yield device


def random_outputs(
    rng: np.random.Generator, manifest: Manifest, dtype: npt.DTypeLike, shape: tuple[int, int, int] | None = None
) -> dict[str, npt.NDArray[np.floating]]:
    """Nothing to find, a few candidates, or all priors; boxes inside, outside and without area."""
    priors = manifest.priors.num_priors
    # Not larger: scores that differ from 1 by rounding only may come in any order, and NMS depends on it.
    logit = rng.normal(0, 2, (1, priors, 4))
    logit[..., 0] += rng.choice([-5, 0, 5, 30])
    shape = shape or tuple(int(side) for side in rng.integers((1, 2, 2), (40, 60, 60)))  # type: ignore[assignment]
    assert shape is not None
    return {
        "box_regression": rng.normal(0, rng.choice([0.5, 5]), (1, priors, 4)).astype(dtype),
        "class_logit": logit.astype(dtype),
        "mask_coefficient": np.tanh(rng.normal(0, 1, (1, priors, shape[0]))).astype(dtype),
        "prototype": np.abs(rng.normal(0, 1, (1, *shape))).astype(dtype),
    }


def same(found: Instances, expected: Instances) -> None:
    """Instance by instance; where two confidences differ by rounding only, either may come first."""
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-4)
    order = [partner(found, i, expected) for i in range(len(found))]
    assert sorted(order) == list(range(len(expected)))
    mine, theirs = found.mask.dense(), expected.mask.dense()[order]
    # Where a probability is next to 0.5, another order of the same sums may decide otherwise.
    assert (mine != theirs).sum() <= 2e-3 * mine.size


def partner(found: Instances, i: int, expected: Instances) -> int:
    """The instance that is the i-th one: itself as a rule."""
    candidates = sorted(range(len(expected)), key=lambda j: abs(j - i))
    for j in candidates:
        if (
            found.class_id[i] == expected.class_id[j]
            and np.allclose(found.confidence[i], expected.confidence[j], rtol=1e-4)
            and np.allclose(found.xyxy[i], expected.xyxy[j], rtol=1e-3, atol=1e-2)
        ):
            return j
    raise AssertionError(f"{found.class_id[i]}, {found.confidence[i]}, {found.xyxy[i]} is not expected")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.CROSS_CLASS])
@pytest.mark.parametrize("manifest", [small_manifest(), WIDE], ids=lambda manifest: manifest.name)
def test_random_frames(device: Device, manifest: Manifest, method: NmsMethod, dtype: npt.DTypeLike) -> None:
    rng = np.random.default_rng(7)
    for _ in range(max(CASES // 8, 1)):
        outputs = random_outputs(rng, manifest, dtype)
        size = int(rng.integers(1, LARGEST)), int(rng.integers(1, LARGEST))
        frame = rng.integers(0, 256, (*size, 3), np.uint8)
        options = SegmenterOptions(
            nms=method,
            max_instances=MOST_INSTANCES,
            min_confidence=float(rng.choice([0, 0.2])),
            crop_margin=float(rng.choice([0, 0.1, np.inf])),
        )
        network = ReplayNetwork(device, manifest, outputs, dtype)
        with Segmenter(manifest, network, None, options) as gpu:
            expected = Segmenter(manifest, FakeBackend([outputs]), None, options)(frame)
            for found in gpu.stream([frame] * 3):  # as it is, captured, and as a graph
                same(found, expected)


class ReferenceMaskIou:
    """The mask-IoU network on the host, by the reference."""

    name = "reference"

    def __init__(self, network: MaskIouNetwork) -> None:
        self._layers = network.layers

    def infer(self, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        return {"mask_iou": reference.mask_iou(tensor[:, 0], self._layers)}

    def close(self) -> None:
        pass


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_random_frames_with_scores_of_masks(device: Device, margin: float, dtype: npt.DTypeLike) -> None:
    rng, manifest = np.random.default_rng(8), small_manifest(mask_rescoring=True)
    network = make_mask_iou_network(3)
    for _ in range(max(CASES // 20, 1)):
        height, width = (int(side) for side in rng.integers(63, 140, 2))
        outputs = random_outputs(rng, manifest, dtype, (8, height, width))
        frame = rng.integers(0, 256, (90, 120, 3), np.uint8)
        options = SegmenterOptions(max_instances=MOST_INSTANCES, crop_margin=margin)
        rescoring = MaskRescoring.of_network(network, manifest)
        with Segmenter(manifest, ReplayNetwork(device, manifest, outputs, dtype), rescoring, options) as gpu:
            expected = Segmenter(manifest, FakeBackend([outputs]), ReferenceMaskIou(network), options)(frame)
            for found in gpu.stream([frame] * 3):
                same(found, expected)
                assert found.mask_confidence is not None
                assert expected.mask_confidence is not None
                scores = [expected.mask_confidence[partner(found, i, expected)] for i in range(len(found))]
                np.testing.assert_allclose(found.mask_confidence, scores, rtol=1e-3)


@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.CROSS_CLASS])
def test_more_candidates_in_a_class_than_a_block_holds(device: Device, method: NmsMethod) -> None:
    rng = np.random.default_rng(11)
    outputs = random_outputs(rng, WIDE, np.float32)
    outputs["class_logit"] = rng.normal(0, 1, outputs["class_logit"].shape).astype(np.float32)
    outputs["class_logit"][..., 0] = -9
    frame = rng.integers(0, 256, (90, 120, 3), np.uint8)
    options = SegmenterOptions(nms=method, max_instances=MOST_INSTANCES)
    with Segmenter(WIDE, ReplayNetwork(device, WIDE, outputs), None, options) as gpu:
        found = gpu(frame)
        path = gpu.frame_path
        assert isinstance(path, DevicePath)
        slot = path.start(frame)
        slot.finish()
        assert slot.memory.arrays["candidate_count"].numpy(slot.stream)[0] == WIDE.priors.num_priors > 256
        path.give_back(slot)
    same(found, Segmenter(WIDE, FakeBackend([outputs]), None, options)(frame))
    # Fast NMS over all classes at once keeps what is left of its best, however many instances are asked for.
    assert len(found) > 5


# --- what the network gets --------------------------------------------------------------------------------------------


def upload(stack: ExitStack, device: Device, array: npt.NDArray[np.uint8], gap: int) -> DeviceArray:
    """An array on the GPU with `gap` bytes between its rows."""
    rows = np.ascontiguousarray(array).reshape(len(array), -1)
    pitch = rows.shape[1] + gap
    pitched = np.full((len(rows), pitch), 0xEE, np.uint8)
    pitched[:, : rows.shape[1]] = rows
    buffer = stack.enter_context(DeviceBuffer(device, pitched.size))
    with Stream(device) as stream:
        buffer.array(pitched.shape, np.uint8).upload(pitched, stream)
        stream.synchronize()
    inner = [int(np.prod(array.shape[axis + 1 :])) for axis in range(1, array.ndim)]
    return DeviceArray(device, buffer.pointer, array.shape, np.uint8, strides=(pitch, *inner), owner=buffer)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(44, 70), *([] if FEW else [(31, 33), (240, 320)])])
def test_formats_of_cameras(device: Device, size: tuple[int, int], dtype: npt.DTypeLike) -> None:
    manifest, rng = small_manifest(), np.random.default_rng(5)
    shape = 3, manifest.input.height, manifest.input.width
    outputs = random_outputs(rng, manifest, dtype, shape)
    outputs["class_logit"][..., 0] = 0
    # Both sides round colours and interpolations; float16 rounds the result once more, half a step of up to 4.
    tolerance = 2e-4 if dtype == np.float32 else 2e-3
    options = SegmenterOptions(min_confidence=0.2, max_instances=MOST_INSTANCES)
    with Segmenter(manifest, EchoNetwork(device, manifest, outputs), None, options) as gpu, ExitStack() as stack:
        for i, frame in enumerate(camera_frames(rng, *size)):
            cpu = EchoBackend(outputs)
            expected = Segmenter(manifest, cpu, None, options)(frame)
            planes = [
                None if a is None else upload(stack, device, a, 7 * (i % 2)) for a in (frame.pixels, frame.chroma)
            ]
            layout = frame.layout
            buffer = stack.enter_context(gpu.frame_buffer(layout.height, layout.width, layout.format, layout.yuv))
            buffer.data[:] = np.concatenate([np.ravel(plane) for plane in frame.planes()])
            for given in (frame, dataclasses.replace(frame, pixels=planes[0], chroma=planes[1]), buffer):
                path = gpu.frame_path
                assert isinstance(path, DevicePath)
                ticket = path.start(given)
                ticket.finish()
                image = ticket.memory.arrays["image"].numpy(ticket.stream)
                np.testing.assert_allclose(image.astype(np.float32), cpu.tensors[0], atol=tolerance)
                path.give_back(ticket)
                found = gpu(given)
                assert found.class_id.tolist() == expected.class_id.tolist()
                # The input is noise: its masks have a border in every pixel, where rounding decides.
                assert (found.mask.dense() != expected.mask.dense()).mean() <= (1e-3 if dtype == np.float32 else 1e-2)


def test_a_stream_of_different_frames_is_in_order(device: Device) -> None:
    manifest, rng = small_manifest(), np.random.default_rng(6)
    outputs = random_outputs(rng, manifest, np.float32, (3, manifest.input.height, manifest.input.width))
    outputs["class_logit"][..., 0] = 0
    frames = [rng.integers(0, 256, (60, 90, 3), np.uint8) for _ in range(12)]
    options = SegmenterOptions(min_confidence=0.3, frames_in_flight=3, max_instances=MOST_INSTANCES)
    with Segmenter(manifest, EchoNetwork(device, manifest, outputs), None, options) as gpu:
        for frame, found in zip(frames, gpu.stream(iter(frames)), strict=True):
            same(found, Segmenter(manifest, EchoBackend(outputs), None, options)(frame))


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 400), (97, 61)])
def test_dense_masks_and_the_map_of_instances(device: Device, size: tuple[int, int]) -> None:
    manifest, rng = small_manifest(), np.random.default_rng(4)
    for _ in range(max(CASES // 20, 1)):
        outputs = random_outputs(rng, manifest, np.float32)
        outputs["class_logit"][..., 0] = 0
        frame = rng.integers(0, 256, (*size, 3), np.uint8)
        options = SegmenterOptions(max_instances=MOST_INSTANCES)
        with Segmenter(manifest, ReplayNetwork(device, manifest, outputs), None, options) as gpu:
            expected = gpu(frame)
            same(expected, Segmenter(manifest, FakeBackend([outputs]), None, options)(frame))
            with gpu.on_device(frame) as found:
                assert (found.dense().numpy(found.stream) == expected.mask.dense()).all()
                assert (found.id_map().numpy(found.stream) == expected.mask.id_map()).all()
                assert (found.confidence.numpy(found.stream) == expected.confidence).all()


def test_masks_that_need_more_memory_get_it(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_memory, "_FULL_MASKS", 0)
    monkeypatch.setattr(frame_memory, "_RUNS_IN_A_COLUMN", 1)
    manifest, rng = small_manifest(), np.random.default_rng(8)
    outputs = random_outputs(rng, manifest, np.float32, (8, 30, 40))
    outputs["class_logit"][..., 0] = 0
    frame = rng.integers(0, 256, (100, 150, 3), np.uint8)
    options = SegmenterOptions(max_instances=MOST_INSTANCES)
    with Segmenter(manifest, ReplayNetwork(device, manifest, outputs), None, options) as gpu:
        expected = Segmenter(manifest, FakeBackend([outputs]), None, options)(frame)
        for _ in range(3):
            same(gpu(frame), expected)


def test_results_on_the_gpu_go_to_pytorch_without_a_copy(device: Device) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")
    manifest, rng = small_manifest(), np.random.default_rng(3)
    outputs = random_outputs(rng, manifest, np.float32)
    outputs["class_logit"][..., 0] = 0
    frame = rng.integers(0, 256, (300, 400, 3), np.uint8)
    there = torch.from_numpy(frame).cuda()
    with Segmenter(manifest, ReplayNetwork(device, manifest, outputs), None, SegmenterOptions()) as gpu:
        expected = gpu(frame)
        same(gpu(there), expected)
        with gpu.on_device(there) as found:
            dense = torch.from_dlpack(found.dense())
            assert dense.data_ptr() == found._made[0].pointer
            assert (dense.cpu().numpy() == expected.mask.dense()).all()
            torch.cuda.synchronize()
            del dense


# --- a real network ---------------------------------------------------------------------------------------------------


def trained_network(device: Device, model: Any, manifest: Manifest, dtype: npt.DTypeLike) -> Any:
    """The project's model on the device; on the simulated GPU it computes on the host, in its turn of the stream."""
    import torch

    if isinstance(device.driver, HostDriver):

        @torch.inference_mode()
        def function(image: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.floating]]:
            outputs = model(torch.from_numpy(image.astype(np.float32)))._asdict()
            return {name: value.numpy() for name, value in outputs.items()}

        side = 2 * manifest.priors.feature_sizes[0][0]
        specs = tensor_specs(manifest, (model.config.num_prototypes, side, side), dtype, dtype)
        return HostNetwork(device, specs, function)
    from yolact_benchmarks.studies.gpu.torch_network import TorchNetwork

    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")
    # What is compared is rounding: TF32 would be the larger part of it.
    torch.backends.cudnn.allow_tf32 = False
    return TorchNetwork(device, model, manifest.input.height, manifest.input.width, dtype)


def agree(found: Instances, expected: Instances, confidence: float) -> None:
    """What one of them is sure of, the other finds too: same class, overlapping mask, similar confidence."""
    for one, other in ((found, expected), (expected, found)):
        masks, others = one.mask.dense(), other.mask.dense()
        for i in np.flatnonzero(one.confidence > 0.5):
            shared = (masks[i] & others).sum(axis=(1, 2))
            overlap = shared / np.maximum((masks[i] | others).sum(axis=(1, 2)), 1)
            partners = (other.class_id == one.class_id[i]) & (overlap > 0.95)
            assert (np.abs(other.confidence[partners] - one.confidence[i]) < confidence).any(), (i, overlap.max())


@pytest.mark.parametrize(("dtype", "confidence"), [(np.float32, 2e-3), (np.float16, 3e-2)][: len(DTYPES)])
def test_a_trained_model_finds_what_it_finds_on_the_cpu(
    device: Device, dtype: npt.DTypeLike, confidence: float
) -> None:
    pytest.importorskip("torch")
    from yolact_benchmarks.studies.gpu.torch_network import manifest_of
    from yolact_calibration.training.torch_backend import torch_segmenter
    from yolact_export.checkpoint.checkpoint import load_checkpoint

    reference, moved = load_checkpoint(SHAPES), load_checkpoint(SHAPES)
    manifest, options = manifest_of(reference), SegmenterOptions(min_confidence=0.2, max_instances=20)
    cpu = torch_segmenter(reference.model, manifest, None, options)
    network = trained_network(device, moved.model, manifest, dtype)
    total = 0
    with Segmenter(manifest, network, None, options) as gpu:
        clip = [scene.image for scene in make_clip(3, max(CASES // 10, 2), SceneOptions(360, 480))]
        for frame, found in zip(clip, gpu.stream(iter(clip)), strict=True):
            agree(found, cpu(frame), confidence)
            total += len(found)
    assert total > len(clip)
