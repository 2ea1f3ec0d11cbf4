"""Fine-tuning as a function, and the proof that it can learn: twenty pictures by heart."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.recorder import Recorder
from support.training_data import square, write_scenes, write_set
from yolact_calibration.data.augment import AugmentOptions
from yolact_calibration.data.batch import Batch
from yolact_calibration.data.dataset import AnnotatedImages, SampleSequence
from yolact_calibration.errors import TrainingError, UsageError
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.shapes.scene import CLASS_NAMES, SceneOptions, make_scene
from yolact_calibration.training.loss import YolactLoss
from yolact_calibration.training.training import Progress, Training, TrainingOptions
from yolact_export.model.backbones.small_resnet import SmallResNetConfig
from yolact_export.model.config import YolactConfig
from yolact_export.model.yolact import Yolact, create_model
from yolact_export.training.finetune import FinetuneOptions, check_outputs, evaluate_model, finetune, split_annotations
from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.masks.masks import Masks
from yolact_runtime.media.images import write_image

_NUM_PICTURES, _SIDE_PX = 20, 32


def write_close_ups(folder: Path) -> AnnotatedImages:
    """The middles of scenes in which every shape is large.

    With an input of four times their size, prototypes have their pixels, and no resampling limits what can be reached:
    at the usual sizes, masks of small shapes at the resolution of the prototypes do not reach an AP of 0.9 by far.
    """
    images: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    seed = -1
    while len(images) < _NUM_PICTURES:
        seed += 1
        scene = make_scene(seed, SceneOptions(64, 64, max_shapes=3))
        dense = scene.mask.dense()[:, 16:48, 16:48]
        visible = dense.any(axis=(1, 2))
        if not visible.any() or dense[visible].sum(axis=(1, 2)).min() < 0.12 * _SIDE_PX**2:
            continue
        name = f"{seed}.png"
        write_image(folder / name, scene.image[16:48, 16:48])
        images.append({"id": seed, "file_name": name, "height": _SIDE_PX, "width": _SIDE_PX})
        masks = Masks.from_dense(dense[visible])
        parts = zip(scene.class_id[visible].tolist(), masks.rle(), masks.bounds().tolist(), strict=True)
        for class_id, rle, (left, top, right, bottom) in parts:
            bbox = [left, top, right - left, bottom - top]
            item = {"image_id": seed, "category_id": class_id, "segmentation": rle, "bbox": bbox, "iscrowd": 0}
            items.append({"id": len(items) + 1, **item, "area": bbox[2] * bbox[3]})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASS_NAMES)]
    document = {"images": images, "annotations": items, "categories": categories}
    return AnnotatedImages.open(CocoAnnotations.from_document(document, "close-ups"), folder)


def small_model(seed: int) -> Yolact:
    config = YolactConfig(
        "close_ups",
        SmallResNetConfig(16, (1, 1, 1, 1)),
        num_classes=len(CLASS_NAMES) + 1,
        num_prototypes=12,
        fpn_channels=32,
        input_height=4 * _SIDE_PX,
        input_width=4 * _SIDE_PX,
        prior_scales_px=((48.0,), (56.0,), (72.0,), (84.0,), (100.0,)),
        square_priors=False,
    )
    torch.manual_seed(seed)
    return create_model(config)


@pytest.mark.long
def test_twenty_pictures_are_learned_by_heart(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = write_close_ups(tmp_path)
    model = small_model(seed=0)
    config = model.config
    samples = SampleSequence(data, config.input_spec(), AugmentOptions.none(), seed=0)
    batch = Batch.of([samples[k] for k in range(_NUM_PICTURES)])
    options = TrainingOptions(
        num_steps=110,
        batch_size=_NUM_PICTURES,
        learning_rate=6e-3,
        optimizer="adamw",
        weight_decay=0.0,
        warmup_steps=25,
        save_every=1000,
    )

    def batches(first: int, last: int) -> Iterator[Batch]:
        return (dataclasses.replace(batch, step=step) for step in range(first, last))

    priors = torch.from_numpy(make_priors(config.prior_spec(), config.input_height, config.input_width))
    Training(model, YolactLoss(priors), batches, options, tmp_path / "x.state", {}).run()
    accuracy = evaluate_model(model.eval(), data)
    assert accuracy.segm["AP"] is not None
    assert accuracy.bbox["AP"] is not None
    assert accuracy.segm["AP"] > 0.9
    assert accuracy.bbox["AP"] > 0.9


def test_a_model_that_has_learned_nothing_finds_nothing(tmp_path: Path) -> None:
    data = write_close_ups(tmp_path)
    accuracy = evaluate_model(small_model(seed=0).eval(), data)
    assert accuracy.segm["AP"] is not None
    assert accuracy.segm["AP"] < 0.1


def annotations_of(count: int) -> CocoAnnotations:
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 8} for i in range(count)],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return CocoAnnotations.from_document(document, "x")


def ids(annotations: CocoAnnotations | None) -> set[int]:
    assert annotations is not None
    return {image.image_id for image in annotations.images}


def test_the_split_leaves_no_image_out_and_uses_none_twice() -> None:
    whole = annotations_of(40)
    train, held = split_annotations(whole, 0.25, 3)
    assert len(ids(held)) == 10
    assert ids(train) | ids(held) == set(range(40))
    assert not ids(train) & ids(held)
    assert ids(split_annotations(whole, 0.25, 3)[1]) == ids(held)
    assert ids(split_annotations(whole, 0.25, 4)[1]) != ids(held)


def test_a_split_of_nothing_and_of_too_much() -> None:
    whole = annotations_of(4)
    assert split_annotations(whole, 0.0, 0) == (whole, None)
    assert len(ids(split_annotations(whole, 0.01, 0)[1])) == 1
    with pytest.raises(UsageError, match=r"holding back 0\.9 of 4 images leaves none to train on"):
        split_annotations(whole, 0.9, 0)
    with pytest.raises(UsageError, match=r"holding back 0\.1 of 1 images"):
        split_annotations(annotations_of(1), 0.1, 0)


def options_for(data: tuple[Path, Path], output: Path, **changes: Any) -> FinetuneOptions:
    training = TrainingOptions(
        num_steps=4, batch_size=2, optimizer="adamw", warmup_steps=1, save_every=2, evaluate_every=2
    )
    values: dict[str, Any] = {
        "source": "yolact_tiny",
        "annotations": data[0],
        "images": data[1],
        "output": output,
        "training": training,
        "validation_fraction": 0.0,
        "input_size": 64,
        "num_workers": 0,
    }
    return FinetuneOptions(**{**values, **changes})


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "set", 6)


def test_what_comes_back_is_what_lies_on_the_disk(scenes: tuple[Path, Path], tmp_path: Path) -> None:
    told = Recorder()
    reports: list[Progress] = []
    options = options_for(scenes, tmp_path / "out.pth", validation_fraction=0.3)
    result = finetune(options, told, reports.append)
    assert result.output == tmp_path / "out.pth"
    assert result.accuracy is not None
    assert result.accuracy.num_images == 2
    assert result.record["validation"] == result.accuracy.document()
    assert json.loads(options.files.record.read_text()) == json.loads(json.dumps(result.record))
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert [report.step for report in reports if report.accuracy is not None] == [2, 4]
    rows = result.record["curve"]["accuracy"]
    assert rows[-1]["mask AP"] == round(result.accuracy.segm["AP"] or 0.0, 5)
    assert "  4 images with instances to train on, 2 to measure accuracy on" in told.lines
    # Run again, the finished training is only measured again.
    again = finetune(options, told)
    assert f"  continuing after step 4, from {options.files.state}" in told.lines
    assert again.record == result.record


def test_the_last_evaluation_is_not_made_twice(
    scenes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def count(*arguments: Any) -> Any:
        calls.append(arguments)
        return evaluate_model(*arguments)

    monkeypatch.setattr("yolact_export.training.finetune.evaluate_model", count)
    finetune(options_for(scenes, tmp_path / "out.pth", validation_fraction=0.3))
    assert len(calls) == 2


def test_other_images_can_judge(scenes: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_scenes(tmp_path / "other", 3, seed=50)
    options = options_for(scenes, tmp_path / "out.pth", validation_annotations=other[0], validation_images=other[1])
    told = Recorder()
    result = finetune(options, told)
    assert "  6 images with instances to train on, 3 to measure accuracy on" in told.lines
    assert result.record["validation"]["images"] == 3
    assert not any("trained on too" in text for _, text in told.told)


def test_images_that_are_trained_on_judge_with_a_warning(scenes: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(scenes[1])
    labels = json.loads(scenes[0].read_text())
    labels["images"] = labels["images"][:2]
    kept = {image["id"] for image in labels["images"]}
    labels["annotations"] = [item for item in labels["annotations"] if item["image_id"] in kept]
    (tmp_path / "some.json").write_text(json.dumps(labels))
    more = {"validation_annotations": tmp_path / "some.json", "validation_images": tmp_path / "link"}
    told = Recorder()
    finetune(options_for(scenes, tmp_path / "out.pth", **more), told)
    (warning,) = [line for line in told.warnings if "also trained on" in line]
    assert warning.startswith("2 of the 2 images to measure accuracy on are also trained on")


def test_changed_data_is_another_training(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", [[{"segmentation": square(4, 4, 30)}]] * 2)
    finetune(options_for(data, tmp_path / "out.pth"))
    write_image(data[1] / "0.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(TrainingError, match="data_sha256 was "):
        finetune(options_for(data, tmp_path / "out.pth"))


def test_workers_do_not_change_the_result(scenes: tuple[Path, Path], tmp_path: Path) -> None:
    alone = finetune(options_for(scenes, tmp_path / "a.pth"))
    helped = finetune(options_for(scenes, tmp_path / "b.pth", num_workers=1))
    assert alone.record["curve"] == helped.record["curve"]


def test_yolact_plus_learns_to_judge_its_masks(
    scenes: tuple[Path, Path], tmp_path: Path, narrow_state: Callable[[str], dict[str, torch.Tensor]]
) -> None:
    source = tmp_path / "yolact_plus_resnet50_1_2.pth"
    before = narrow_state("yolact_plus_resnet50")
    torch.save(before, source)
    training = TrainingOptions(num_steps=2, batch_size=2, freeze_batch_norm=True, warmup_steps=1)
    options = options_for(scenes, tmp_path / "out.pth", source=str(source), input_size=256, training=training)
    record = finetune(options).record
    assert set(record["curve"]["terms"]) == {"box", "class", "mask", "semantic", "mask_iou"}
    assert all(value > 0 for value in record["curve"]["terms"]["mask_iou"])
    after = torch.load(tmp_path / "out.pth", weights_only=True)
    judge = [key for key in before if key.startswith("maskiou_net.")]
    assert len(judge) == 12
    assert any(not torch.equal(before[key], after[key]) for key in judge[:-2])


def test_outputs_that_cannot_be_written_are_found_before_the_training(
    scenes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("yolact_plugins.staging._new_file", refuse)
    with pytest.raises(OSError, match=r"Read-only file system: '.*/out\.pth'"):
        check_outputs(options_for(scenes, tmp_path / "out.pth"))


def test_outputs_are_checked_and_their_folder_made(scenes: tuple[Path, Path], tmp_path: Path) -> None:
    check_outputs(options_for(scenes, tmp_path / "a" / "b" / "out.pth"))
    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(UsageError, match=r"must end in \.pth"):
        check_outputs(options_for(scenes, tmp_path / "out.onnx"))
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(UsageError, match="which the training reads"):
        check_outputs(options_for(scenes, tmp_path / "weights.pth", backbone_weights=tmp_path / "." / "weights.pth"))
    for name in ("old.pth", "old.html"):
        (tmp_path / name).write_bytes(b"somebody's")
        with pytest.raises(UsageError, match=f"would overwrite .*{name}, which has no record or state"):
            check_outputs(options_for(scenes, tmp_path / "old.pth"))
        (tmp_path / name).write_bytes(b"")
        check_outputs(options_for(scenes, tmp_path / "old.pth"))
    (tmp_path / "old.pth").write_bytes(b"not yet recorded")
    (tmp_path / "old.pth.state").touch()
    check_outputs(options_for(scenes, tmp_path / "old.pth"))
    (tmp_path / "old.pth.state").unlink()
    (tmp_path / "old.json").write_text(json.dumps({"checkpoint": "old.pth", "curve": {}}))
    check_outputs(options_for(scenes, tmp_path / "old.pth"))
