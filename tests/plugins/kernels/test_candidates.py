"""The kernels ``candidates_score`` and ``candidates_gather`` against the reference, on the host."""

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

pytestmark = needs_kernels()

Float = npt.NDArray[np.float32]
VARIANCES = (0.1, 0.2)
CASES_IN_AN_EXAMPLE = 10 if example_count(60) > 2 else 1
# exp() of two libraries differs by up to 2 units in the last place, of an argument that was rounded: 2^-23 |x| more.
EXP_ULPS = 4


class Raw(NamedTuple):
    """Outputs of a network, and its priors."""

    class_logit: npt.NDArray[Any]
    box_regression: npt.NDArray[Any]
    priors: Float
    mask_coefficient: npt.NDArray[Any]
    prototype: npt.NDArray[Any]


class Found(NamedTuple):
    prior: npt.NDArray[np.int32]
    xyxy: Float
    score: Float  # (C - 1, n)
    status: int


def make_raw(rng: np.random.Generator, num_priors: int, classes: int, dtype: npt.DTypeLike, lead: float) -> Raw:
    """Logits whose background leads by about `lead`."""
    logit = rng.normal(0, 2, (num_priors, classes))
    logit[:, 0] += lead
    regression = rng.normal(0, 2, (num_priors, 4))
    priors = np.concatenate([rng.random((num_priors, 2)), rng.uniform(0.01, 0.9, (num_priors, 2))], axis=1)
    wide = int(rng.integers(1, 40))
    coefficient, prototype = rng.normal(0, 1, (num_priors, wide)), rng.normal(0, 1, (wide, *rng.integers(1, 12, 2)))
    return Raw(
        *(a.astype(dtype) for a in (logit, regression)),
        priors.astype(np.float32),
        *(a.astype(dtype) for a in (coefficient, prototype)),
    )


