import hashlib

import pytest
import torch

from support.configs import OWN, PUBLISHED, YOLACT_EDGE
from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint
from yolact_export.errors import CheckpointError
from yolact_export.model import class_names
from yolact_export.model.registry import CONFIGS


def findings_of(loaded):
    return "\n".join(loaded.findings)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_loads_from_its_file_name(narrow_state, save, name):
    path = save(narrow_state(name), f"{name}_54_800000.pth")
    loaded = load_checkpoint(path)
    expected = CONFIGS[name]
    assert loaded.config.name == name
    if name != "yolact_small":
        assert loaded.config.backbone == expected.backbone
    assert loaded.config.num_classes == expected.num_classes
    assert loaded.config.mask_rescoring == expected.mask_rescoring
    assert (loaded.model.mask_iou is not None) == expected.mask_rescoring
    assert loaded.config.prior_scales_px == expected.prior_scales_px
    assert loaded.config.normalisation == expected.normalisation
    assert not loaded.model.training
    assert "ASSUMED" not in findings_of(loaded)
    assert "pruned" in findings_of(loaded)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_arrive_unchanged_from_either_file_format(narrow_state, save, zipped):
    state = narrow_state("yolact_resnet50")
    loaded = load_checkpoint(save(state, "yolact_resnet50_54_800000.pth", zipped=zipped))
    for key, value in loaded.model.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("state_of", "assumed"),
    [
        ("yolact_im700", "yolact_base"),
        ("yolact_resnet50", "yolact_resnet50"),
        ("yolact_darknet53", "yolact_darknet53"),
        ("yolact_plus_base", "yolact_plus_base"),
        ("yolact_plus_resnet50", "yolact_plus_resnet50"),
        ("yolact_edge_mobilenetv2", "yolact_edge_mobilenetv2"),
        ("yolact_lite0", "yolact_lite0"),
        ("yolact_small", "yolact_small"),
    ],
)
def test_assumes_by_structure_when_asked_to_and_says_so(narrow_state, save, state_of, assumed):
    loaded = load_checkpoint(save(narrow_state(state_of), "best.pth"), CheckpointOptions(assume=True))
    assert loaded.config.name == assumed
    assert loaded.config.square_priors == CONFIGS[assumed].square_priors
    assumption = next(line for line in loaded.findings if line.startswith("ASSUMED"))
    assert "--config" in assumption
    assert "--prior-scales" in assumption
    assert '"best.pth"' in assumption


