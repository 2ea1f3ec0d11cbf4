"""Box geometry against the runtime's references, which are NumPy and written apart."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_calibration.training import boxes
from yolact_plugins import reference

VARIANCES = (0.1, 0.2)


def random_corners(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre_size = torch.rand(*shape, 4, generator=generator) * 0.6 + 0.02
    return boxes.to_corners(centre_size)


@examples(50)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 12), m=st.integers(1, 12))
def test_iou_is_the_reference(seed: int, n: int, m: int) -> None:
    a, b = random_corners(seed, n), random_corners(seed + 1, m)
    found = boxes.pairwise_iou(a, b).numpy()
    np.testing.assert_allclose(found, reference.iou(a.numpy(), b.numpy()), atol=1e-6)


@examples(50)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 12))
def test_decode_is_the_reference_and_encode_its_inverse(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    regression = torch.randn(n, 4, generator=generator)
    priors = torch.rand(n, 4, generator=generator) * 0.5 + 0.05
    found = boxes.decode(regression, priors, VARIANCES)
    np.testing.assert_allclose(found.numpy(), reference.decode(regression.numpy(), priors.numpy()), atol=1e-6)
    np.testing.assert_allclose(boxes.encode(found, priors, VARIANCES), regression, atol=1e-3)


@examples(100)
@given(
    box=st.tuples(*[st.floats(-0.5, 1.5, width=32)] * 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_the_cells_of_a_box_are_those_of_the_reference_crop(
    box: tuple[float, float, float, float], height: int, width: int
) -> None:
    left, top, right, bottom = min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])
    rows, columns = boxes.cell_mask(torch.tensor([left, top, right, bottom]), height, width)
    for found, low, high, size in ((rows, top, bottom, height), (columns, left, right, width)):
        first, last = reference.crop_window(np.float32(low), np.float32(high), size)
        expected = np.zeros(size, bool)
        expected[first:last] = True
        np.testing.assert_array_equal(found.numpy(), expected)


def test_leading_dimensions_broadcast() -> None:
    many = random_corners(3, 2, 5)
    found = boxes.pairwise_iou(many, many)
    for image in range(2):
        assert torch.equal(found[image], boxes.pairwise_iou(many[image], many[image]))
    rows, columns = boxes.cell_mask(many, 7, 9)
    assert rows.shape == (2, 5, 7)
    assert columns.shape == (2, 5, 9)


def test_an_empty_box_has_no_overlap_and_a_finite_regression() -> None:
    box = torch.tensor([[0.3, 0.3, 0.3, 0.3]])
    prior = torch.tensor([[0.3, 0.3, 0.1, 0.1]])
    inside_out = torch.tensor([[0.6, 0.6, 0.2, 0.2]])
    assert boxes.pairwise_iou(box, box).tolist() == [[0.0]]
    assert boxes.pairwise_iou(box, boxes.to_corners(prior)).tolist() == [[0.0]]
    assert boxes.area(inside_out).tolist() == [0.0]
    assert torch.isfinite(boxes.encode(box, prior, VARIANCES)).all()
