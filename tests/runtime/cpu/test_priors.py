from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.model.manifest import PriorSpec

GOLDENS = Path(__file__).parents[2] / "goldens" / "official"
RATIOS = (1.0, 0.5, 2.0)
COCO_SCALES = (24.0, 48.0, 96.0, 192.0, 384.0)


def _published(max_size: int, scales: tuple[tuple[float, ...], ...], square: bool) -> PriorSpec:
    """Feature maps of a square input: every stride-2 layer rounds up, P3 comes after three of them."""
    side, sizes = max_size, []
    for level in range(8):
        side = math.ceil(side / 2)
        if level > 1 and len(sizes) < 5:
            sizes.append((side, side))
    return PriorSpec(tuple(sizes), scales, RATIOS, square)


def _one_scale(scales: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    return tuple((scale,) for scale in scales)


MODELS = {
    "550 square": (550, _published(550, _one_scale(COCO_SCALES), True)),
    "im700": (700, _published(700, _one_scale(tuple(int(s / 550 * 700) for s in COCO_SCALES)), True)),
    "im400": (400, _published(400, _one_scale(tuple(int(s / 550 * 400) for s in COCO_SCALES)), True)),
    "pascal": (550, _published(550, _one_scale((32.0, 64.0, 128.0, 256.0, 512.0)), False)),
    "plus": (550, _published(550, tuple(tuple(s * 2 ** (j / 3) for j in range(3)) for s in COCO_SCALES), False)),
}


def _priors(name: str) -> np.ndarray:
    size, spec = MODELS[name]
    return make_priors(spec, size, size)


@pytest.mark.parametrize(
    ("name", "count", "sums"),
    [
        ("550 square", 19248, (9624.0, 9624.0, 1301.4203, 1301.4203)),
        ("im700", 30963, (15481.5, 15481.5, 2035.7965, 2035.7965)),
        ("im400", 10077, (5038.5, 5038.5, 676.4369, 676.4369)),
        ("pascal", 19248, (9624.0, 9624.0, 1735.2271, 1735.2271)),
        ("plus", 57744, (28872.0, 28872.0, 5006.9832, 5006.9832)),
    ],
)
def test_counts_and_sums_of_the_published_models(name: str, count: int, sums: tuple[float, ...]) -> None:
    priors = _priors(name)
    assert priors.shape == (count, 4)
    assert priors.dtype == np.float32
    assert MODELS[name][1].num_priors == count
    np.testing.assert_allclose(priors.sum(axis=0, dtype=np.float64), sums, rtol=0, atol=5e-4)


def test_first_and_last_priors_at_550_with_square_anchors() -> None:
    priors = _priors("550 square")
    np.testing.assert_allclose(priors[0], [0.00724638, 0.00724638, 0.04363636, 0.04363636], atol=5e-9)
    np.testing.assert_allclose(priors[1, 2:], 0.03085557, atol=5e-9)
    np.testing.assert_allclose(priors[2, 2:], 0.06171114, atol=5e-9)
    np.testing.assert_allclose(priors[3, :2], [0.02173913, 0.00724638], atol=5e-9)
    np.testing.assert_allclose(priors[-1], [0.9, 0.9, 0.98737818, 0.98737818], atol=5e-8)


def test_pascal_anchors_are_not_square() -> None:
    priors = _priors("pascal")
    np.testing.assert_allclose(priors[1, 2:], [0.04114076, 0.08228152], atol=5e-9)
    np.testing.assert_allclose(priors[-1, 2:], [1.31650424, 0.65825212], atol=6e-8)


def test_plus_anchors_run_through_the_ratios_before_the_next_scale() -> None:
    priors = _priors("plus")
    np.testing.assert_allclose(priors[1, 2:], [0.03085557, 0.06171114], atol=5e-9)
    np.testing.assert_allclose(priors[3, 2:], [0.05497837, 0.05497837], atol=5e-9)
    np.testing.assert_allclose(priors[-1, 2:], [1.56736517, 0.78368258], atol=6e-8)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("yolact_resnet50", "550 square"),
        ("yolact_base", "550 square"),
        ("yolact_im400", "im400"),
        ("yolact_plus_resnet50", "plus"),
    ],
)
def test_priors_equal_those_of_the_original_implementation_bit_for_bit(config: str, name: str) -> None:
    with np.load(GOLDENS / f"{config}.npz") as golden:
        expected = golden["priors"]
    flat = _priors(name).ravel()
    np.testing.assert_array_equal(flat[:: max(1, flat.size // 4096)][:4096], expected)


def test_columns_run_fastest_and_axes_are_not_mixed_up() -> None:
    spec = PriorSpec(((2, 3),), ((10.0,),), (4.0,), square=False)
    expected = [[(x + 0.5) / 3, (y + 0.5) / 2, 20 / 100, 5 / 50] for y in range(2) for x in range(3)]
    np.testing.assert_allclose(make_priors(spec, height=50, width=100), expected, rtol=1e-7)


def test_square_takes_the_computed_width_in_pixels_as_height_too() -> None:
    spec = PriorSpec(((1, 1),), ((10.0,),), (4.0,), square=True)
    np.testing.assert_allclose(make_priors(spec, height=50, width=100), [[0.5, 0.5, 20 / 100, 20 / 50]], rtol=1e-7)


def test_levels_follow_each_other_and_scales_come_before_ratios() -> None:
    spec = PriorSpec(((1, 1), (1, 1)), ((2.0, 3.0), (5.0,)), (1.0, 4.0), square=True)
    widths = make_priors(spec, 1, 1)[:, 2]
    assert widths.tolist() == [2, 4, 3, 6, 5, 10]
    assert spec.num_priors == 6


def test_priors_are_not_clipped() -> None:
    spec = PriorSpec(((1, 1),), ((300.0,),), (1.0,), square=False)
    assert make_priors(spec, 100, 100)[0].tolist() == [0.5, 0.5, 3, 3]


def test_callers_own_the_array() -> None:
    spec = dataclasses.replace(MODELS["im400"][1])
    first = make_priors(spec, 400, 400)
    first[:] = 0
    assert make_priors(spec, 400, 400).any()