@pytest.mark.parametrize(
    "state_of", ["yolact_im400", "yolact_resnet50_pascal", "yolact_plus_resnet50", "yolact_lite0_im384", "yolact_tiny"]
)
def test_nothing_is_assumed_unasked(narrow_state, save, state_of):
    path = save(narrow_state(state_of), "my best.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert f"yolact-export '{path}' --config {state_of}  (" in message
    assert f"yolact-export '{path}' --assume" in message
    loaded = load_checkpoint(path, CheckpointOptions(config=state_of))
    assert loaded.config.name == state_of


def test_an_input_size_alone_does_not_tell_the_priors(narrow_state, save):
    path = save(narrow_state("yolact_im400"), "best.pth")
    with pytest.raises(CheckpointError, match="--input-size alone does not say which priors"):
        load_checkpoint(path, CheckpointOptions(input_size=400))
    loaded = load_checkpoint(path, CheckpointOptions(input_size=400, assume=True))
    assert loaded.config.input_height == 400
    (assumption,) = [finding for finding in loaded.findings if finding.startswith("ASSUMED")]
    assert "prior scales 24,48,96,192,384 px" in assumption
    assert "input 550" not in assumption


def test_input_size_and_prior_scales_are_enough_where_all_configurations_agree_on_the_rest(narrow_state, save):
    options = CheckpointOptions(input_size=300, prior_scales=((8.0,), (16.0,), (32.0,), (64.0,), (128.0,)))
    loaded = load_checkpoint(save(narrow_state("yolact_base"), "best.pth"), options)
    assert loaded.config.square_priors
    assert "those of yolact_base, yolact_im400, yolact_im700, yolact_edge, the known" in findings_of(loaded)
    # yolact_resnet50_pascal has priors of another shape.
    with pytest.raises(CheckpointError, match="--config yolact_resnet50_pascal"):
        load_checkpoint(save(narrow_state("yolact_resnet50"), "other.pth"), options)


def test_a_name_that_only_mentions_a_configuration_is_named_in_the_error(narrow_state, save):
    path = save(narrow_state("yolact_im400"), "yolact_im400_mine.pth")
    with pytest.raises(CheckpointError, match='which mentions yolact_im400 beside "mine"') as caught:
        load_checkpoint(path)
    first = next(line for line in str(caught.value).splitlines() if "--config" in line)
    assert "--config yolact_im400 " in first


def test_another_command_is_named_where_it_reads_the_checkpoint(narrow_state, save):
    path = save(narrow_state("yolact_base"), "best.pth")
    with pytest.raises(CheckpointError, match=r"yolact-finetune .*best\.pth --config yolact_base"):
        load_checkpoint(path, CheckpointOptions(command="yolact-finetune"))


def test_config_option_names_what_the_file_does_not(narrow_state, save):
    loaded = load_checkpoint(save(narrow_state("yolact_im700"), "best.pth"), CheckpointOptions(config="yolact_im700"))
    assert (loaded.config.input_height, loaded.config.input_width) == (700, 700)
    assert loaded.config.prior_scales_px[1] == (61.0,)
    assert "ASSUMED" not in findings_of(loaded)


def test_config_option_wins_over_the_file_name(narrow_state, save):
    path = save(narrow_state("yolact_base"), "yolact_base_1_2.pth")
    loaded = load_checkpoint(path, CheckpointOptions(config="yolact_im400"))
    assert loaded.config.input_height == 400
    assert "takes precedence" in findings_of(loaded)


@pytest.mark.parametrize(("size", "expected"), [(300, (300, 300)), ((256, 480), (256, 480))])
def test_input_size_keeps_the_prior_scales_in_pixels(narrow_state, save, size, expected):
    path = save(narrow_state("yolact_base"), "yolact_base_54_800000.pth")
    loaded = load_checkpoint(path, CheckpointOptions(input_size=size))
    assert (loaded.config.input_height, loaded.config.input_width) == expected
    assert loaded.config.prior_scales_px == PUBLISHED["yolact_base"].prior_scales_px
    assert "stay as they are in pixels" in findings_of(loaded)


def test_prior_scales_option(narrow_state, save):
    scales = ((10.0,), (20.0,), (40.0,), (80.0,), (160.0,))
    path = save(narrow_state("yolact_base"), "yolact_base_54_800000.pth")
    loaded = load_checkpoint(path, CheckpointOptions(prior_scales=scales))
    assert loaded.config.prior_scales_px == scales
    assert "from --prior-scales" in findings_of(loaded)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_wrapped_state_dict(narrow_state, save, wrapper):
    loaded = load_checkpoint(save({wrapper: narrow_state("yolact_small"), "epoch": 3, "optimizer": {}}))
    assert f'from the entry "{wrapper}"; ignored beside it: epoch, optimizer' in findings_of(loaded)


def test_prefixes_of_training_wrappers_are_removed(narrow_state, save):
    state = {f"module._orig_mod.{key}": value for key, value in narrow_state("yolact_small").items()}
    assert 'prefix "module._orig_mod." removed' in findings_of(load_checkpoint(save(state)))


def test_stale_entries_of_published_files_are_dropped(narrow_state, save):
    state = narrow_state("yolact_resnet50")
    state["fpn.downsample_layers.2.weight"] = torch.zeros(16, 16, 3, 3)
    state["fpn.downsample_layers.2.bias"] = torch.zeros(16)
    state["backbone.layer1.0.conv1.weight"] = torch.zeros(4, 4, 1, 1)
    loaded = load_checkpoint(save(state, "yolact_resnet50_54_800000.pth"))
    assert "2 entries dropped, of pyramid levels" in findings_of(loaded)
    assert "1 entries dropped, left over from an old name of the backbone" in findings_of(loaded)
    assert len(loaded.model.state_dict()) == 354


def test_batch_norm_counters_may_be_missing(narrow_state, save):
    state = {key: value for key, value in narrow_state("yolact_resnet50").items() if "num_batches" not in key}
    loaded = load_checkpoint(save(state, "yolact_resnet50.pth"))
    assert "53 missing batch norm counters" in findings_of(loaded)


def test_the_training_only_semantic_head_may_be_missing(narrow_state, save):
    state = {key: value for key, value in narrow_state("yolact_resnet50").items() if "semantic" not in key}
    loaded = load_checkpoint(save(state, "yolact_resnet50.pth"))
    assert "the semantic head (semantic_seg_conv.*), which only training uses, is missing" in findings_of(loaded)


def test_half_precision_becomes_float32(narrow_state, save):
    state = {key: value.half() if value.ndim else value for key, value in narrow_state("yolact_small").items()}
    loaded = load_checkpoint(save(state))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert "float16 converted to float32" in findings_of(loaded)


@pytest.mark.parametrize("name", YOLACT_EDGE)
def test_yolact_edge_keys_are_mapped_and_its_video_branch_dropped(narrow_state, save, name):
    published = narrow_state(name)
    state = {}
    for key, value in published.items():
        part = "fpn_phase_1." if key.startswith("fpn.lat") else "fpn_phase_2."
        state[part + key.removeprefix("fpn.") if key.startswith("fpn.") else key] = value
    state["flow_net.conv1.weight"] = torch.zeros(1)
    state["spa.lat.weight"] = torch.zeros(1)
    loaded = load_checkpoint(save(state, f"{name}_54_800000.pth"))
    assert "16 keys of its two-part pyramid" in findings_of(loaded)
    assert "2 entries dropped, of YolactEdge's video branch" in findings_of(loaded)
    assert torch.equal(loaded.model.fpn.pred_layers[2].weight, published["fpn.pred_layers.2.weight"])


def test_deformable_blocks_may_be_anywhere(narrow_state, save):
    state = narrow_state("yolact_plus_resnet50")
    dropped = "backbone.layers.2.3.conv2"
    state = {key: v for key, v in state.items() if not key.startswith((f"{dropped}.bias", f"{dropped}.conv_offset"))}
    loaded = load_checkpoint(save(state, "yolact_plus_resnet50_54_800000.pth"))
    assert loaded.config.backbone.deformable[2] == (0, 1, 2, 4, 5)


def test_mask_rescoring_follows_the_tensors(narrow_state, save):
    state = {k: v for k, v in narrow_state("yolact_plus_resnet50").items() if not k.startswith("maskiou_net.")}
    loaded = load_checkpoint(save(state, "yolact_plus_resnet50_54_800000.pth"))
    assert not loaded.config.mask_rescoring
    assert "has no maskiou_net" in findings_of(loaded)


def with_classes(state, num_classes):
    """The same model for another number of classes."""
    changed = dict(state)
    for leaf in ("weight", "bias"):
        layer = f"prediction_layers.0.conf_layer.{leaf}"
        changed[layer] = state[layer][: 3 * num_classes].clone()
        changed[f"semantic_seg_conv.{leaf}"] = state[f"semantic_seg_conv.{leaf}"][: num_classes - 1].clone()
    return changed


@pytest.mark.parametrize("num_classes", [2, 5])
def test_custom_classes_are_numbered_until_they_are_named(narrow_state, save, num_classes):
    path = save(with_classes(narrow_state("yolact_base"), num_classes), "yolact_base_10_4000.pth")
    loaded = load_checkpoint(path)
    assert loaded.config.num_classes == num_classes
    assert loaded.class_names == class_names.numbered(num_classes - 1)
    assert "--class-names" in findings_of(loaded)
    names = [f"part {index}" for index in range(num_classes - 1)]
    assert load_checkpoint(path, CheckpointOptions(class_names=names)).class_names == tuple(names)


def test_known_data_sets_name_their_classes(narrow_state, save):
    coco = load_checkpoint(save(narrow_state("yolact_base"), "yolact_base.pth"))
    pascal = load_checkpoint(save(narrow_state("yolact_resnet50_pascal"), "yolact_resnet50_pascal.pth"))
    unnamed = load_checkpoint(
        save(narrow_state("yolact_resnet50_pascal"), "best.pth"), CheckpointOptions(config="yolact_resnet50")
    )
    assert coco.class_names == class_names.COCO
    assert pascal.class_names == class_names.PASCAL
    assert unnamed.class_names == class_names.numbered(20)


def test_findings_are_logged(narrow_state, save, caplog):
    caplog.set_level("INFO", logger="yolact_export.checkpoint.checkpoint")
    loaded = load_checkpoint(save(narrow_state("yolact_small")))
    assert [record.args[1] for record in caplog.records] == list(loaded.findings)


def test_own_configurations_have_no_published_weights():
    assert not set(OWN) & set(PUBLISHED)
