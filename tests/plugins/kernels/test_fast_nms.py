"""The kernels of Fast NMS against the reference and the runtime: the same detections, bit by bit, ties included."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kernel_host import kernels_of, needs_kernels, poisoned
from support.properties import example_count, examples
from yolact_plugins import reference
from yolact_plugins.frame_status import FrameStatus
from yolact_runtime.cpu.nms import Candidates, NmsMethod, NmsSettings, select

pytestmark = needs_kernels()

Float = npt.NDArray[np.float32]
CASES_IN_AN_EXAMPLE = 10 if example_count(60) > 2 else 1
THRESHOLD = 0.05


class Found(NamedTuple):
    prior: npt.NDArray[np.int32]
    class_id: npt.NDArray[np.int32]
    confidence: Float
    xyxy: Float
    status: int


class Listed(NamedTuple):
    """Candidates as the kernel ``candidates_gather`` leaves them: buffers with room for more."""

    score: Float  # (C - 1, capacity)
    xyxy: Float
    prior: npt.NDArray[np.int32]
    num_candidates: npt.NDArray[np.int32]


def listed(candidates: Candidates, xyxy: Float, room: int) -> Listed:
    n, classes = candidates.score.shape
    score, boxes = poisoned((classes, n + room), np.float32), poisoned((n + room, 4), np.float32)
    prior = poisoned(n + room, np.int32)
    score[:, :n], boxes[:n], prior[:n] = candidates.score.T, xyxy, candidates.prior
    return Listed(score, boxes, prior, np.array([n], np.int32))


def run(
    candidates: Candidates, xyxy: Float, options: NmsSettings, room: int = 0, seed: int = 0, repeats: int = 1
) -> Found:
    given_ = listed(candidates, xyxy, room)
    cross = options.method is NmsMethod.CROSS_CLASS
    rows = max(options.top_k if cross else options.max_instances, 0)
    count, prior, class_id = (poisoned(size, np.int32) for size in (1, rows, rows))
    confidence, boxes, status = poisoned(rows, np.float32), poisoned((rows, 4), np.float32), np.zeros(1, np.uint32)
    layout = make_layout(rows, seed)
    out = [count, prior, class_id, confidence, boxes, *layout, status]
    if cross:
        _cross_class(given_, options, out, seed)
    else:
        _per_class(given_, options, out, seed, repeats)
    n = int(count[0])
    require_layout(boxes, count, layout, int(status[0]), seed)
    for rest in (prior[n:], class_id[n:], confidence[n:], boxes[n:]):
        assert (np.ascontiguousarray(rest).view(np.uint8) == 0xCD).all()
    return Found(prior[:n], class_id[:n], confidence[:n], boxes[:n], int(status[0]) & ~FrameStatus.ARENA_OVERFLOW)


def make_layout(rows: int, seed: int) -> list[Any]:
    """Settings of masks, now and then with an arena that is too small, and where their windows and plans go."""
    rng = np.random.default_rng([seed, rows])
    sides = [np.int32(side) for side in (*rng.integers(1, 140, 2), *rng.integers(1, 2000, 2))]
    words = np.int64(rng.choice([0, 5000, 1 << 40]))
    settings = [*sides, np.float32(rng.choice([0, 0.1, np.inf])), words, np.int32(rng.integers(1, 5000))]
    outputs = [((rows, 8), np.int32), (rows + 1, np.int64), ((rows + 1, 4), np.int32)]
    return [*settings, *(poisoned(shape, dtype) for shape, dtype in outputs)]


def require_layout(xyxy: Float, count: npt.NDArray[np.int32], layout: list[Any], status: int, seed: int) -> None:
    """The end of a kernel is what ``mask_layout`` does, which has its own tests."""
    *settings, window, offset, plan = layout
    found, expected = [window, offset, plan], [poisoned(each.shape, each.dtype) for each in (window, offset, plan)]
    alone = np.zeros(1, np.uint32)
    kernels_of("mask_assembly")("mask_layout", (1,), (256,), [xyxy, count, *settings, *expected, alone], seed)
    assert [each.tobytes() for each in found] == [each.tobytes() for each in expected]
    assert status & FrameStatus.ARENA_OVERFLOW == int(alone[0])


def _per_class(given_: Listed, options: NmsSettings, out: list[Any], seed: int, repeats: int) -> None:
    kernels = kernels_of("fast_nms")
    classes, capacity = given_.score.shape
    overlap, kept_key = poisoned((32, 1024), np.uint32), poisoned(classes * max(options.top_k, 0), np.uint64)
    kept_count = poisoned(3, np.int32)
    floor, top_k, rows = np.float32(options.min_confidence), np.int32(options.top_k), np.int32(options.max_instances)
    shared = (np.int32(capacity), np.float32(options.iou_threshold))
    boxes = (given_.xyxy, given_.num_candidates)
    words = max(-(-min(capacity, 1024) // 32), 1)
    grid = (-(-words * (words + 1) // 8),)
    kernels("fast_nms_overlap", grid, (128,), [*boxes, *shared, overlap, kept_count], seed)
    inputs = [given_.score, *boxes, overlap, *shared, floor, top_k, kept_key, kept_count, out[-1]]
    for _ in range(repeats):
        kernels("fast_nms_class", (classes,), (128,), inputs, seed)
    kernels("fast_nms_merge", (1,), (1024,), [kept_key, kept_count, given_.prior, given_.xyxy, rows, *out], seed)


def _cross_class(given_: Listed, options: NmsSettings, out: list[Any], seed: int) -> None:
    kernels = kernels_of("fast_nms")
    classes, capacity = given_.score.shape
    best_score, best_class = poisoned(capacity, np.float32), poisoned(capacity, np.int32)
    sizes = (np.int32(capacity), np.int32(classes))
    best = [given_.score, given_.num_candidates, *sizes, best_score, best_class]
    kernels("fast_nms_best_class", (-(-capacity // 256),), (256,), best, seed)
    inputs = (best_score, best_class, given_.prior, given_.xyxy, given_.num_candidates, *sizes)
    options_ = (np.float32(options.iou_threshold), np.float32(options.min_confidence), np.int32(options.top_k))
    kernels("fast_nms_cross_class", (1,), (1024,), [*inputs, *options_, *out], seed)


def check(xyxy: Float, score: Float, options: NmsSettings, room: int = 0, seed: int = 0) -> Found:
    """`xyxy` ``(P, 4)``, `score` ``(P, C - 1)``; the kernels get the candidates among them."""
    prior = reference.candidates(score, THRESHOLD)
    candidates = Candidates(prior, score[prior])
    found = run(candidates, xyxy[prior], options, room, seed)
    assert found.status == 0
    if options.min_confidence > 0:  # the reference has no such floor, the runtime has
        chosen = select(candidates, xyxy[prior], options, (1, 1))
        expected = reference.Selection(prior[chosen.candidate], chosen.class_id, chosen.confidence)
    else:
        common = {"score_threshold": THRESHOLD, "iou_threshold": options.iou_threshold, "top_k": options.top_k}
        if options.method is NmsMethod.CROSS_CLASS:
            expected = reference.cross_class_fast_nms(xyxy, score, **common)  # type: ignore[arg-type]  # by name
        else:
            expected = reference.fast_nms(xyxy, score, max_instances=options.max_instances, **common)  # type: ignore[arg-type]
    assert found.prior.tolist() == expected.prior.tolist()
    assert found.class_id.tolist() == expected.class_id.tolist()
    assert found.confidence.tolist() == expected.confidence.tolist()
    assert found.xyxy.tobytes() == xyxy[expected.prior].tobytes()
    return found


def make_boxes(rng: np.random.Generator, count: int) -> Float:
    """Clusters that overlap, boxes outside of the image, without area, inside out, equal, and beyond float32."""
    centre = rng.choice(rng.uniform(-0.3, 1.3, (max(count // 4, 1), 2)), count) + rng.normal(0, 0.02, (count, 2))
    size = np.abs(rng.normal(0.2, 0.1, (count, 2)))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    odd = rng.random(count)
    boxes[odd < 0.05, 2:] = boxes[odd < 0.05, :2]
    boxes[(odd > 0.05) & (odd < 0.1)] = boxes[:1]
    boxes[(odd > 0.1) & (odd < 0.12)] = boxes[(odd > 0.1) & (odd < 0.12)][:, [2, 3, 0, 1]]
    if rng.random() < 0.7:  # a box without bounds hides all that are worse, so most cases have none
        return boxes
    boxes[(odd > 0.12) & (odd < 0.13)] = [-np.inf, 0, np.inf, 1]
    boxes[(odd > 0.13) & (odd < 0.14)] = [-np.inf, 0, np.nan, 1]
    boxes[(odd > 0.14) & (odd < 0.15)] = [-3e38, -3e38, 3e38, 3e38]
    return boxes


def make_scores(rng: np.random.Generator, count: int, classes: int, levels: int) -> Float:
    """Softmax scores; with `levels` > 0 rounded to so many values, which gives ties and scores of exactly 0."""
    logit = rng.normal(0, 4, (count, classes + 1)).astype(np.float32)
    score = reference.class_score(logit)[:, 1:] if count else np.zeros((0, classes), np.float32)
    return (np.round(score * levels) / np.float32(levels)).astype(np.float32) if levels else score


options = st.builds(
    NmsSettings,
    method=st.sampled_from([NmsMethod.FAST, NmsMethod.CROSS_CLASS]),
    min_confidence=st.sampled_from([0.0, 0.0, 0.3]),
    iou_threshold=st.sampled_from([0.5, 0.3, 0.0, 1.0]),
    top_k=st.sampled_from([1, 7, 200, 256]),
    max_instances=st.sampled_from([1, 10, 100, 256]),
)


@examples(100)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 4, 50]), options)
def test_kernels_equal_the_reference(seed: int, levels: int, options: NmsSettings) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(CASES_IN_AN_EXAMPLE):
        count = int(rng.choice([0, 1, 2, 40, 120, 300]) * rng.uniform(0.8, 1.2))
        score = make_scores(rng, count, int(rng.integers(1, 5)), levels)
        check(make_boxes(rng, count), score, options, room=int(rng.integers(0, 5)), seed=seed % 5)


@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.CROSS_CLASS])
@pytest.mark.parametrize("levels", [0, 2])
def test_many_priors_and_all_classes(method: NmsMethod, levels: int) -> None:
    rng = np.random.default_rng(levels)
    check(make_boxes(rng, 2500), make_scores(rng, 2500, 12, levels), NmsSettings(method=method), seed=1)


def test_eighty_classes_with_small_scores_fill_the_hundred() -> None:
    rng = np.random.default_rng(11)
    found = check(make_boxes(rng, 30), make_scores(rng, 30, 80, 0), NmsSettings())
    assert len(found.prior) == 100
    assert found.confidence[-1] < THRESHOLD


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 1023, 1024, 1025])
def test_bits_of_overlaps_and_sorted_lists_agree_where_one_takes_over(count: int) -> None:
    rng = np.random.default_rng(count)
    score = rng.uniform(0.06, 0.9, (count, 2)).astype(np.float32)
    for floor, top_k in ((0.0, 200), (0.8, 200), (0.0, 7), (0.99, 7)):
        settings = NmsSettings(min_confidence=floor, top_k=top_k, iou_threshold=0.3)
        check(make_boxes(rng, count), score, settings, room=count % 3, seed=count % 5)


def apart(count: int) -> Float:
    """Boxes in a row that touch nobody."""
    left = np.arange(count, dtype=np.float32)
    return np.stack([left, 0 * left, left + 0.5, 0 * left + 1], axis=1)


def test_merging_full_lists_of_all_classes_of_one_class_and_of_none() -> None:
    rng = np.random.default_rng(12)
    score = rng.uniform(0.1, 1, (300, 40)).astype(np.float32)
    for instances in (1, 100, 256):
        found = check(apart(300), score, NmsSettings(top_k=256, max_instances=instances), seed=instances % 3)
        assert len(found.prior) == instances
    score[:, [0, *range(2, 40)]] = 0.06
    found = check(apart(300), score, NmsSettings(min_confidence=0.07))
    assert set(found.class_id.tolist()) == {1}
    assert len(check(apart(300), score, NmsSettings(min_confidence=1.0)).prior) == 0


@examples(60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([NmsMethod.FAST, NmsMethod.CROSS_CLASS]))
def test_overlaps_equal_to_the_threshold_or_next_to_it(seed: int, method: NmsMethod) -> None:
    """The division is left out where the quotient is certain: thresholds are IoUs that occur, and their neighbours."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 12, (40, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 9, (40, 2))], axis=1)
    scaled = (boxes * rng.choice([1, 0.1, 1 / 3, 1e-19, 1e-22, 3e18, 1e19])).astype(np.float32)
    overlap = reference.iou(scaled, scaled)
    threshold = rng.choice(overlap[np.isfinite(overlap)]) if np.isfinite(overlap).any() else 0.5
    threshold = np.float32(rng.choice([threshold, np.nextafter(threshold, np.float32(2)), 0.5]))
    threshold = max(np.nextafter(threshold, np.float32(-1)) if seed % 3 == 0 else threshold, np.float32(0))
    score = rng.uniform(0.1, 1, (40, 2)).astype(np.float32)
    check(scaled, score, NmsSettings(method=method, iou_threshold=float(threshold)), seed=seed % 5)


