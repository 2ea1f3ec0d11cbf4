from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import yolact_runtime.opening as opening_module
from support.scenes import Thing, fake_segmenter, raw_outputs, small_manifest, with_precisions, write_bundle
from yolact_runtime import NmsMethod, Segmenter, SegmenterOptions, mask_rescoring, open_bundle
from yolact_runtime.backends import BACKENDS, FakeBackend, ModelSource
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.errors import BackendError, FrameError, UsageError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.manifest import DetectionSpec
from yolact_runtime.model.model_file import ModelFile

THINGS = [
    Thing((0.25, 0.25, 0.75, 0.75), class_id=0, confidence=0.9),
    Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1),
]
PICTURES = SegmenterOptions(min_confidence=0.1)
WHITE = np.full((64, 96, 3), 255, np.uint8)
BLACK = np.zeros((64, 96, 3), np.uint8)


def _assert_same(a: Instances, b: Instances) -> None:
    assert (a.xyxy == b.xyxy).all()
    assert (a.confidence == b.confidence).all()
    assert (a.class_id == b.class_id).all()
    assert a.mask == b.mask


# --- frames to instances ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (1, 1), (480, 640), (7, 300)])
def test_instances_are_in_the_pixels_of_each_frame(size: tuple[int, int]) -> None:
    segmenter, _ = fake_segmenter([THINGS], PICTURES)
    instances = segmenter(np.zeros((*size, 3), np.uint8))
    assert (instances.height, instances.width) == size
    scale = np.array([size[1], size[0]] * 2)
    np.testing.assert_allclose(instances.xyxy, [np.array(t.xyxy) * scale for t in THINGS], atol=1e-3 * max(size))


def test_instances_have_the_names_of_the_models_classes() -> None:
    segmenter, _ = fake_segmenter([THINGS] * 4, PICTURES)
    found = [segmenter(WHITE), *segmenter.stream([WHITE, BLACK])]
    for instances in found:
        assert instances.class_names is segmenter.class_names is segmenter.manifest.class_names
        assert [one.class_name for one in instances] == [segmenter.class_names[0], segmenter.class_names[2]]
    assert repr(found[0]).startswith("<Instances: 2 in a frame of 96 x 64: cat 0.")


def test_what_is_printed_of_a_model_says_which_it_is(tmp_path: Path) -> None:
    segmenter, _ = fake_segmenter([[]], PICTURES)
    shown = "small fp32 on fake, 48 x 32, 3 classes"
    assert repr(segmenter) == f"<Segmenter: {shown}, post-processing on the cpu>"
    segmenter.close()
    assert repr(segmenter) == f"<Segmenter: {shown}, closed>"
    assert repr(small_manifest(class_names=("x",))) == "<Manifest: small fp32, 48 x 32, 1 class, 0 artefacts>"
    assert len(repr(small_manifest(name="x" * 900))) < 150
    write_bundle(tmp_path / "x.bundle", THINGS)
    bundle = open_bundle(tmp_path / "x.bundle")
    assert repr(bundle) == f"<Bundle: small fp32, 48 x 32, 3 classes, at {tmp_path / 'x.bundle'}>"


def test_frames_of_different_sizes_follow_each_other() -> None:
    segmenter, _ = fake_segmenter([THINGS, [], THINGS[:1]], PICTURES)
    sizes = [(64, 96), (30, 20), (100, 50)]
    results = [segmenter(np.zeros((*size, 3), np.uint8)) for size in sizes]
    assert [len(instances) for instances in results] == [2, 0, 1]
    assert [(instances.height, instances.width) for instances in results] == sizes


def test_the_network_is_fed_the_preprocessed_frame() -> None:
    segmenter, backend = fake_segmenter([THINGS])
    frame = np.random.default_rng(0).integers(0, 256, (70, 50, 3), np.uint8)
    segmenter(frame)
    (tensor,) = backend.tensors
    assert (tensor == preprocess(frame, small_manifest().input)).all()


@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 1), (64, 96, 4)])
def test_gray_and_alpha_frames(shape: tuple[int, ...]) -> None:
    segmenter, _ = fake_segmenter([THINGS], PICTURES)
    instances = segmenter(np.zeros(shape, np.uint8))
    assert (len(instances), instances.height, instances.width) == (2, 64, 96)


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), None, np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_frame_does_not_reach_the_network(frame: Any) -> None:
    segmenter, backend = fake_segmenter([THINGS])
    with pytest.raises(FrameError):
        segmenter(frame)
    assert backend.tensors == []


