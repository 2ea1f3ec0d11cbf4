from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import DEFAULT_PROTOTYPE, Thing, encode_boxes, raw_outputs, small_manifest
from yolact_plugins import reference
from yolact_runtime.cpu.nms import NmsMethod, NmsSettings
from yolact_runtime.cpu.postprocess import Postprocessor, decode
from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.errors import BackendError, ShapeError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.manifest import DetectionSpec

Float = npt.NDArray[np.float32]
MANIFEST = small_manifest()
PRIORS = make_priors(MANIFEST.priors, MANIFEST.input.height, MANIFEST.input.width)
THINGS = [
    Thing((0.25, 0.25, 0.75, 0.75), class_id=0, confidence=0.9),
    Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1),
]
PICTURES = NmsSettings(min_confidence=0.1)


def _random_outputs(seed: int, spread: float = 3.0) -> dict[str, Float]:
    rng = np.random.default_rng(seed)
    count = len(PRIORS)
    return {
        "box_regression": rng.normal(0, 1.5, (1, count, 4)).astype(np.float32),
        "class_logit": rng.normal(0, spread, (1, count, 4)).astype(np.float32),
        "mask_coefficient": np.tanh(rng.normal(0, 1, (1, count, 5))).astype(np.float32),
        "prototype": np.maximum(rng.normal(0, 2, (1, 5, 8, 12)), 0).astype(np.float32),
    }


def _run(outputs: dict[str, Any], height: int = 64, width: int = 96, **changes: Any) -> Instances:
    return Postprocessor.of(MANIFEST, dataclasses.replace(PICTURES, **changes))(outputs, height, width)


# --- decode -----------------------------------------------------------------------------------------------------------


@examples(100)
@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.sampled_from([(0.1, 0.2), (0.3, 0.05), (1.0, 1.0)]))
def test_decode_equals_the_reference(seed: int, count: int, variances: tuple[float, float]) -> None:
    rng = np.random.default_rng(seed)
    regression = rng.normal(0, 3, (count, 4)).astype(np.float32)
    priors = rng.uniform(0.01, 1.5, (count, 4)).astype(np.float32)
    ours = decode(regression, priors, variances)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, reference.decode(regression, priors, variances))


