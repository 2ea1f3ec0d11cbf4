from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins import reference
from yolact_runtime.cpu.nms import (
    Candidates,
    NmsMethod,
    NmsSettings,
    Selection,
    best_foreground,
    find_candidates,
    select,
)
from yolact_runtime.errors import BackendError, ShapeError

Float = npt.NDArray[np.float32]
INPUT_SIZE = (320, 480)
# IoU(A, B) = IoU(B, C) = 0.6, IoU(A, C) = 0.2.
CHAIN = np.array([[0.0, 0, 0.6, 1], [0, 0, 1, 1], [0.4, 0, 1, 1]], np.float32)
CHAIN_SCORE = np.array([[0.9], [0.8], [0.7]], np.float32)


def _disjoint(count: int) -> Float:
    left = np.arange(count, dtype=np.float32)
    return np.stack([left, 0 * left, left + 0.5, 0 * left + 1], axis=1)


def _select(xyxy: Float, score: Float, **changes: object) -> Selection:
    """Suppress candidates; every row of `score` is one."""
    candidates = Candidates(np.arange(len(score)), score)
    return select(candidates, xyxy, dataclasses.replace(NmsSettings(), **changes), INPUT_SIZE)  # type: ignore[arg-type]  # by name


def _rows(selection: Selection | reference.Selection) -> list[tuple[int, int, float]]:
    return list(zip(*(part.tolist() for part in selection), strict=True))


def _method_reference(xyxy: Float, score: Float, settings_: NmsSettings) -> reference.Selection:
    common = {"score_threshold": settings_.score_threshold, "iou_threshold": settings_.iou_threshold}
    if settings_.method is NmsMethod.FAST:
        return reference.fast_nms(xyxy, score, top_k=settings_.top_k, max_instances=settings_.max_instances, **common)
    if settings_.method is NmsMethod.CROSS_CLASS:
        return reference.cross_class_fast_nms(xyxy, score, top_k=settings_.top_k, **common)
    return reference.traditional_nms(
        xyxy, score, input_size=INPUT_SIZE, max_instances=settings_.max_instances, **common
    )


def _run(xyxy: Float, score: Float, settings_: NmsSettings) -> list[tuple[int, int, float]]:
    """As the post-processor does: candidates first, then suppression; (prior, class, score)."""
    prior = reference.candidates(score, settings_.score_threshold)
    found = select(Candidates(prior, score[prior]), xyxy[prior], settings_, INPUT_SIZE)
    return _rows(Selection(prior[found.candidate], found.class_id, found.confidence))