def test_results_belong_to_the_caller() -> None:
    segmenter, _ = fake_segmenter([THINGS], PICTURES)
    first = segmenter(WHITE)
    kept = {name: np.array(values, copy=True) for name, values in first.as_dict().items()}
    assert len(kept["xyxy"]) == 2
    for array in (first.xyxy, first.confidence, first.class_id, first.mask.start, first.mask.end):
        array[:] = 0
    second = segmenter(WHITE)
    for name, values in second.as_dict().items():
        np.testing.assert_array_equal(values, kept[name])


def test_nan_outputs_are_refused() -> None:
    outputs = raw_outputs(small_manifest(), THINGS)
    outputs["prototype"][0, 0, 0, 0] = np.nan
    segmenter = Segmenter(small_manifest(), FakeBackend([outputs]), None, SegmenterOptions())
    with pytest.raises(BackendError, match='"prototype" contains NaN'):
        segmenter(WHITE)


def test_names_and_backend() -> None:
    segmenter, _ = fake_segmenter([THINGS])
    assert segmenter.class_names == ("cat", "dog", "bird")
    assert segmenter.backend_name == "fake"


# --- threads ----------------------------------------------------------------------------------------------------------


class _Shifting:
    """A stateless backend whose boxes depend on its input, so that mixed-up frames would show."""

    name = "shifting"

    def infer(self, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        outputs = raw_outputs(small_manifest(), THINGS)
        outputs["box_regression"] += tensor.mean()
        return outputs

    def close(self) -> None:
        pass


def test_eight_threads_get_what_one_gets() -> None:
    rng = np.random.default_rng(1)
    frames = [
        np.full((*rng.integers(1, 120, 2), 3), value, np.uint8) for value in rng.permutation(256)[:96].astype(np.uint8)
    ]
    segmenter = Segmenter(small_manifest(), _Shifting(), None, PICTURES)
    serial = [segmenter(frame) for frame in frames]
    assert len({tuple(instances.xyxy[0]) for instances in serial}) > 90
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(segmenter, frames))
    for a, b in zip(serial, parallel, strict=True):
        _assert_same(a, b)


def test_eight_threads_on_onnx_runtime(tmp_path: Path) -> None:
    frames = [WHITE if i % 3 else BLACK for i in range(48)]
    with Segmenter.open(write_bundle(tmp_path / "b", THINGS), options=PICTURES) as segmenter:
        serial = [segmenter(frame) for frame in frames]
        with ThreadPoolExecutor(8) as pool:
            parallel = list(pool.map(segmenter, frames))
    assert [len(instances) for instances in serial[:4]] == [0, 2, 2, 0]
    for a, b in zip(serial, parallel, strict=True):
        _assert_same(a, b)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("min_confidence", -0.1, "min_confidence must lie between 0 and 1, found -0.1"),
        ("min_confidence", 1.1, "min_confidence must lie between 0 and 1"),
        ("min_confidence", math.nan, "min_confidence must lie between 0 and 1, found nan"),
        ("iou_threshold", -1, "iou_threshold must lie between 0 and 1"),
        ("iou_threshold", math.nan, "iou_threshold must lie between 0 and 1"),
        ("crop_margin", -0.5, "crop_margin must be 0 or more, found -0.5"),
        ("crop_margin", math.nan, "crop_margin must be 0 or more"),
        ("max_instances", 0, "max_instances must be 1 or more, found 0"),
        ("max_instances", -3, "max_instances must be 1 or more"),
        ("num_threads", -1, "num_threads must lie between 0 and 256, found -1"),
        ("num_threads", 100_000, "num_threads must lie between 0 and 256, found 100000"),
    ],
)
def test_options_that_make_no_sense_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SegmenterOptions(**{field: value})


@pytest.mark.parametrize(
    "options", [{"min_confidence": 1}, {"iou_threshold": 0}, {"crop_margin": math.inf}, {"max_instances": 1}]
)
def test_options_at_the_edge_are_accepted(options: dict[str, Any]) -> None:
    SegmenterOptions(**options)