def run(raw: Raw, threshold: float, capacity: int | None = None, seed: int = 0, looking: int = 1) -> Found:
    num_priors, classes = raw.class_logit.shape
    capacity = num_priors if capacity is None else capacity
    suffix = "f16" if raw.class_logit.dtype == np.float16 else "f32"
    normaliser, survivor = poisoned((num_priors, 2), np.float32), poisoned(-(-num_priors // 32), np.uint32)
    count, prior = poisoned(1, np.int32), poisoned(capacity, np.int32)
    # As on a device, where every allocation is aligned for a float4: NumPy's are too, but for empty ones.
    xyxy, score = poisoned((capacity, 4), np.float32), poisoned((classes - 1, capacity), np.float32)
    status = np.zeros(1, np.uint32)
    kernels = kernels_of("candidates")
    sizes = (np.int32(num_priors), np.int32(classes), np.float32(threshold))
    kernels(
        f"candidates_score_{suffix}",
        (max(1, -(-num_priors // 64)) + looking,),
        (128,),
        [raw.class_logit, *sizes, *_others(raw), normaliser, survivor, status],
        seed,
    )
    inputs = (*raw[:3], normaliser, survivor, *sizes[:2], *(np.float32(value) for value in VARIANCES))
    outputs = (count, prior, xyxy, score, np.int32(capacity), status)
    kernels(f"candidates_gather_{suffix}", (max(1, -(-num_priors // 256)),), (256,), [*inputs, *outputs], seed)
    n = int(count[0])
    for rest in (prior[n:], xyxy[n:], score[:, n:]):
        assert (np.ascontiguousarray(rest).view(np.uint8) == 0xCD).all()
    return Found(prior[:n], xyxy[:n], score[:, :n], int(status[0]))


def _others(raw: Raw) -> list[Any]:
    """What the kernel only looks at: rows of priors, and prototypes."""
    sizes = (np.int32(raw.prototype.shape[0]), np.int64(raw.prototype.size))
    return [raw.box_regression, raw.mask_coefficient, raw.prototype, *sizes]


def check(raw: Raw, threshold: float, seed: int) -> int:
    """Compare with the reference; returns the number of candidates."""
    logit = raw.class_logit.astype(np.float32)
    score = reference.class_score(logit)[:, 1:] if len(logit) else np.zeros((0, logit.shape[1] - 1), np.float32)
    # Sums of C terms in another order, and two exponentials of arguments up to the spread of the logits.
    spread = float(np.ptp(logit, axis=1).max(initial=0))
    relative = 2.0**-23 * (logit.shape[1] + 2 * EXP_ULPS + 2 * spread)
    found = run(raw, threshold, seed=seed)
    assert found.status == 0
    best = score.max(axis=1, initial=0)
    certain = reference.candidates(score, threshold * (1 + relative))
    possible = reference.candidates(score, threshold * (1 - relative))
    assert (np.diff(found.prior) > 0).all()
    assert set(certain) <= set(found.prior.tolist()) <= set(possible), best
    np.testing.assert_allclose(found.score, score[found.prior].T, rtol=relative, atol=1e-37)
    regression, priors = raw.box_regression[found.prior].astype(np.float32), raw.priors[found.prior]
    xyxy = reference.decode(regression, priors, VARIANCES)
    size = np.tile(xyxy[:, 2:] - xyxy[:, :2], 2)
    exponent = np.abs(regression[:, 2:]).max(initial=0) * VARIANCES[1]
    error = 2.0**-23 * ((EXP_ULPS + exponent) * size + 2 * np.abs(xyxy) + 2)
    assert (np.abs(found.xyxy - xyxy) <= error).all()
    return len(found.prior)


@examples(60)
@given(
    st.integers(0, 2**32 - 1),
    st.one_of(st.integers(2, 12), st.sampled_from([21, 81, 100])),
    st.sampled_from([0.0, 0.05, 0.3, 0.9]),
    st.sampled_from([-8.0, 0.0, 4.0, 9.0]),
)
def test_kernels_equal_the_reference(seed: int, classes: int, threshold: float, lead: float) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(CASES_IN_AN_EXAMPLE):
        num_priors = int(rng.integers(0, 150))
        check(make_raw(rng, num_priors, classes, rng.choice(["float32", "float16"]), lead), threshold, seed % 7)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("lead", "expected"), [(-30.0, 4000), (200.0, 0)])
def test_all_priors_and_none(dtype: str, lead: float, expected: int) -> None:
    raw = make_raw(np.random.default_rng(1), 4000, 6, dtype, lead)
    assert check(raw, 0.05, seed=0) == expected


def test_one_candidate_among_many_priors() -> None:
    raw = make_raw(np.random.default_rng(2), 3000, 81, np.float16, 60)
    raw.class_logit[2999, 80] = 120
    assert check(raw, 0.05, seed=3) == 1


def test_equal_logits_and_logits_beyond_the_range_of_exp() -> None:
    raw = make_raw(np.random.default_rng(3), 70, 4, np.float32, 0)
    raw.class_logit[:35] = 1000.0
    raw.class_logit[35:] = [-3e38, 3e38, -3e38, 3e38]
    raw.class_logit[40:, 0] = 3e38
    found = run(raw, 0.05)
    assert found.prior.tolist() == list(range(70))
    assert (found.score[:, :35] == 0.25).all()
    assert (found.score[:, 35] == np.array([0.5, 0, 0.5], np.float32)).all()


def test_the_threshold_is_strict() -> None:
    raw = make_raw(np.random.default_rng(4), 40, 2, np.float32, 0)
    raw.class_logit[:] = 0.0  # both scores are exactly one half
    assert len(run(raw, 0.5).prior) == 0
    assert len(run(raw, 0.4999).prior) == 40


@pytest.mark.parametrize("capacity", [0, 1, 31, 32, 45, 99])
def test_a_buffer_that_is_too_small_is_reported_and_not_overrun(capacity: int) -> None:
    raw = make_raw(np.random.default_rng(5), 100, 5, np.float32, -20)
    found = run(raw, 0.05, capacity)
    assert found.status == FrameStatus.CANDIDATE_OVERFLOW
    assert found.prior.tolist() == list(range(capacity))
    assert (found.score == run(raw, 0.05).score[:, :capacity]).all()
    assert run(raw, 0.05, 100).status == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("class_id", [0, 1, 8, 9])
def test_logits_that_are_not_finite_are_reported(value: float, class_id: int) -> None:
    raw = make_raw(np.random.default_rng(6), 50, 10, np.float16, 0)
    raw.class_logit[33, class_id] = value
    assert run(raw, 0.05).status == FrameStatus.NOT_FINITE


@examples(40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 100),
    st.sampled_from([name for name in Raw._fields if name != "priors"]),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.floats(0, 1, exclude_max=True),
)
def test_a_value_that_is_not_finite_is_reported_wherever_it_is(
    seed: int, num_priors: int, name: str, value: float, place: float
) -> None:
    rng = np.random.default_rng(seed)
    # No prior is a candidate: nothing but the look at the values can find it.
    raw = make_raw(rng, num_priors, 3, rng.choice(["float32", "float16"]), 60)
    assert run(raw, 0.05).status == 0
    values = getattr(raw, name).reshape(-1)
    values[int(place * values.size)] = value
    assert run(raw, 0.05, seed=seed % 7).status == FrameStatus.NOT_FINITE


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", [name for name in Raw._fields if name != "priors"])
def test_a_value_that_is_not_finite_is_found_at_every_edge(name: str, dtype: str) -> None:
    """First and last values, those around vectors of 16 bytes, and those around a piece that a block takes."""
    rng = np.random.default_rng(10)
    raw = make_raw(rng, 75, 81, dtype, 60)._replace(
        mask_coefficient=rng.normal(0, 1, (75, 32)).astype(dtype),
        prototype=rng.normal(0, 1, (32, 31, 17)).astype(dtype),
    )
    assert run(raw, 0.05, looking=2).status == 0
    values = getattr(raw, name).reshape(-1)
    piece = 8192 * 4 // values.itemsize
    edges = {0, 1, 3, 4, 7, 8, 15, 16, 80, 81, 82, 85, 88, 89, values.size // 2 | 1, piece - 1, piece, piece + 1}
    for place in sorted(edges | {values.size - back for back in (1, 2, 5, 9, 81, 82)}):
        if place >= values.size:
            continue
        before, values[place] = values[place], (np.nan, np.inf, -np.inf)[place % 3]
        assert run(raw, 0.05, looking=1 + place % 3).status == FrameStatus.NOT_FINITE, place
        values[place] = before


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_largest_values_are_finite(dtype: str) -> None:
    raw = make_raw(np.random.default_rng(7), 50, 21, dtype, 60)
    for array in (raw.class_logit, raw.box_regression, raw.mask_coefficient, raw.prototype):
        array[:] = np.finfo(dtype).max
        array.reshape(-1)[::3] *= -1
    assert run(raw, 0.05).status == 0


def _displaced(array: npt.NDArray[Any], elements: int) -> npt.NDArray[Any]:
    """The same values that many elements behind an address of 16 bytes."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 16 + elements * array.itemsize
    moved = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("elements", [1, 3])
def test_outputs_may_lie_anywhere(dtype: str, elements: int) -> None:
    raw = make_raw(np.random.default_rng(11), 70, 30, dtype, 3)
    moved = Raw(*(array if array is raw.priors else _displaced(array, elements) for array in raw))
    aligned, found = run(raw, 0.05), run(moved, 0.05)
    assert [part.tolist() for part in found[:3]] == [part.tolist() for part in aligned[:3]]
    for name in ("class_logit", "mask_coefficient", "prototype", "box_regression"):
        values = getattr(moved, name).reshape(-1)
        before, values[-1] = values[-1], np.nan
        assert run(moved, 0.05).status == FrameStatus.NOT_FINITE
        values[-1] = before


@examples(40)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([2, 3, 7, 8, 9, 15, 16, 17, 81]),
    st.sampled_from([1e-30, 0.001, 0.05, 0.3, 0.5, 0.9, 0.999999]),
    st.sampled_from([1e-7, 1e-4, 0.01, 0.1]),
)
def test_priors_beside_the_threshold_are_told_apart(seed: int, classes: int, threshold: float, width: float) -> None:
    """Rows whose bound is tight: but for one class and the background there is nothing, or something that climbs."""
    rng = np.random.default_rng(seed)
    raw = make_raw(rng, 90, classes, np.float32, 0)
    logit = np.full((90, classes), -200.0)
    if seed % 2:
        logit[:] = np.sort(rng.normal(-20, 5, logit.shape), axis=1)
    logit[:, 0] = rng.choice([0, 30, -40], 90)
    place = rng.integers(1, classes, 90)
    logit[range(90), place] = logit[:, 0] + np.log(threshold / (1 - threshold)) + rng.uniform(-width, width, 90)
    raw.class_logit[:] = logit
    check(raw, threshold, seed % 7)


def test_rows_of_equal_logits() -> None:
    raw = make_raw(np.random.default_rng(12), 64, 20, np.float32, 0)
    raw.class_logit[:] = np.repeat([0.0, -5.0, 88.0, 1e30], 16)[:, None]
    assert len(run(raw, 0.0499).prior) == 64  # every score is 1 / 20
    assert len(run(raw, 0.0501).prior) == 0


def test_a_threshold_below_the_smallest_exponential() -> None:
    raw = make_raw(np.random.default_rng(13), 40, 3, np.float32, 0)
    raw.class_logit[:] = [100.0, 0.0, 0.0]  # scores of exp(-100), a number that float32 rounds to 3.8e-44
    assert len(run(raw, 1e-44).prior) in (0, 40)
    assert len(run(raw, 1e-40).prior) == 0
    assert len(run(raw, 0.0).prior) in (0, 40)
    raw.class_logit[:] = [0.0, -87.0, -87.0]
    assert len(run(raw, 1e-38).prior) == 40


@pytest.mark.parametrize("num_priors", [1, 15, 16, 17, 33, 63, 64, 65, 255, 256, 257])
def test_blocks_that_are_not_full(num_priors: int) -> None:
    raw = make_raw(np.random.default_rng(num_priors), num_priors, 9, np.float16, -20)
    assert check(raw, 0.05, seed=num_priors % 5) == num_priors


def test_a_box_without_bounds_is_not_an_error() -> None:
    raw = make_raw(np.random.default_rng(8), 5, 3, np.float32, -20)
    raw.box_regression[2, 2] = 1e6
    found = run(raw, 0.05)
    assert found.status == 0
    with np.errstate(over="ignore", invalid="ignore"):
        expected = reference.decode(raw.box_regression, raw.priors, VARIANCES)
    assert (np.isfinite(found.xyxy) == np.isfinite(expected)).all()


def test_the_order_of_threads_and_blocks_does_not_matter() -> None:
    raw = make_raw(np.random.default_rng(9), 500, 21, np.float16, 2)
    results = [run(raw, 0.05, seed=seed) for seed in (0, 1, 2)]
    for result in results[1:]:
        assert result.prior.tolist() == results[0].prior.tolist()
        assert result.xyxy.tolist() == results[0].xyxy.tolist()
        assert result.score.tolist() == results[0].score.tolist()
