from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from yolact_calibration.errors import UsageError
from yolact_calibration.shapes.layout import draw_layout
from yolact_calibration.shapes.material import PATTERNS, draw_material
from yolact_calibration.shapes.outline import CLASS_NAMES, Window
from yolact_calibration.shapes.scene import Scene, SceneOptions, make_clip, make_scene
from yolact_runtime.masks.masks import Masks

SEEDS = range(40)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed) for seed in SEEDS]


def _digest(scene: Scene) -> str:
    """Of the truth only: it is decided far from rounding, while a colour may be rounded either way by another CPU."""
    parts = [scene.class_id, scene.shape_id, scene.mask.offset, scene.mask.start, scene.mask.end, scene.xyxy]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


def _same(first: Scene, second: Scene) -> bool:
    return bool((first.image == second.image).all()) and _digest(first) == _digest(second)


@pytest.mark.parametrize(
    ("seed", "options", "digest", "mean", "deviation"),
    [
        (0, SceneOptions(), "02cbcc6fc06e8551", 133.371, 46.960),
        (7, SceneOptions(), "872a82b42163d493", 102.965, 59.939),
        (123_456_789, SceneOptions(height=96, width=160, max_shapes=20), "cc6c8dc80cce98e8", 96.160, 45.893),
    ],
)
def test_a_seed_is_the_same_scene_for_ever(
    seed: int, options: SceneOptions, digest: str, mean: float, deviation: float
) -> None:
    # Trained weights depend on these pixels: a change here is a new version of the data set.
    scene = make_scene(seed, options)
    assert _digest(scene) == digest
    assert scene.image.mean() == pytest.approx(mean, abs=0.01)
    assert scene.image.std() == pytest.approx(deviation, abs=0.01)


def test_a_scene_is_made_alike_twice_and_differs_from_its_neighbour() -> None:
    assert _same(make_scene(3), make_scene(3))
    assert not _same(make_scene(3), make_scene(4))


def test_shapes_and_kinds_of_the_arrays() -> None:
    scene = make_scene(2, SceneOptions(height=128, width=192))
    assert (scene.image.shape, scene.image.dtype) == ((128, 192, 3), np.uint8)
    assert scene.image.flags.c_contiguous
    assert (scene.mask.height, scene.mask.width) == (128, 192)
    assert len(scene) == len(scene.mask) == len(scene.xyxy) == len(scene.shape_id) > 0
    assert (scene.class_id.dtype, scene.xyxy.dtype, scene.xyxy.shape) == (np.int64, np.float32, (len(scene), 4))


def test_the_truth_is_what_the_outlines_say(scenes: list[Scene]) -> None:
    # The layout of a seed, drawn as the scene draws it; what is visible of each shape is worked out over whole frames.
    for seed, scene in zip(SEEDS, scenes, strict=True):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        shapes = draw_layout(rng, 256, 256, 8).shapes
        outlines = [shape.placement.level(*Window(0, 0, 256, 256).pixel_centres()) < 0 for shape in shapes]
        visible = [inside & ~np.any([False * inside, *outlines[k + 1 :]], axis=0) for k, inside in enumerate(outlines)]
        assert scene.mask == Masks.from_dense(np.array(visible))
        assert scene.class_id.tolist() == [shape.placement.class_id for shape in shapes]
        for shape, mask in zip(shapes, visible, strict=True):
            whole = shape.placement.level(*shape.placement.window().pixel_centres()) < 0
            assert mask.sum() >= max(60, 0.35 * whole.sum())