def test_options_take_the_models_settings_where_they_say_nothing() -> None:
    manifest = small_manifest(detection=DetectionSpec(0.2, 0.4, 7, 3))
    chosen = SegmenterOptions().nms_settings(manifest)
    assert (chosen.score_threshold, chosen.iou_threshold, chosen.top_k, chosen.max_instances) == (0.2, 0.4, 7, 3)
    assert (chosen.method, chosen.min_confidence) == (NmsMethod.FAST, 0)
    mine = SegmenterOptions(NmsMethod.TRADITIONAL, 0.3, 0.0, 9).nms_settings(manifest)
    assert (mine.score_threshold, mine.iou_threshold, mine.top_k, mine.max_instances) == (0.2, 0.0, 7, 9)
    assert (mine.method, mine.min_confidence) == (NmsMethod.TRADITIONAL, 0.3)


def test_by_default_everything_that_the_published_evaluation_ranks_is_returned() -> None:
    segmenter, _ = fake_segmenter([THINGS])
    instances = segmenter(WHITE)
    # Each of the two priors is in the lists of all three classes; only the same class of another box suppresses.
    assert len(instances) > 2
    assert (instances.confidence < 0.05).any()


def test_each_option_reaches_the_result() -> None:
    crowd = [Thing((0.2, 0.2, 0.7, 0.7)), Thing((0.2, 0.2, 0.7, 0.75), confidence=0.8), Thing((0.0, 0.7, 0.1, 0.9))]

    def count(**options: Any) -> int:
        segmenter, _ = fake_segmenter([crowd], dataclasses.replace(PICTURES, **options))
        return len(segmenter(WHITE))

    assert count() == 2
    assert count(iou_threshold=0.95) == 3
    assert count(max_instances=1) == 1
    assert count(min_confidence=0.9) <= 1
    two_classes = [Thing((0.2, 0.2, 0.7, 0.7)), Thing((0.2, 0.2, 0.7, 0.7), class_id=1, confidence=0.8)]
    for method, expected in ((NmsMethod.FAST, 2), (NmsMethod.CROSS_CLASS, 1), (NmsMethod.TRADITIONAL, 2)):
        segmenter, _ = fake_segmenter([two_classes], SegmenterOptions(method, min_confidence=0.1))
        assert len(segmenter(WHITE)) == expected


def test_the_crop_margin_reaches_the_masks() -> None:
    areas = []
    for margin in (0.0, 0.5, math.inf):
        segmenter, _ = fake_segmenter([THINGS[:1]], dataclasses.replace(PICTURES, crop_margin=margin))
        areas.append(int(segmenter(WHITE).mask.area()[0]))
    assert areas[0] < areas[1] <= areas[2] == 64 * 96


# --- opening and closing ----------------------------------------------------------------------------------------------