@st.composite
def scenes(draw: st.DrawFn, max_priors: int = 40, distinct: bool = False) -> tuple[Float, Float]:
    """Boxes on a coarse grid (so IoUs fall on thresholds) and few different scores (so there are ties)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    priors, classes = draw(st.integers(0, max_priors)), draw(st.integers(1, 4))
    corner = rng.integers(-2, draw(st.integers(0, 12)), (priors, 2))
    size = rng.integers(0 if draw(st.booleans()) else 1, 6, (priors, 2))
    boxes = (np.concatenate([corner, corner + size], axis=1) / 8).astype(np.float32)
    levels = priors * classes + 1 if distinct else draw(st.integers(1, 30))
    score = rng.permutation(priors * classes) if distinct else rng.integers(0, levels, priors * classes)
    return boxes, (score.reshape(priors, classes) / np.float32(max(levels, 1))).astype(np.float32)


@st.composite
def nms_settings(draw: st.DrawFn, method: NmsMethod) -> NmsSettings:
    return NmsSettings(
        method=method,
        score_threshold=draw(st.sampled_from([0.0, 0.05, 0.5])),
        iou_threshold=draw(st.sampled_from([0.0, 0.25, 0.5, 1 / 3, 1.0])),
        top_k=draw(st.integers(1, 12)),
        max_instances=draw(st.integers(1, 30)),
    )


@pytest.mark.parametrize("method", NmsMethod)
def test_the_second_threshold_is_strict_too(method: NmsMethod) -> None:
    score = np.array([[0.5], [0.25]], np.float32)
    found = _select(_disjoint(2), score, method=method, score_threshold=0.0, min_confidence=0.25)
    assert _rows(found) == [(0, 0, 0.5)]


# --- candidates -------------------------------------------------------------------------------------------------------


def _logits(probability: list[list[float]]) -> Float:
    return np.log(np.array(probability, np.float32))


def test_the_background_is_no_class_and_no_candidate() -> None:
    found = find_candidates(_logits([[0.98, 0.01, 0.01], [0.1, 0.2, 0.7]]), 0.05)
    assert found.prior.tolist() == [1]
    np.testing.assert_allclose(found.score, [[0.2, 0.7]], rtol=1e-6)


def test_a_candidate_keeps_the_scores_of_all_its_classes() -> None:
    found = find_candidates(_logits([[0.069, 0.001, 0.93]]), 0.05)
    np.testing.assert_allclose(found.score, [[0.001, 0.93]], rtol=1e-5)


def test_the_best_class_counts_not_their_sum() -> None:
    assert len(find_candidates(_logits([[0.84, 0.04, 0.04, 0.04, 0.04]]), 0.05).prior) == 0


def test_the_threshold_is_strict() -> None:
    logit = _logits([[0.9, 0.1]])
    score = reference.class_score(logit)[0, 1]
    assert len(find_candidates(logit, float(score)).prior) == 0
    assert len(find_candidates(logit, float(np.nextafter(score, np.float32(0)))).prior) == 1


@examples(150)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 60),
    st.integers(2, 9),
    st.sampled_from([0.5, 3.0, 30.0, 3000.0]),
    st.sampled_from([0.0, 1e-4, 0.05, 0.3, 0.9, 0.999]),
    st.sampled_from([np.float32, np.float16]),
)
def test_candidates_equal_a_softmax_over_everything(
    seed: int, priors: int, classes: int, spread: float, threshold: float, dtype: type
) -> None:
    logit = np.random.default_rng(seed).normal(0, spread, (priors, classes)).astype(dtype)
    score = reference.class_score(logit.astype(np.float32))[:, 1:]
    best = score.max(axis=1)
    found = find_candidates(logit, threshold)
    expected = np.flatnonzero(best > np.float32(threshold))
    # Summing in another order may move a score across the threshold by the last bits.
    undecided = set(np.flatnonzero(np.abs(best - threshold) <= 1e-6 * threshold).tolist())
    assert set(found.prior.tolist()) ^ set(expected.tolist()) <= undecided
    assert (np.diff(found.prior) > 0).all()
    assert found.score.dtype == np.float32
    assert found.score.shape == (len(found.prior), classes - 1)
    np.testing.assert_allclose(found.score, score[found.prior], rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("shape", [(5, 1), (5,), (1, 5, 3), (0, 1)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(P, C\)"):
        find_candidates(np.zeros(shape, np.float32), 0.05)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_logits_that_are_not_finite_are_refused(dtype: type, bad: float, column: int) -> None:
    logit = np.zeros((4, 3), dtype)
    logit[2, column] = bad
    with pytest.raises(BackendError, match='"class_logit" contains NaN or infinity'):
        find_candidates(logit, 0.05)


def test_logits_that_are_infinite_together_are_refused() -> None:
    with pytest.raises(BackendError, match="NaN or infinity"):
        find_candidates(np.full((1, 3), np.inf, np.float32), 0.05)


def test_half_precision_logits_that_are_far_apart_do_not_overflow() -> None:
    logit = np.array([[-60000, 60000], [60000, -60000]], np.float16)
    assert find_candidates(logit, 0.05).prior.tolist() == [0]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("shape", [(1, 2), (7, 2), (1, 5), (9, 81)])
def test_best_foreground_ignores_the_first_column(dtype: type, shape: tuple[int, int]) -> None:
    logit = np.random.default_rng(0).normal(size=shape).astype(dtype)
    logit[:, 0] += 100
    assert (best_foreground(logit) == logit[:, 1:].max(axis=1)).all()
    assert (best_foreground(np.asfortranarray(logit)) == logit[:, 1:].max(axis=1)).all()


# --- Fast NMS ---------------------------------------------------------------------------------------------------------


def test_a_dropped_box_still_suppresses() -> None:
    assert _rows(_select(CHAIN, CHAIN_SCORE)) == [(0, 0, np.float32(0.9))]


def test_the_direct_predecessor_suppresses() -> None:
    # Only the pair (B, C) overlaps: a triangle that starts one off the diagonal too late would keep C.
    boxes = np.concatenate([CHAIN + np.float32(5), CHAIN[[0]], CHAIN[[0]]])[[0, 3, 4]]
    assert _select(boxes, CHAIN_SCORE).candidate.tolist() == [0, 1]


def test_an_iou_of_exactly_the_threshold_is_kept() -> None:
    half = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5]], np.float32)
    score = np.array([[0.9], [0.8]], np.float32)
    assert len(_select(half, score).candidate) == 2
    assert len(_select(half, score, iou_threshold=0.499).candidate) == 1


def test_boxes_of_different_classes_do_not_suppress_each_other() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.float32)
    score = np.array([[0.9, 0.0], [0.0, 0.8]], np.float32)
    kept = _rows(_select(boxes, score, min_confidence=0.5))
    assert [(c, k) for c, k, _ in kept] == [(0, 0), (1, 1)]


def test_one_prior_may_be_kept_for_several_classes() -> None:
    kept = _select(_disjoint(1), np.array([[0.4, 0.55]], np.float32))
    assert (kept.candidate.tolist(), kept.class_id.tolist()) == ([0, 0], [1, 0])


def test_scores_below_the_candidate_threshold_fill_up_the_result() -> None:
    score = np.full((60, 2), 0.001, np.float32)
    score[:, 0] = 0.9
    kept = _select(_disjoint(60), score)
    assert len(kept.candidate) == 100
    assert (kept.confidence < 0.05).sum() == 40


def test_only_the_best_top_k_of_a_class_take_part() -> None:
    score = np.linspace(0.9, 0.5, 300, dtype=np.float32)[:, None]
    kept = _select(_disjoint(300), score, max_instances=1000)
    assert kept.candidate.tolist() == list(range(200))


def test_suppressed_boxes_count_towards_top_k() -> None:
    boxes = np.concatenate([np.tile(_disjoint(1), (3, 1)), _disjoint(2)[1:]])
    score = np.array([[0.9], [0.8], [0.7], [0.6]], np.float32)
    assert _select(boxes, score, top_k=3).candidate.tolist() == [0]
    assert _select(boxes, score, top_k=4).candidate.tolist() == [0, 3]


def test_top_k_is_counted_in_each_class() -> None:
    score = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.2]], np.float32)
    kept = _select(_disjoint(3), score, top_k=1)
    assert list(zip(kept.candidate.tolist(), kept.class_id.tolist(), strict=True)) == [(0, 0), (1, 1)]


def test_the_result_is_cut_to_max_instances_over_all_classes() -> None:
    score = np.tile(np.array([[0.3, 0.6]], np.float32), (80, 1))
    kept = _select(_disjoint(80), score)
    assert np.bincount(kept.class_id).tolist() == [20, 80]


def test_looks_further_down_while_the_best_scores_suppress_each_other() -> None:
    # The first 500 of 505 are one object: what is left must still be found.
    boxes = np.concatenate([np.tile(_disjoint(1), (500, 1)), _disjoint(6)[1:]])
    score = np.linspace(0.99, 0.1, 505, dtype=np.float32)[:, None]
    kept = _select(boxes, score, top_k=1000, max_instances=3)
    assert kept.candidate.tolist() == [0, 500, 501]


def test_ties_are_broken_by_class_then_by_prior() -> None:
    kept = _select(_disjoint(3), np.full((3, 2), 0.5, np.float32), max_instances=4)
    assert list(zip(kept.class_id.tolist(), kept.candidate.tolist(), strict=True)) == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_of_two_equal_boxes_with_equal_scores_the_lower_prior_wins() -> None:
    assert _select(np.tile(_disjoint(1), (2, 1)), np.full((2, 1), 0.5, np.float32)).candidate.tolist() == [0]


def test_a_box_without_area_is_dropped_when_a_better_one_has_none_either() -> None:
    point = np.array([[0.5, 0.5, 0.5, 0.5]] * 2, np.float32)
    assert _select(point, np.array([[0.9], [0.8]], np.float32)).candidate.tolist() == [0]


@pytest.mark.parametrize("method", list(NmsMethod))
@pytest.mark.parametrize("far", [1e25, 3e38])
def test_boxes_whose_area_overflows_do_not_warn(method: NmsMethod, far: float) -> None:
    huge = np.array([[-far, -far, far, far]] * 2, np.float32)
    assert _select(huge, np.array([[0.9], [0.8]], np.float32), method=method).candidate.tolist() == [0]


def test_suppression_works_on_unclipped_boxes() -> None:
    # Clipped to the image, the two would be equal.
    boxes = np.array([[0, 0, 1, 1], [-3, 0, 4, 1]], np.float32)
    assert len(_select(boxes, np.array([[0.9], [0.8]], np.float32)).candidate) == 2


def test_min_confidence_is_the_second_threshold_that_upstream_leaves_out() -> None:
    boxes = np.tile(_disjoint(1), (2, 1))
    score = np.array([[0.9, 0.04], [0.03, 0.8]], np.float32)
    published = _select(boxes, score)
    # Published: prior 0 also enters the list of class 1, behind prior 1, and is suppressed there.
    assert _rows(published) == [(0, 0, np.float32(0.9)), (1, 1, np.float32(0.8))]
    lone = np.array([[0.9, 0.04]], np.float32)
    assert _select(_disjoint(1), lone).class_id.tolist() == [0, 1]
    assert _select(_disjoint(1), lone, min_confidence=0.04).class_id.tolist() == [0]  # strict
    assert _select(_disjoint(1), lone, min_confidence=0.03).class_id.tolist() == [0, 1]


@pytest.mark.parametrize("method", list(NmsMethod))
@pytest.mark.parametrize("classes", [1, 80])
def test_no_candidate_gives_an_empty_selection(method: NmsMethod, classes: int) -> None:
    kept = _select(np.zeros((0, 4), np.float32), np.zeros((0, classes), np.float32), method=method)
    assert [part.shape for part in kept] == [(0,)] * 3
    assert kept.class_id.dtype.kind == kept.candidate.dtype.kind == "i"
    assert kept.confidence.dtype == np.float32


@pytest.mark.parametrize("method", list(NmsMethod))
@examples(150)
@given(st.data())
def test_equals_the_reference(method: NmsMethod, data: st.DataObject) -> None:
    boxes, score = data.draw(scenes())
    chosen = data.draw(nms_settings(method))
    assert _run(boxes, score, chosen) == _rows(_method_reference(boxes, score, chosen))


@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.CROSS_CLASS])
def test_equals_the_reference_when_every_prior_is_a_candidate(method: NmsMethod) -> None:
    rng = np.random.default_rng(7)
    centre, size = rng.uniform(0, 1, (4000, 2)), rng.uniform(0.02, 0.3, (4000, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    score = reference.class_score(rng.normal(0, 2, (4000, 21)).astype(np.float32))[:, 1:]
    assert len(reference.candidates(score)) > 3900
    chosen = NmsSettings(method=method)
    assert _run(boxes, score, chosen) == _rows(_method_reference(boxes, score, chosen))


@examples(100)
@given(scenes(), nms_settings(NmsMethod.FAST))
def test_fast_nms_is_sorted_and_keeps_no_overlapping_pair_of_one_class(
    scene: tuple[Float, Float], chosen: NmsSettings
) -> None:
    boxes, _ = scene
    rows = _run(*scene, chosen)
    assert [score for _, _, score in rows] == sorted((score for _, _, score in rows), reverse=True)
    assert len(rows) <= chosen.max_instances
    assert len({(prior, class_id) for prior, class_id, _ in rows}) == len(rows)
    for (a, class_a, _), (b, class_b, _) in itertools.combinations(rows, 2):
        if class_a == class_b:
            overlap = reference.iou(boxes[[a]], boxes[[b]])[0, 0]
            assert overlap <= np.float32(chosen.iou_threshold)


@pytest.mark.parametrize("method", list(NmsMethod))
@examples(60)
@given(st.data())
def test_the_order_of_priors_does_not_matter_when_scores_differ(method: NmsMethod, data: st.DataObject) -> None:
    boxes, score = data.draw(scenes(distinct=True))
    chosen = data.draw(nms_settings(method))
    order = np.array(data.draw(st.permutations(range(len(boxes)))), np.int64)
    shuffled = [(int(order[prior]), c, s) for prior, c, s in _run(boxes[order], score[order], chosen)]
    assert shuffled == _run(boxes, score, chosen)


@pytest.mark.parametrize("method", list(NmsMethod))
@examples(100)
@given(st.data())
def test_min_confidence_removes_its_own_and_nothing_above(method: NmsMethod, data: st.DataObject) -> None:
    scene = data.draw(scenes())
    chosen = data.draw(nms_settings(method))
    low = data.draw(st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.75, 1.0]))
    everything = _run(*scene, chosen)
    filtered = _run(*scene, dataclasses.replace(chosen, min_confidence=low))
    assert filtered == [row for row in everything if row[2] > np.float32(low)]


# --- cross-class ------------------------------------------------------------------------------------------------------


def test_cross_class_keeps_one_class_per_object() -> None:
    score = np.array([[0.4, 0.55], [0.5, 0.1]], np.float32)
    boxes = np.tile(_disjoint(1), (2, 1))
    assert _rows(_select(boxes, score, method=NmsMethod.CROSS_CLASS)) == [(0, 1, np.float32(0.55))]


def test_cross_class_lets_a_dropped_box_suppress_too() -> None:
    assert _select(CHAIN, CHAIN_SCORE, method=NmsMethod.CROSS_CLASS).candidate.tolist() == [0]


def test_cross_class_is_cut_to_top_k_in_all_and_never_to_max_instances() -> None:
    score = np.linspace(0.9, 0.5, 300, dtype=np.float32)[:, None] * np.array([[0.1, 1.0]], np.float32)
    kept = _select(_disjoint(300), score, method=NmsMethod.CROSS_CLASS)
    assert kept.candidate.tolist() == list(range(200))


def test_cross_class_takes_the_lower_class_of_two_equal_scores() -> None:
    kept = _select(_disjoint(1), np.array([[0.1, 0.4, 0.4]], np.float32), method=NmsMethod.CROSS_CLASS)
    assert kept.class_id.tolist() == [1]


# --- traditional ------------------------------------------------------------------------------------------------------


def test_traditional_is_greedy() -> None:
    assert _select(CHAIN, CHAIN_SCORE, method=NmsMethod.TRADITIONAL).candidate.tolist() == [0, 2]


def test_traditional_drops_at_exactly_the_threshold_with_inclusive_pixels() -> None:
    # 10 x 20 and 10 x 10 pixels when both ends count.
    boxes = np.array([[0, 0, 9, 19], [0, 0, 9, 9]], np.float32) / np.array([480, 320, 480, 320], np.float32)
    score = np.array([[0.9], [0.8]], np.float32)
    assert len(_select(boxes, score, method=NmsMethod.TRADITIONAL, iou_threshold=0.4999).candidate) == 1
    assert len(_select(boxes, score, method=NmsMethod.TRADITIONAL, iou_threshold=0.5001).candidate) == 2


def test_traditional_has_a_score_threshold_in_each_class() -> None:
    score = np.array([[0.9, 0.05, 0.06]], np.float32)
    assert _select(_disjoint(1), score, method=NmsMethod.TRADITIONAL).class_id.tolist() == [0, 2]


def test_traditional_has_no_top_k_but_a_cut_of_the_result() -> None:
    score = np.linspace(0.9, 0.5, 300, dtype=np.float32)[:, None]
    kept = _select(_disjoint(300), score, method=NmsMethod.TRADITIONAL, top_k=5)
    assert kept.candidate.tolist() == list(range(100))


@pytest.mark.parametrize("seed", range(8))
def test_a_crowd_that_needs_a_second_look_equals_the_reference(seed: int) -> None:
    """So few boxes survive that the first, short list of scores cannot fill the result."""
    random = np.random.default_rng(seed)
    centre = random.uniform(0.2, 0.8, (3, 2))[random.integers(0, 3, 400)]
    corners = np.concatenate([centre - 0.1, centre + 0.1], axis=1)
    boxes = (corners + random.normal(0, 0.01, corners.shape)).astype(np.float32)
    score = random.uniform(0.06, 1, (400, 4)).astype(np.float32)
    if seed % 2:
        score = np.round(score, 1)  # ties
    expected = reference.fast_nms(boxes, score, top_k=50, max_instances=60)
    found = _select(boxes, score, top_k=50, max_instances=60)
    assert 3 <= len(found.candidate) < 60
    assert found.candidate.tolist() == expected.prior.tolist()
    assert found.class_id.tolist() == expected.class_id.tolist()