def test_masks_are_disjoint_and_boxes_tight(scenes: list[Scene]) -> None:
    for scene in scenes:
        dense = scene.mask.dense()
        assert dense.sum(axis=0).max() == 1
        for mask, box in zip(dense, scene.xyxy, strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_all_classes_and_all_numbers_of_shapes_occur(scenes: list[Scene]) -> None:
    found = np.bincount(np.concatenate([scene.class_id for scene in scenes]), minlength=len(CLASS_NAMES))
    assert found.min() >= 10
    assert {len(scene) for scene in scenes} == set(range(1, 9))
    assert any(len(np.unique(scene.class_id)) < len(scene) for scene in scenes)


def test_shapes_hide_parts_of_each_other_and_are_cut_by_the_frame(scenes: list[Scene]) -> None:
    boxes = np.concatenate([scene.xyxy for scene in scenes])
    assert (boxes[:, :2] == 0).any()
    assert (boxes[:, 2:] == 256).any()
    overlapping = 0
    for scene in scenes:
        for first, second in itertools.combinations(scene.xyxy.tolist(), 2):
            overlapping += (
                first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
            )
    assert overlapping > 40


def test_sizes_grow_with_the_shorter_side() -> None:
    def median_size(options: SceneOptions) -> float:
        boxes = np.concatenate([make_scene(seed, options).xyxy for seed in range(20)])
        return float(np.median(boxes[:, 2:] - boxes[:, :2]))

    small, large = median_size(SceneOptions(128, 160)), median_size(SceneOptions(256, 320))
    assert 1.6 < large / small < 2.4


@pytest.mark.parametrize(("max_shapes", "least"), [(1, 1), (64, 8)])
def test_max_shapes_is_kept_in_empty_and_full_frames(max_shapes: int, least: int) -> None:
    counts = [len(make_scene(seed, SceneOptions(64, 64, max_shapes))) for seed in range(12)]
    assert min(counts) >= 1
    assert least <= max(counts) <= max_shapes


def test_the_picture_shows_the_shapes() -> None:
    # Across most outlines the colour changes more than it does from one pixel to the next elsewhere.
    at_outline, elsewhere = [], []
    for seed in range(10):
        scene = make_scene(seed)
        owner = scene.mask.id_map()
        step = np.abs(np.diff(scene.image.astype(float), axis=1)).sum(axis=2)
        crosses = np.diff(owner, axis=1) != 0
        at_outline.append(np.median(step[crosses]))
        elsewhere.append(np.median(step[~crosses]))
    assert np.mean(at_outline) > 2 * np.mean(elsewhere)


def test_materials_of_all_patterns_stay_between_their_two_colours() -> None:
    rng = np.random.default_rng(0)
    x, y = Window(-20, -30, 60, 50).pixel_centres()
    seen = set()
    for _ in range(40):
        material = draw_material(rng, 1.0)
        colour = material.paint(x, y)
        assert (colour.shape, colour.dtype) == ((3, 80, 80), np.float32)
        low = np.minimum(material.first, material.second)[:, None, None]
        high = np.maximum(material.first, material.second)[:, None, None]
        assert (colour >= low - 1e-6).all()
        assert (colour <= high + 1e-6).all()
        if material.pattern == "plain":
            assert (colour == material.first[:, None, None]).all()
        else:
            # Most of the way from one colour to the other is there, in every channel alike.
            share = (colour - material.first[:, None, None]) / (material.second - material.first)[:, None, None]
            assert np.ptp(share, axis=(1, 2)).min() > 0.6
            assert np.ptp(share, axis=0).max() < 1e-3
        seen.add(material.pattern)
    assert seen == set(PATTERNS)


def test_a_clip_begins_with_the_scene_of_its_seed() -> None:
    assert _same(next(make_clip(5, 3)), make_scene(5))


@pytest.mark.parametrize("seed", range(4))
def test_a_lone_shape_moves_smoothly(seed: int) -> None:
    frames = list(make_clip(seed, 40, SceneOptions(128, 128, max_shapes=1)))
    assert [len(frame) for frame in frames] == [1] * 40
    for before, after in itertools.pairwise(frames):
        # At most a quarter of the frame times the swing's speed, and some turning; every edge moves by whole pixels.
        assert np.abs(before.xyxy - after.xyxy).max() <= 6
        assert before.mask.iou(after.mask)[0, 0] > 0.3
    assert max(np.abs(frame.xyxy - frames[0].xyxy).max() for frame in frames) > 6


def test_a_shape_keeps_its_number_and_class() -> None:
    seen: dict[int, int] = {}
    for frame in make_clip(1, 60, SceneOptions(96, 96)):
        for shape_id, class_id in zip(frame.shape_id.tolist(), frame.class_id.tolist(), strict=True):
            assert seen.setdefault(shape_id, class_id) == class_id
    assert len(seen) > 3


def test_a_clip_shows_no_shape_without_truth_and_no_truth_without_shape() -> None:
    for frame in make_clip(11, 120, SceneOptions(64, 64, max_shapes=12)):
        assert (frame.mask.area() > 0).all()
        assert (np.diff(frame.shape_id) > 0).all()
        assert frame.mask.area().sum() == np.count_nonzero(frame.mask.id_map())


def test_noise_differs_from_frame_to_frame() -> None:
    first, second = (frame.image.astype(int) for frame in make_clip(4, 2))
    assert (first != second).mean() > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 63}, "height must lie between 64 and 4096, found 63"),
        ({"width": 4097}, "width must lie between 64 and 4096, found 4097"),
        ({"max_shapes": 0}, "max_shapes must be 1 to 64, found 0"),
        ({"max_shapes": 65}, "found 65"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SceneOptions(**options)


def test_bad_seeds_and_empty_clips_are_refused_at_the_call() -> None:
    with pytest.raises(UsageError, match="a seed must be 0 or more, found -1"):
        make_scene(-1)
    with pytest.raises(UsageError, match="a seed must be 0 or more, found -1"):
        make_clip(-1, 5)
    with pytest.raises(UsageError, match="1 frame or more, found 0"):
        make_clip(0, 0)