def test_opens_a_folder_a_file_and_a_bundle(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    for path in (folder, str(folder), folder / "model.fp32.onnx", open_bundle(folder)):
        with Segmenter.open(path, "onnxruntime-cpu", PICTURES) as segmenter:
            assert segmenter.backend_name == "onnxruntime-cpu"
            instances = segmenter(WHITE)
            assert instances.class_id.tolist() == [0, 2]
            assert len(segmenter(BLACK)) == 0


def test_a_closed_segmenter_refuses_frames_and_closes_again(tmp_path: Path) -> None:
    with Segmenter.open(write_bundle(tmp_path / "b", THINGS), options=PICTURES) as segmenter:
        segmenter(WHITE)
    with pytest.raises(BackendError, match="closed; open the model again"):
        segmenter(WHITE)
    segmenter.close()


def test_closing_closes_both_networks() -> None:
    mask_iou = FakeBackend([{"mask_iou": np.ones((2, 3), np.float32)}])
    segmenter, network = fake_segmenter([THINGS], PICTURES, mask_iou=mask_iou)
    segmenter.close()
    for backend in (network, mask_iou):
        with pytest.raises(BackendError, match="closed"):
            backend.infer(np.zeros((1, 3, 2, 2), np.float32))


def test_an_exception_inside_the_block_closes_and_passes() -> None:
    segmenter, network = fake_segmenter([THINGS])
    with pytest.raises(KeyError), segmenter:
        raise KeyError
    with pytest.raises(BackendError, match="closed"):
        network.infer(np.zeros((1, 3, 2, 2), np.float32))


def test_the_network_is_closed_when_the_mask_iou_network_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = FakeBackend([raw_outputs(small_manifest(), THINGS)])

    def create(name: str, model: ModelFile | Callable[[str], ModelSource], num_threads: int = 0) -> FakeBackend:
        if isinstance(model, ModelFile):
            assert model.path.name.startswith("mask_iou")
            raise BackendError("does not load")
        model(name)
        return network

    for module in (opening_module, mask_rescoring):
        monkeypatch.setattr(module, "create_backend", create)
    with pytest.raises(BackendError, match="does not load"):
        Segmenter.open(write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 1]))
    with pytest.raises(BackendError, match="closed"):
        network.infer(np.zeros((1, 3, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("backend", "precision", "taken"),
    [
        ("onnxruntime-cpu", None, "int8-cpu"),
        ("onnxruntime-cuda", None, "fp16"),
        ("onnxruntime-cpu", "fp32", "fp32"),
        ("onnxruntime-cuda", "int8-cpu", "int8-cpu"),
    ],
)
def test_each_backend_gets_the_precision_that_it_runs_best(
    backend: str, precision: str | None, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tmp_path / "b", THINGS)
    with_precisions(folder, "fp32", "fp16", "int8-cpu", "int8")
    files: list[str] = []

    def factory(model: ModelFile, num_threads: int) -> FakeBackend:
        files.append(model.path.name)
        return FakeBackend([raw_outputs(small_manifest(), THINGS)])

    monkeypatch.setitem(BACKENDS, backend, factory)
    segmenter = Segmenter.open(folder, backend, precision=precision)
    assert files == [f"model.{taken}.onnx"]
    assert segmenter.manifest.precision == taken


# --- YOLACT++ ---------------------------------------------------------------------------------------------------------


def test_mask_rescoring_with_a_real_second_network(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 4])
    with Segmenter.open(folder, options=PICTURES) as segmenter:
        instances = segmenter(WHITE)
        assert len(segmenter(BLACK)) == 0
    # The network predicts the mean of each soft mask times the factor of its class; the prototypes are sigmoid(6)
    # inside: 8 x 6 pixels for the first thing, and for the second 6 rows by 6 columns in the left half of the
    # prototype, the right half being sigmoid(-6).
    inside = 1 / (1 + math.exp(-6))
    first = 6 * 8 * inside / 96
    second = 4 * (6 * 6 * inside + 0) / 96
    assert instances.mask_confidence is not None
    np.testing.assert_allclose(instances.mask_confidence, [0.9 * first, 0.6 * second], rtol=1e-3)
    np.testing.assert_allclose(instances.confidence, [0.9, 0.6], rtol=1e-5)


def test_mask_rescoring_can_be_switched_off(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", THINGS, mask_iou=[1, 1, 4])
    options = dataclasses.replace(PICTURES, mask_rescoring=False)
    with Segmenter.open(folder, options=options) as segmenter:
        assert segmenter(WHITE).mask_confidence is None


def test_a_second_network_with_several_outputs_is_refused() -> None:
    mask_iou = FakeBackend([{"mask_iou": np.ones((2, 3), np.float32), "other": np.ones((2, 3), np.float32)}])
    segmenter, _ = fake_segmenter([THINGS], PICTURES, mask_iou=mask_iou)
    with pytest.raises(BackendError, match="should have one output, found mask_iou, other"):
        segmenter(WHITE)


@pytest.mark.parametrize("method", list(NmsMethod))
def test_nms_is_accepted_by_name(method: NmsMethod) -> None:
    assert SegmenterOptions(method.value).nms is method


@pytest.mark.parametrize("wrong", ["foo", None, "FAST"])
def test_an_unknown_nms_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="nms must be one of fast, cross-class, traditional"):
        SegmenterOptions(wrong)


@pytest.mark.parametrize("name", ["min_confidence", "crop_margin", "num_threads"])
def test_options_of_the_wrong_kind_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be a (whole )?number"):
        SegmenterOptions(**{name: "0.3"})


def test_masks_are_rescored_by_who_asks_for_it_whoever_opened_the_model(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b.bundle", THINGS, mask_iou=[0.5, 0.25, 0.75])
    frame = np.full((20, 30, 3), 255, np.uint8)
    rescored, plain = SegmenterOptions(min_confidence=0.1), SegmenterOptions(min_confidence=0.1, mask_rescoring=False)
    with Segmenter.open(bundle, "onnxruntime-cpu", rescored) as segmenter:
        expected = segmenter(frame).mask_confidence
        assert expected is not None
        assert len(expected)
        with segmenter.share(plain) as other:
            assert other(frame).mask_confidence is None
    with Segmenter.open(bundle, "onnxruntime-cpu", plain) as segmenter:
        assert segmenter.mask_rescoring is None
        assert segmenter(frame).mask_confidence is None
        for _ in range(2):
            with segmenter.share(rescored) as other:
                assert other.mask_rescoring is not None
                np.testing.assert_array_equal(other(frame).mask_confidence, expected)
