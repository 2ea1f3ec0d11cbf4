"""The same way of a frame on a real GPU, against the CPU's: the kernels as the GPU's own compiler makes them.

``make gpu`` runs this also under compute-sanitizer, which watches every access and looks for races.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from support.scenes import small_manifest
from yolact_benchmarks.replay_network import ReplayNetwork
from yolact_plugins.driver import Device
from yolact_plugins.errors import CudaUnavailableError, MissingDependencyError
from yolact_plugins.gpu import find_gpu
from yolact_runtime import NmsMethod, Segmenter, SegmenterOptions
from yolact_runtime.backends import FakeBackend
from yolact_runtime.instances import Instances

CASES = 500


def _why_not() -> str:
    try:
        find_gpu()
        Device().close()
    except (CudaUnavailableError, MissingDependencyError) as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(reason := _why_not()), reason=reason)


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with Device() as device:
        yield device


def random_outputs(rng: np.random.Generator, dtype: npt.DTypeLike) -> dict[str, npt.NDArray[np.floating]]:
    """Nothing to find, a few candidates, or all priors; boxes inside, outside and without area."""
    priors = small_manifest().priors.num_priors
    logit = rng.normal(0, 3, (1, priors, 4))
    logit[..., 0] += rng.choice([-5, 0, 5, 30])
    prototypes = int(rng.integers(1, 40))
    side = int(rng.integers(2, 60)), int(rng.integers(2, 60))
    return {
        "box_regression": rng.normal(0, rng.choice([0.5, 5]), (1, priors, 4)).astype(dtype),
        "class_logit": logit.astype(dtype),
        "mask_coefficient": np.tanh(rng.normal(0, 1, (1, priors, prototypes))).astype(dtype),
        "prototype": np.abs(rng.normal(0, 1, (1, prototypes, *side))).astype(dtype),
    }


def same(found: Instances, expected: Instances) -> None:
    assert found.class_id.tolist() == expected.class_id.tolist()
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-4)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, rtol=1e-3, atol=1e-2)
    mine, theirs = found.mask.dense(), expected.mask.dense()
    # Where a probability is next to 0.5, another order of the same sums may decide otherwise.
    assert (mine != theirs).sum() <= 2e-3 * mine.size


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.CROSS_CLASS])
def test_random_frames(device: Device, method: NmsMethod, dtype: npt.DTypeLike) -> None:
    manifest, rng = small_manifest(), np.random.default_rng(7)
    for _ in range(CASES // 4):
        outputs = random_outputs(rng, dtype)
        size = int(rng.integers(1, 700)), int(rng.integers(1, 900))
        frame = rng.integers(0, 256, (*size, 3), np.uint8)
        options = SegmenterOptions(
            nms=method, min_confidence=float(rng.choice([0, 0.2])), crop_margin=float(rng.choice([0, 0.1, np.inf]))
        )
        network = ReplayNetwork(device, manifest, outputs, dtype)
        with Segmenter(manifest, network, None, options) as gpu:
            expected = Segmenter(manifest, FakeBackend([outputs]), None, options)(frame)
            for found in gpu.stream([frame] * 3):  # as it is, captured, and as a graph
                same(found, expected)


def test_results_on_the_gpu_go_to_pytorch_without_a_copy(device: Device) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")
    manifest, rng = small_manifest(), np.random.default_rng(3)
    outputs = random_outputs(rng, np.float32)
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