def test_classes_may_be_run_again_before_they_are_merged() -> None:
    """As a stopwatch does it, which repeats one kernel: what is left for the merge is of the latest launch alone."""
    rng = np.random.default_rng(13)
    score, boxes = make_scores(rng, 200, 6, 0), make_boxes(rng, 200)
    once, again = (run(Candidates(np.arange(200), score), boxes, NmsSettings(), repeats=repeats) for repeats in (1, 3))
    assert [part.tolist() for part in once[:4]] == [part.tolist() for part in again[:4]]


def test_a_dropped_box_drops_others_too() -> None:
    chain = np.array([[0.0, 0, 0.6, 1], [0, 0, 1, 1], [0.4, 0, 1, 1]], np.float32)
    found = check(chain, np.array([[0.9], [0.8], [0.7]], np.float32), NmsSettings(iou_threshold=0.4))
    assert found.prior.tolist() == [0]


def test_overlap_equal_to_the_threshold_is_kept() -> None:
    halves = np.array([[0, 0, 1, 1], [0, 0, 0.5, 1]], np.float32)
    found = check(halves, np.array([[0.9], [0.8]], np.float32), NmsSettings())
    assert found.prior.tolist() == [0, 1]


def test_equal_scores_go_by_class_and_then_by_prior() -> None:
    found = check(apart(600), np.full((600, 3), 0.25, np.float32), NmsSettings(max_instances=256), seed=9)
    assert found.prior.tolist() == [*range(200), *range(56)]
    assert found.class_id.tolist() == [0] * 200 + [1] * 56


