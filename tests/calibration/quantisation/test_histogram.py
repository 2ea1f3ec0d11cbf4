from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.histogram import Histogram

Float = npt.NDArray[np.float32]
ANY = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)


def histogram(*parts: Float) -> Histogram:
    found = Histogram()
    for part in parts:
        found.add(part)
    return found


@given(arrays(np.float32, st.integers(0, 60), elements=ANY))
def test_a_bin_is_the_upper_half_of_a_float(values: Float) -> None:
    found = histogram(values)
    expected = np.zeros(65536, int)
    for value in values:
        expected[struct.unpack("<I", struct.pack("<f", value))[0] >> 16] += 1
    np.testing.assert_array_equal(found.counts, expected)
    finite = values[np.isfinite(values)]
    assert found.num_values == len(values)
    assert found.num_non_finite == len(values) - len(finite)
    assert (found.low, found.high) == ((finite.min(), finite.max()) if len(finite) else (np.inf, -np.inf))


@given(arrays(np.float32, st.integers(1, 60), elements=ANY), st.integers(0, 2**32), st.integers(1, 5))
def test_order_and_parts_do_not_matter(values: Float, seed: int, num_parts: int) -> None:
    rng = np.random.default_rng(seed)
    parts = np.array_split(rng.permutation(values), num_parts)
    merged = Histogram()
    for part in parts:
        merged.merge(histogram(part))
    assert merged == histogram(*parts) == histogram(values)
    assert str(merged.low) == str(histogram(values).low)


def test_zeros_of_both_signs_give_the_same_ends_in_any_order() -> None:
    zeros = np.array([0.0, -0.0], np.float32)
    assert str(histogram(zeros).low) == str(histogram(zeros[::-1]).low) == "0.0"
    assert histogram(zeros).num_zeros == 2


def test_large_arrays_are_counted_in_pieces_and_any_strides() -> None:
    values = np.random.default_rng(0).normal(size=(3, 700, 401)).astype(np.float32)
    whole = histogram(values)
    assert whole.num_values == values.size
    assert whole == histogram(np.ascontiguousarray(values.transpose(2, 0, 1))) == histogram(values.transpose(2, 0, 1))
    assert histogram(values[:, ::3]) == histogram(values[:, ::3].copy())


@given(arrays(np.float32, st.integers(1, 60), elements=FINITE))
def test_that_of_a_relu_follows(values: Float) -> None:
    # np.maximum may keep -0.0, which is what the addition is for.
    assert histogram(values).relu() == histogram(np.maximum(values, 0) + np.float32(0))


def test_a_relu_hides_no_nan() -> None:
    assert histogram(np.array([1, -1, np.nan, -np.inf], np.float32)).relu().num_non_finite == 2


@given(arrays(np.float32, st.integers(1, 60), elements=FINITE))
def test_that_of_magnitudes_follows(values: Float) -> None:
    found, expected = histogram(values).magnitudes(), histogram(np.abs(values))
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.high == expected.high
    assert found.low <= expected.low


@given(arrays(np.float32, st.integers(1, 60), elements=FINITE))
def test_its_mass_lies_where_the_values_are(values: Float) -> None:
    mass = histogram(values).mass()
    assert mass.counts.sum() == len(values)
    assert (mass.lower <= mass.upper).all()
    assert (mass.lower[1:] >= mass.upper[:-1]).all()
    assert (mass.lower[0], mass.upper[-1]) == (values.min(), values.max())
    inside = (mass.lower <= values[:, None]) & (values[:, None] <= mass.upper)
    assert inside.any(axis=1).all()


def test_quantiles_are_those_of_the_values() -> None:
    values = np.random.default_rng(0).standard_t(3, 200_000).astype(np.float32)
    mass = histogram(values).mass()
    for fraction in (0.0, 1e-4, 0.3, 0.9, 0.9999, 1.0):
        assert mass.quantile(fraction) == pytest.approx(np.quantile(values, fraction), rel=0.01)
    positions = np.array([-3.0, -0.2, 0.0, 1.5, 1e9])
    expected = [(values <= position).sum() for position in positions]
    np.testing.assert_allclose(mass.at_most(positions), expected, rtol=0.01)
    assert mass.at_most(np.array([-1e9])) == 0


def test_other_types_are_refused() -> None:
    with pytest.raises(CalibrationError, match="float64"):
        Histogram().add(np.zeros(3))  # type: ignore[arg-type]
