"""The parts of the model in a network's file, read without the onnx package."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.pruning import FAMILIES
from support.quantised import float_network, observed_ranges
from yolact_calibration.float16.conversion import to_float16
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq import quantise
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_runtime.errors import BundleError
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.network_parts import FIELDS, derive_parts, read_parts

_CONVERTING = {"QuantizeLinear", "DequantizeLinear", "Cast"}


def parts_of(model: onnx.ModelProto | bytes) -> dict[str, str]:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return read_parts(ModelFile(Path("model.onnx"), content))


def test_the_fields_are_those_of_onnx() -> None:
    for message, numbers in FIELDS.items():
        kind = onnx
        for name in message.split("."):
            kind = getattr(kind, name)
        known = kind.DESCRIPTOR.fields_by_name  # type: ignore[attr-defined]
        assert {name: known[name].number for name in numbers} == numbers


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_node_and_what_it_makes_has_a_part(family: str) -> None:
    model = float_network(family)
    found = parts_of(model)
    for name, part in NetworkGraph(model).parts.items():
        assert found[name] == part
    outputs = ("box_regression", "class_logit", "mask_coefficient", "prototype")
    assert [found[name] for name in outputs] == ["box head", "class head", "mask head", "protonet"]
    assert set(found) == {name for node in model.graph.node for name in (node.name, *node.output)}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_parts_that_were_not_written_are_derived(family: str) -> None:
    single = float_network(family)
    names = [convolution.name for convolution in NetworkGraph(single).convolutions]
    mixed = to_float16(quantise(single, observed_ranges(single), names[::2], Dialect.TENSORRT)).model
    for model in (single, mixed):
        written = parts_of(model)
        for node in model.graph.node:
            node.ClearField("metadata_props")
        derived = parts_of(model)
        assert derived.keys() == written.keys()
        # A node that converts has the name of what it reads, not of the part that it feeds.
        computing = {node.name for node in model.graph.node if node.op_type not in _CONVERTING}
        assert {name: derived[name] for name in computing} == {name: written[name] for name in computing}
        assert "other" not in derived.values()


@pytest.mark.parametrize(
    ("name", "stride", "part"),
    [
        ("normalisation", 1, "normalisation"),
        ("image.quantize", 1, "stem"),
        ("backbone.conv1.weight.dequantize", None, "stem"),
        ("backbone.layers.2.0.downsample.0", 16, "res4"),
        ("backbone.layers.1.2.add.half.cast", None, "res3"),
        ("backbone.layers.3.1.conv2.conv_offset_mask.split", 32, "deformable offsets"),
        ("prediction_layers.0.conf_layer.P7.rows", None, "class head"),
        ("maskiou_net.max", None, "mask IoU"),
        ("Transpose_token_80", 4, "other"),
    ],
)
def test_names_tell_parts(name: str, stride: int | None, part: str) -> None:
    assert derive_parts({"backbone.layers.0.0.conv1": 4, name: stride})[name] == part


ADDED = ["weight", "bias", "float", "half", "single", "quantize", "dequantize", "dequantized", "quantized", "cast"]


@examples(150)
@given(
    st.sampled_from(["fpn.lat_layers.0", "proto_net.0", "class_logit", "image", "other.name", "", "."]),
    st.lists(st.sampled_from(ADDED)),
)
def test_what_is_added_to_a_name_does_not_change_its_part(name: str, added: list[str]) -> None:
    whole = ".".join([name, *added])
    assert derive_parts({whole: None})[whole] == derive_parts({name: None})[name]


def test_a_name_of_a_million_characters_is_read_at_once() -> None:
    """Names of a file may be of any length; a pattern that tries each beginning would not come back from this one."""
    for name in (".float" * 200_000 + "x", "." * 1_000_000, "a.conv_offset_mas" * 60_000, "backbone.layers." * 60_000):
        assert derive_parts({name: None})[name] in ("other", "backbone")


def test_blocks_that_share_their_names_with_a_resnet_are_told_apart() -> None:
    # DarkNet: its convolutions lie one level deeper.
    strides = {"backbone.layers.1.1.conv1.0": 4, "backbone.layers.1.1.add": 4, "backbone.layers.1.0.0": None}
    assert list(derive_parts(strides).values()) == ["backbone /4", "backbone /4", "backbone"]


@given(
    keep=st.integers(0, 1 << 20),
    place=st.integers(0, 1 << 20),
    change=st.binary(max_size=6),
)
@examples(150)
def test_a_damaged_file_is_refused_or_read(keep: int, place: int, change: bytes) -> None:
    content = _BYTES[: keep % (len(_BYTES) + 1)]
    place %= len(content) + 1
    damaged = content[:place] + change + content[place + len(change) :]
    try:
        found = parts_of(damaged)
    except BundleError:
        with pytest.raises(BundleError, match=r"model\.onnx is not a whole ONNX model"):
            parts_of(damaged)
    else:
        assert all(isinstance(name, str) and isinstance(part, str) for name, part in found.items())


def _without_weights() -> bytes:
    model = float_network()
    del model.graph.initializer[:]
    for node in model.graph.node[::2]:
        node.ClearField("metadata_props")
    return model.SerializeToString()


_BYTES = _without_weights()