def test_places_without_an_entry_are_never_taken_for_scores_of_zero() -> None:
    """As many results as are asked for, the last ones with a score of exactly 0, and empty places in every class."""
    score = np.repeat(np.array([[0.9, 0, 0]], np.float32), 34, axis=0)
    found = check(apart(34), score, NmsSettings(max_instances=102))
    assert found.prior.tolist() == [*range(34)] * 3
    assert found.confidence.tolist() == [np.float32(0.9)] * 34 + [0] * 68


@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.CROSS_CLASS])
def test_settings_beyond_the_limits_are_reported(method: NmsMethod) -> None:
    rng = np.random.default_rng(4)
    candidates = Candidates(np.arange(5), make_scores(rng, 5, 2, 0))
    found = run(candidates, make_boxes(rng, 5), NmsSettings(method=method, top_k=257))
    assert (found.status, len(found.prior)) == (FrameStatus.LIMIT, 0)
    if method is NmsMethod.FAST:
        assert run(candidates, make_boxes(rng, 5), NmsSettings(max_instances=257)).status == FrameStatus.LIMIT


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_scores_that_are_no_scores_do_no_harm(value: float) -> None:
    # The status of such a frame is set where the scores are made; here nothing may leave its buffers.
    rng = np.random.default_rng(5)
    for method in (NmsMethod.FAST, NmsMethod.CROSS_CLASS):
        score = make_scores(rng, 400, 3, 0)
        score[rng.random(score.shape) < 0.7] = value
        found = run(Candidates(np.arange(400), score), make_boxes(rng, 400), NmsSettings(method=method))
        assert ((found.prior >= 0) & (found.prior < 400)).all()


@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.CROSS_CLASS])
def test_the_order_of_threads_and_blocks_does_not_matter(method: NmsMethod) -> None:
    rng = np.random.default_rng(6)
    score, boxes = make_scores(rng, 700, 6, 30), make_boxes(rng, 700)
    results = [check(boxes, score, NmsSettings(method=method), seed=seed) for seed in range(4)]
    for result in results[1:]:
        assert result.prior.tolist() == results[0].prior.tolist()
