from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from yolact_export.model.double_precision import run_in_double_precision
from yolact_export.model.yolact import Yolact


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 3, 97, 135)).astype(np.float32)


def test_outputs_are_those_of_the_model_to_the_precision_of_float32(
    narrow_model: Callable[..., Yolact], image: np.ndarray
) -> None:
    model = narrow_model("yolact_small")
    with torch.inference_mode():
        single = model(torch.from_numpy(image))._asdict()
    exact = run_in_double_precision(model, image)
    assert set(exact.outputs) == set(single)
    for name, value in exact.outputs.items():
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, single[name].numpy(), rtol=1e-3, atol=1e-3)
    assert 0 < exact.largest < 1e4
    # A disturbance of the last bits moves a sound network by as little, and never by nothing.
    for name, value in exact.outputs.items():
        moved = np.abs(exact.disturbed[name] - value).max()
        assert 0 < moved < 1e-4 * max(np.abs(value).max(), 1), name
    again = run_in_double_precision(model, image)
    assert all((again.disturbed[name] == value).all() for name, value in exact.disturbed.items())


@pytest.mark.parametrize(("factor", "least"), [(1e6, 1e5), (float("nan"), float("nan"))])
def test_the_layer_that_explodes_is_named(
    factor: float, least: float, narrow_model: Callable[..., Yolact], image: np.ndarray
) -> None:
    model = narrow_model("yolact_small")
    with torch.no_grad():
        model.state_dict()["prediction_layers.0.mask_layer.weight"].mul_(factor)
    exact = run_in_double_precision(model, image)
    assert exact.layer == "prediction_layers.0.mask_layer"
    assert exact.largest > least or np.isnan(least) == np.isnan(exact.largest)
