import json

import pytest
import torch

from support.goldens import relative_error
from support.pruning import (
    FAMILIES,
    SMALL,
    MacTimer,
    plant_dead_channels,
    priors_of,
    random_image,
    random_model,
)
from support.recorder import Recorder
from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.channel_groups import WidthGrid, find_channel_groups
from yolact_calibration.pruning.prune import PruneOptions, prune
from yolact_calibration.training.distill import DistillationOptions, distillation_terms
from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint


def prune_small(options=None, model=None, **changes):
    model = model or random_model(SMALL)
    return prune(model, [random_image(SMALL, 2)], priors_of(SMALL), options, timer=MacTimer(), **changes)


@pytest.mark.parametrize("name", FAMILIES)
def test_dead_channels_go_and_nothing_changes(name):
    config = FAMILIES[name]
    model = random_model(config, 4)
    plant_dead_channels(model, find_channel_groups(model))
    image = random_image(config, 2)
    pruned = prune(model, [image], priors_of(config), PruneOptions(0.35), timer=MacTimer())
    assert all(group.lost_share == 0.0 for group in pruned.report.groups)
    before, after = pruned.report.estimated_ms
    assert after <= 0.65 * before
    with torch.no_grad():
        expected, actual = model(image), pruned.model(image)
    for output in ("box_regression", "class_logit"):
        one, other = (getattr(raw, output).numpy() for raw in (actual, expected))
        assert relative_error(one, other) < 1e-5, output
    # Masks: a channel that matters only outside the boxes of the objects is worth nothing, and may be gone.
    terms = distillation_terms(actual, expected, priors_of(config), DistillationOptions())
    assert all(abs(float(value)) < 1e-5 for value in terms.values())


@pytest.mark.parametrize("removed", [0.0, 0.2, 0.6])
@pytest.mark.parametrize("round_to", [8, 16])
def test_the_latency_and_the_multiples_that_were_asked_for(removed, round_to):
    pruned = prune_small(PruneOptions(removed, rest_share=0.0, grid=WidthGrid(round_to)))
    report = pruned.report
    before, after = report.estimated_ms
    assert after <= (1 - removed) * before + 1e-9
    assert after > (1 - removed) * before * 0.93  # not much more than that
    for group in report.groups:
        assert group.width_after == group.width_before or group.width_after % round_to == 0
        assert 0 <= group.lost_share < 1
    changed = [group for group in report.groups if group.width_after < group.width_before]
    assert bool(changed) == (removed > 0)


def test_the_dense_model_is_left_alone():
    model = random_model(SMALL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pruned = prune_small(model=model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert list(pruned.model.state_dict()) == list(before)
    assert not pruned.model.training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in pruned.model.modules())


def test_the_report_counts_what_inference_computes():
    model = random_model(FAMILIES["yolact_edge_mobilenetv2"])
    config = FAMILIES["yolact_edge_mobilenetv2"]
    report = prune(model, [random_image(config)], priors_of(config), timer=MacTimer()).report
    idle = ("backbone.layers.7.", "backbone.layers.8.", "semantic_seg_conv.")
    expected = sum(value.numel() for name, value in model.named_parameters() if not name.startswith(idle))
    assert report.num_parameters[0] == expected
    assert report.num_parameters[1] < expected


def test_the_report_is_json_and_takes_the_measured_times():
    report = prune_small().report.with_measured_ms(12.0, 7.5)
    document = json.loads(json.dumps(report.document(), allow_nan=False))
    assert document["measured_ms"] == [12.0, 7.5]
    assert document["backend"] == "multiplications"
    assert document["gflops"][0] > document["gflops"][1]
    assert set(document["block_ms"]) == {"backbone", "fpn", "proto_net", "prediction_layers"}
    assert sum(after for _, after in document["block_ms"].values()) == pytest.approx(document["estimated_ms"][1])
    # The fake timer's milliseconds are multiplications: the two counts have to agree.
    num_calls_ms = document["estimated_ms"][0] - document["gflops"][0] * 1e9 / 2 / 1e6
    assert num_calls_ms == pytest.approx(document["estimated_ms"][1] - document["gflops"][1] * 1e9 / 2 / 1e6)


def test_progress_is_told():
    told = Recorder()
    prune_small(reporter=told)
    assert told.told[0] == ("progress", "  importance 1/1")
    done, total = told.of("status")[-1].removeprefix("  latency ").split("/")
    assert done == total


def test_batch_norm_gains_prune_the_backbone():
    pruned = prune_small(PruneOptions(0.1, importance="batch-norm", blocks=("backbone",)))
    assert {group.name.partition(".")[0] for group in pruned.report.groups} == {"backbone"}
    assert pruned.model.proto_net[0].out_channels == 64


def test_batch_norm_gains_do_not_prune_the_rest():
    with pytest.raises(PruningError, match="have no batch norm"):
        prune_small(PruneOptions(0.1, importance="batch-norm"))


def test_a_pruned_model_can_be_pruned_and_loaded_again(tmp_path):
    once = prune_small(PruneOptions(0.3))
    twice = prune_small(PruneOptions(0.3), model=once.model)
    assert twice.report.num_parameters[0] == once.report.num_parameters[1]
    path = tmp_path / "yolact_small_1_2.pth"
    torch.save(twice.model.state_dict(), path)
    loaded = load_checkpoint(path, CheckpointOptions(input_size=64, prior_scales=SMALL.prior_scales_px))
    image = random_image(SMALL)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(loaded.model(image), twice.model(image), strict=True))


def test_too_much_is_refused():
    with pytest.raises(PruningError, match=r"1% of the latency cannot be reached: the narrowest model still takes"):
        prune_small(PruneOptions(0.92))


def test_images_are_needed():
    with pytest.raises(PruningError, match="there are none; give 32"):
        prune(random_model(SMALL), [], priors_of(SMALL), timer=MacTimer())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"removed_latency": 1.0}, "0 or more and below 0.93"),
        ({"removed_latency": -0.1}, "0 or more"),
        ({"importance": "l1"}, '"taylor" or'),
    ],
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(PruningError, match=message):
        PruneOptions(**options)


def test_a_model_that_sees_nothing_is_not_pruned_blindly():
    model = random_model(SMALL)
    head = model.prediction_layers[0]
    head.conf_layer.weight.data.zero_()
    head.conf_layer.bias.data.view(-1, SMALL.num_classes)[:, 0] = 30.0
    with pytest.raises(PruningError, match=r"nothing depends on \d+ groups .* finds no object"):
        prune_small(model=model)


def test_what_is_no_convolution_is_made_up_for():
    options = PruneOptions(0.4, rest_share=0.1)
    dense = 100.0
    convolutions = 0.9 * dense * options.convolution_ratio
    assert convolutions + 0.1 * dense == pytest.approx(60.0)
    assert PruneOptions(0.0).convolution_ratio == 1.0
    before, after = prune_small(options).report.estimated_ms
    assert after <= options.convolution_ratio * before