@examples(100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_decode_undoes_encode(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(-0.5, 1.5, (count, 2)), rng.uniform(0.001, 2, (count, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    priors = rng.uniform(0.02, 1.5, (count, 4)).astype(np.float32)
    back = decode(encode_boxes(boxes, priors), priors, (0.1, 0.2))
    np.testing.assert_allclose(back, boxes, rtol=0, atol=2e-5)


def test_decode_does_not_clip() -> None:
    regression = np.array([[-50, 50, 0, 0]], np.float32)
    np.testing.assert_allclose(
        decode(regression, np.array([[0.5, 0.5, 0.2, 0.2]], np.float32), (0.1, 0.2)),
        [[-0.6, 1.4, -0.4, 1.6]],
        atol=1e-6,
    )


# --- the whole chain --------------------------------------------------------------------------------------------------


def _expected(outputs: dict[str, Float], settings_: NmsSettings, height: int, width: int) -> tuple[Any, Float, Any]:
    """Selection, boxes in pixels and masks by the reference alone."""
    raw = {name: array[0].astype(np.float32) for name, array in outputs.items()}
    score = reference.class_score(raw["class_logit"])[:, 1:]
    boxes = reference.decode(raw["box_regression"], PRIORS)
    size = (MANIFEST.input.height, MANIFEST.input.width)
    if settings_.method is NmsMethod.FAST:
        kept = reference.fast_nms(boxes, score)
    elif settings_.method is NmsMethod.CROSS_CLASS:
        kept = reference.cross_class_fast_nms(boxes, score)
    else:
        kept = reference.traditional_nms(boxes, score, input_size=size)
    boxes = boxes[kept.prior]
    masks = reference.mask_assembly(raw["prototype"], raw["mask_coefficient"][kept.prior], boxes, height, width)
    return kept, boxes * np.array([width, height] * 2, np.float32), masks


@pytest.mark.parametrize("method", list(NmsMethod))
@pytest.mark.parametrize("size", [(64, 96), (50, 31), (5, 7), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_equals_the_reference_from_end_to_end(method: NmsMethod, size: tuple[int, int], dtype: type) -> None:
    outputs = {name: array.astype(dtype) for name, array in _random_outputs(11).items()}
    chosen = NmsSettings(method=method)
    kept, pixels, masks = _expected(outputs, chosen, *size)
    instances = Postprocessor.of(MANIFEST, chosen)(outputs, *size)
    assert len(instances) == len(kept.prior) > 20
    assert instances.class_id.tolist() == kept.class_id.tolist()
    np.testing.assert_allclose(instances.confidence, kept.confidence, rtol=1e-6)
    clamped = np.concatenate([np.maximum(pixels[:, :2], 0), np.minimum(pixels[:, 2:], [size[1], size[0]])], axis=1)
    np.testing.assert_allclose(instances.xyxy, clamped, rtol=1e-6, atol=1e-4)
    assert (instances.mask.dense() != masks).sum() == 0
    assert (instances.height, instances.width) == size


def test_dtypes_are_those_promised() -> None:
    for outputs in (raw_outputs(MANIFEST, THINGS), raw_outputs(MANIFEST, [])):
        instances = _run(outputs)
        assert instances.xyxy.dtype == np.float32
        assert instances.confidence.dtype == np.float32
        assert instances.class_id.dtype == np.int32
        assert instances.xyxy.shape == (len(instances), 4)
        assert instances.mask_confidence is None


def test_a_scene_comes_out_as_it_was_put_in() -> None:
    instances = _run(raw_outputs(MANIFEST, THINGS))
    np.testing.assert_allclose(instances.xyxy, [[24, 16, 72, 48], [0, 0, 38.4, 38.4]], atol=1e-3)
    np.testing.assert_allclose(instances.confidence, [0.9, 0.6], rtol=1e-5)
    assert instances.class_id.tolist() == [0, 2]


def test_the_background_is_class_0_of_the_network_and_no_class_of_the_result() -> None:
    instances = _run(raw_outputs(MANIFEST, [Thing((0.1, 0.1, 0.9, 0.9), class_id=2)]))
    assert MANIFEST.class_names[instances.class_id[0]] == "bird"


@pytest.mark.parametrize("method", list(NmsMethod))
def test_a_frame_with_nothing_in_it(method: NmsMethod) -> None:
    instances = _run(raw_outputs(MANIFEST, []), method=method)
    assert len(instances) == 0
    assert instances.mask.dense().shape == (0, 64, 96)
    assert (instances.height, instances.width) == (64, 96)


def test_settings_default_to_those_of_the_manifest() -> None:
    detection = DetectionSpec(score_threshold=0.2, iou_threshold=0.4, top_k=7, max_instances=3)
    chosen = Postprocessor.of(dataclasses.replace(MANIFEST, detection=detection)).settings
    assert chosen == NmsSettings(score_threshold=0.2, iou_threshold=0.4, top_k=7, max_instances=3)


def test_outputs_are_only_read_and_the_result_does_not_refer_to_them() -> None:
    outputs = raw_outputs(MANIFEST, THINGS)
    for array in outputs.values():
        array.flags.writeable = False
    instances = _run(outputs)
    before = instances.as_dict()
    for array in outputs.values():
        array.flags.writeable = True
        array[:] = 0
    after = instances.as_dict()
    assert all((before[name] == after[name]).all() for name in before)


def test_traditional_nms_takes_the_network_input_for_its_pixels() -> None:
    # Two boxes of one pixel of the *network*: with inclusive pixels they overlap by 2 / 6 there, by almost nothing in
    # the frame.
    things = [Thing((0.5, 0, 0.5 + 1 / 48, 1)), Thing((0.5 + 1 / 48, 0, 0.5 + 2 / 48, 1), confidence=0.8)]
    outputs = raw_outputs(MANIFEST, things)
    assert len(_run(outputs, 3200, 4800, method=NmsMethod.TRADITIONAL, iou_threshold=0.3)) == 1
    assert len(_run(outputs, 3200, 4800, method=NmsMethod.TRADITIONAL, iou_threshold=0.35)) == 2


# --- boxes in pixels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relative", "pixels"),
    [
        ((-0.5, -0.25, 0.5, 0.5), (0, 0, 48, 32)),  # left and top are clamped at 0
        ((0.5, 0.5, 1.5, 1.25), (48, 32, 96, 64)),  # right and bottom at the size
        ((1.5, 1.25, 1.75, 1.5), (144, 80, 96, 64)),  # and nothing else, as upstream
        ((-1.0, -1.0, -0.5, -0.25), (0, 0, -48, -16)),
        ((0.105, 0.105, 0.895, 0.895), (10.08, 6.72, 85.92, 57.28)),  # not rounded
    ],
)
def test_boxes_are_clamped_on_one_side_as_upstream(
    relative: tuple[float, float, float, float], pixels: tuple[float, ...]
) -> None:
    instances = _run(raw_outputs(MANIFEST, [Thing(relative)]))
    np.testing.assert_allclose(instances.xyxy, [pixels], atol=2e-3)


def test_the_mask_may_reach_beyond_its_box_by_its_padding() -> None:
    instances = _run(raw_outputs(MANIFEST, [Thing((0.5, 0.5, 0.75, 0.75))]))
    # x: 12 prototype columns of 8 frame columns each; 6 - 1 <= i < 9 + 1. y: 8 rows of 8; 4 - 1 <= i < 6 + 1.
    assert instances.mask.bounds().tolist() == [[40, 24, 80, 56]]
    np.testing.assert_allclose(instances.xyxy, [[48, 32, 72, 48]], atol=1e-3)


def test_the_crop_margin_changes_masks_only() -> None:
    outputs = raw_outputs(MANIFEST, [Thing((0.4, 0.4, 0.5, 0.5))])
    published = Postprocessor.of(MANIFEST, PICTURES)(outputs, 64, 96)
    wide = Postprocessor.of(MANIFEST, PICTURES, crop_margin=math.inf)(outputs, 64, 96)
    assert wide.mask.area()[0] == 64 * 96 > published.mask.area()[0]
    assert (wide.xyxy == published.xyxy).all()


# --- mask re-scoring --------------------------------------------------------------------------------------------------


class _MaskIou:
    """Predicts 1, 10, 100, ... for the masks and adds 0.25 times the class; keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[Float] = []

    def __call__(self, masks: Float) -> Float:
        self.seen.append(masks.copy())
        return (10.0 ** np.arange(len(masks))[:, None] + 0.25 * np.arange(3)[None]).astype(np.float32)


def test_mask_confidence_is_the_confidence_times_the_predicted_iou_of_its_class() -> None:
    mask_iou = _MaskIou()
    instances = Postprocessor.of(MANIFEST, PICTURES, mask_iou=mask_iou)(raw_outputs(MANIFEST, THINGS), 64, 96)
    assert instances.mask_confidence is not None
    assert instances.mask_confidence.dtype == np.float32
    # Not bounded by 1, and neither the confidence nor the order changes.
    np.testing.assert_allclose(instances.mask_confidence, [0.9 * 1, 0.6 * 10.5], rtol=1e-5)
    np.testing.assert_allclose(instances.confidence, [0.9, 0.6], rtol=1e-5)
    assert instances.class_id.tolist() == [0, 2]


@pytest.mark.parametrize("margin", [0.0, 0.5, math.inf])
def test_the_mask_iou_network_reads_soft_masks_with_the_published_crop(margin: float) -> None:
    mask_iou = _MaskIou()
    things = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.1, 0.0, 0.8, 0.6), confidence=0.6, prototype=1)]
    outputs = raw_outputs(MANIFEST, things, DEFAULT_PROTOTYPE / 4)
    Postprocessor.of(MANIFEST, PICTURES, margin, mask_iou)(outputs, 64, 96)
    (seen,) = mask_iou.seen
    assert seen.shape == (2, 1, 8, 12)
    assert seen.dtype == np.float32
    assert seen.flags.c_contiguous
    boxes = np.array([thing.xyxy for thing in things], np.float32)
    coefficient = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    expected = reference.soft_masks(DEFAULT_PROTOTYPE / 4, coefficient, boxes)
    np.testing.assert_allclose(seen[:, 0], expected, rtol=1e-5)
    assert len(np.unique(seen.round(4))) > 2  # not binarised


def test_the_mask_iou_network_is_not_run_on_nothing() -> None:
    mask_iou = _MaskIou()
    instances = Postprocessor.of(MANIFEST, PICTURES, mask_iou=mask_iou)(raw_outputs(MANIFEST, []), 64, 96)
    assert mask_iou.seen == []
    assert instances.mask_confidence is not None
    assert instances.mask_confidence.shape == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_predicted_iou_that_is_not_finite_is_refused(bad: float) -> None:
    def mask_iou(masks: Float) -> Float:
        return np.full((len(masks), 3), bad, np.float32)

    with pytest.raises(BackendError, match='"mask_iou" contains NaN or infinity'):
        Postprocessor.of(MANIFEST, PICTURES, mask_iou=mask_iou)(raw_outputs(MANIFEST, THINGS), 64, 96)


@pytest.mark.parametrize("shape", [(2, 2), (2, 4), (1, 3), (2,), (2, 3, 1)])
def test_a_predicted_iou_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    def mask_iou(masks: Float) -> Float:
        return np.ones(shape, np.float32)

    with pytest.raises(ShapeError, match=r'"mask_iou" should have the shape \(2, 3\) for this model'):
        Postprocessor.of(MANIFEST, PICTURES, mask_iou=mask_iou)(raw_outputs(MANIFEST, THINGS), 64, 96)


# --- outputs that cannot be used --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["box_regression", "class_logit", "mask_coefficient", "prototype"])
def test_a_missing_output_is_named(name: str) -> None:
    outputs = raw_outputs(MANIFEST, THINGS)
    del outputs[name]
    with pytest.raises(ShapeError, match=f"lacks the output {name}; it has "):
        _run(outputs)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("box_regression", (1, 90, 5)),
        ("box_regression", (1, 89, 4)),
        ("box_regression", (2, 90, 4)),
        ("box_regression", (90, 4)),
        ("class_logit", (1, 90, 3)),
        ("class_logit", (1, 91, 4)),
        ("mask_coefficient", (1, 90, 2)),
        ("mask_coefficient", (1, 1, 3)),
        ("prototype", (2, 3, 8, 12)),
        ("prototype", (3, 8, 12)),
        ("prototype", (1, 1, 3, 8, 12)),
    ],
)
def test_an_output_of_another_shape_is_named(name: str, shape: tuple[int, ...]) -> None:
    outputs = raw_outputs(MANIFEST, THINGS)
    outputs[name] = np.zeros(shape, np.float32)
    with pytest.raises(ShapeError, match=f'the output "{name}" should have the shape') as raised:
        _run(outputs)
    assert str(shape) in str(raised.value)


def test_more_outputs_than_needed_are_ignored() -> None:
    outputs = {**raw_outputs(MANIFEST, THINGS), "semantic": np.zeros((1, 3, 4, 4), np.float32)}
    assert len(_run(outputs)) == 2


@pytest.mark.parametrize("name", ["box_regression", "class_logit", "mask_coefficient", "prototype"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("row", [0, -1])
def test_outputs_that_are_not_finite_are_refused(name: str, bad: float, dtype: type, row: int) -> None:
    outputs = {key: array.astype(dtype) for key, array in raw_outputs(MANIFEST, THINGS).items()}
    # The first prior is a detection, the last one far from it: damage is damage.
    outputs[name][0, row, ..., -1] = bad
    with pytest.raises(BackendError, match=f'"{name}" contains NaN or infinity'):
        _run(outputs)


@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.TRADITIONAL])
@pytest.mark.parametrize("place", range(4))
def test_a_box_without_bounds_has_numbers_for_corners_and_no_mask(method: NmsMethod, place: int) -> None:
    outputs = raw_outputs(MANIFEST, THINGS)
    outputs["box_regression"][0, 0, place] = 3e38
    instances = _run(outputs, method=method)
    assert instances.class_id.tolist() == [0, 2]
    assert np.isfinite(instances.xyxy).all()
    assert instances.mask.area()[0] == 0
    assert instances.mask.area()[1] > 0


def test_a_box_that_is_no_number_hides_those_it_is_compared_with_as_upstream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs = raw_outputs(MANIFEST, THINGS)
    outputs["box_regression"][0, 0, 2] = 3e38
    assert _run(outputs, method=NmsMethod.CROSS_CLASS).class_id.tolist() == [0]
    assert "a box of infinite size suppresses others" in caplog.text


def test_a_box_beyond_any_frame_does_not_warn() -> None:
    outputs = raw_outputs(MANIFEST, [*THINGS, Thing((0.1, 0.1, 0.2, 0.2))])
    outputs["box_regression"][0, 2, 2:] = 420  # exp(84): finite, but its area is not
    assert len(_run(outputs)) == 3
