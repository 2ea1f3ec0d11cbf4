"""Pictures that belong to nobody."""

from __future__ import annotations

import numpy as np

from yolact_export.drawing import draw_frame


def test_a_drawn_frame_is_the_same_every_time_and_has_no_flat_channel() -> None:
    frame = draw_frame(48, 64)
    assert (frame.shape, frame.dtype) == ((48, 64, 3), np.uint8)
    np.testing.assert_array_equal(frame, draw_frame(48, 64))
    assert all(frame[..., channel].std() > 30 for channel in range(3))


def test_variants_and_grain_differ() -> None:
    frames = [draw_frame(48, 64, variant, grain) for variant in range(3) for grain in (False, True)]
    assert len({frame.tobytes() for frame in frames}) == 6
    assert np.abs(frames[0].astype(int) - frames[1]).max() <= 16
