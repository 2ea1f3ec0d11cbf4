"""Tensors outside of a model are found wherever ONNX lets them be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from support.properties import examples
from support.scenes import Thing, write_bundle
from yolact_runtime import Segmenter, open_bundle
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.errors import BackendError, BundleError
from yolact_runtime.model.bundle import MANIFEST_NAME, file_sha256
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.onnx_tensors import MESSAGES, require_own_tensors

PATH = Path("m.onnx")
same_folder = [HealthCheck.function_scoped_fixture]


def _leads_to_a_tensor(message: Any, seen: frozenset[str] = frozenset()) -> bool:
    if message.name == "TensorProto":
        return True
    inner = [
        field.message_type for field in message.fields if field.message_type and field.message_type.name not in seen
    ]
    return any(_leads_to_a_tensor(other, seen | {message.name}) for other in inner)


def test_the_walk_knows_every_field_that_leads_to_a_tensor() -> None:
    """Of the onnx package that is installed: a release that adds a place for tensors fails here."""
    found: dict[str, dict[int, str]] = {}
    waiting = [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name in found or message.name == "TensorProto":
            continue
        leading = [field for field in message.fields if field.message_type and _leads_to_a_tensor(field.message_type)]
        found[message.name] = {field.number: field.message_type.name for field in leading}
        waiting += [field.message_type for field in leading]
    assert found == MESSAGES
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["data_location"].number == 14
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["name"].number == 8


def _tensor(external: bool, name: str = "outside") -> TensorProto:
    tensor = numpy_helper.from_array(np.arange(3, dtype=np.float32), name)
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def _graph(name: str = "g") -> onnx.GraphProto:
    return helper.make_graph([], name, [], [])


def _model(graph: onnx.GraphProto | None = None) -> onnx.ModelProto:
    return helper.make_model(graph or _graph())


def _sparse(tensor: TensorProto, as_indices: bool) -> onnx.SparseTensorProto:
    sparse = onnx.SparseTensorProto()
    (sparse.indices if as_indices else sparse.values).CopyFrom(tensor)
    return sparse


def _with_attribute(**fields: Any) -> onnx.ModelProto:
    model = _model()
    attribute = model.graph.node.add(op_type="Constant").attribute.add(name="value")
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(attribute, name).extend(value)
        else:
            getattr(attribute, name).CopyFrom(value)
    return model


def _initializer(tensor: TensorProto) -> onnx.ModelProto:
    model = _model()
    model.graph.initializer.append(tensor)
    return model


def _subgraph(tensor: TensorProto, depth: int = 1) -> onnx.ModelProto:
    graph = _graph("inner")
    graph.initializer.append(tensor)
    for _ in range(depth):
        outer = _graph("outer")
        outer.node.add(op_type="If").attribute.add(name="then_branch").g.CopyFrom(graph)
        graph = outer
    return _model(graph)


def _function(tensor: TensorProto, as_default: bool) -> onnx.ModelProto:
    model = _model()
    function = model.functions.add(name="f", domain="d")
    if as_default:
        function.attribute_proto.add(name="a").t.CopyFrom(tensor)
    else:
        function.node.add(op_type="Constant").attribute.add(name="value").t.CopyFrom(tensor)
    return model


def _training(tensor: TensorProto, field: str) -> onnx.ModelProto:
    model = _model()
    getattr(model.training_info.add(), field).initializer.append(tensor)
    return model


def _sparse_initializer(tensor: TensorProto, as_indices: bool) -> onnx.ModelProto:
    model = _model()
    model.graph.sparse_initializer.append(_sparse(tensor, as_indices))
    return model


def _graphs(tensor: TensorProto) -> onnx.ModelProto:
    graph = _graph("one of several")
    graph.initializer.append(tensor)
    return _with_attribute(graphs=[_graph(), graph])


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "an initializer": _initializer,
    "values of a sparse initializer": lambda t: _sparse_initializer(t, as_indices=False),
    "indices of a sparse initializer": lambda t: _sparse_initializer(t, as_indices=True),
    "a constant": lambda t: _with_attribute(t=t),
    "one of several tensors of an attribute": lambda t: _with_attribute(tensors=[_tensor(False), t]),
    "a sparse tensor of an attribute": lambda t: _with_attribute(sparse_tensor=_sparse(t, as_indices=False)),
    "one of several of those": lambda t: _with_attribute(sparse_tensors=[_sparse(t, as_indices=True)]),
    "a branch": _subgraph,
    "a branch of a branch": lambda t: _subgraph(t, 12),
    "one of several graphs": _graphs,
    "a function": lambda t: _function(t, as_default=False),
    "a default of a function": lambda t: _function(t, as_default=True),
    "what a training begins with": lambda t: _training(t, "initialization"),
    "a training": lambda t: _training(t, "algorithm"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_outside_is_found_in(place: str) -> None:
    require_own_tensors(PLACES[place](_tensor(external=False)).SerializeToString(), PATH)
    with pytest.raises(BundleError, match=r'm\.onnx keeps its tensor "outside" in another file .*external data'):
        require_own_tensors(PLACES[place](_tensor(external=True)).SerializeToString(), PATH)


def _field(number: int, content: bytes) -> bytes:
    length = len(content)
    out = bytes([number << 3 | 2])
    while length > 0x7F:
        out += bytes([length & 0x7F | 0x80])
        length >>= 7
    return out + bytes([length]) + content


@pytest.mark.parametrize(
    "location",
    [
        b"\x70\x01",
        b"\x70\x81\x00",  # 1 in two bytes
        b"\x70\x81\x80\x80\x80\x10",  # 2^32 + 1, which is 1 for who keeps 32 bits
        b"\x70\x00\x70\x01",
        b"\x70\x01\x70\x00",
        b"\x70\x02",
    ],
)
def test_every_way_to_write_the_location(location: bytes) -> None:
    tensor = _tensor(external=False).SerializeToString()
    require_own_tensors(_field(7, _field(5, tensor + b"\x70\x00")), PATH)
    with pytest.raises(BundleError, match="in another file"):
        require_own_tensors(_field(7, _field(5, location + tensor)), PATH)


def test_a_graph_that_comes_in_two_parts_is_one() -> None:
    """Protobuf puts the parts of a message together, which whoever looks at the first one only overlooks."""
    inside, outside = (_initializer(_tensor(external)).SerializeToString() for external in (False, True))
    for parts in (inside + outside, outside + inside):
        assert len(onnx.ModelProto.FromString(parts).graph.initializer) == 2
        with pytest.raises(BundleError, match="in another file"):
            require_own_tensors(parts, PATH)


def test_deep_graphs_do_not_exhaust_the_stack() -> None:
    content = _tensor(external=True).SerializeToString()
    content = _field(5, content)
    for _ in range(3000):
        content = _field(1, _field(5, _field(6, content)))
    with pytest.raises(BundleError, match="in another file"):
        require_own_tensors(_field(7, content), PATH)


@examples(150)
@given(st.sampled_from(sorted(PLACES)), st.integers(0, 2**31), st.integers(1, 255))
def test_whatever_the_onnx_package_reads_as_outside_is_refused(place: str, position: int, change: int) -> None:
    content = bytearray(PLACES[place](_tensor(external=True)).SerializeToString())
    content[position % len(content)] ^= change
    try:
        model = onnx.ModelProto.FromString(bytes(content))
    except Exception:  # not a message any more: ONNX Runtime reads it as little
        model = onnx.ModelProto()
    try:
        require_own_tensors(bytes(content), PATH)
    except BundleError:
        return
    assert not any(tensor.data_location == TensorProto.EXTERNAL for tensor in _tensors(model))


def _tensors(message: Any) -> list[TensorProto]:
    if isinstance(message, TensorProto):
        return [message]
    found = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                found += _tensors(item)
    return found


@examples(200)
@given(st.binary(max_size=300))
def test_anything_else_ends_in_an_error_or_not_at_all(content: bytes) -> None:
    try:
        ModelFile.of_onnx(PATH, content).metadata()
    except BundleError as error:
        assert "m.onnx" in str(error)  # noqa: PT017 - either may happen


def test_the_format_of_onnx_runtime_is_not_taken(tmp_path: Path) -> None:
    # A field that nobody knows, which holds the mark where ONNX Runtime looks for it.
    content = b"\x98\x06\x01" + _field(15, b"RTM")[:1]
    content = b"\xb8\x06\x00\xa2" + b"ORTM" + bytes(8)
    with pytest.raises(BundleError, match="is in ONNX Runtime's own format"):
        require_own_tensors(content, PATH)


# --- where models are opened ------------------------------------------------------------------------------------------


def _move_weights_out(path: Path) -> None:
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def test_a_bundle_whose_network_has_weights_outside(tmp_path: Path) -> None:
    """Its hash fits: who wrote it may have meant it, and it is refused all the same."""
    folder = write_bundle(tmp_path / "b", [Thing((0.25, 0.25, 0.75, 0.75))])
    before = file_sha256(folder / "model.fp32.onnx"), (folder / "model.fp32.onnx").stat().st_size
    _move_weights_out(folder / "model.fp32.onnx")
    after = file_sha256(folder / "model.fp32.onnx"), (folder / "model.fp32.onnx").stat().st_size
    text = (folder / MANIFEST_NAME).read_text().replace(before[0], after[0])
    (folder / MANIFEST_NAME).write_text(text.replace(f'"size_bytes": {before[1]}', f'"size_bytes": {after[1]}'))
    alone = Path(shutil.copytree(folder, tmp_path / "alone")) / "model.fp32.onnx"
    for path in (folder, alone):
        for work in (open_bundle, Segmenter.open):
            with pytest.raises(BundleError, match=r"model\.fp32\.onnx keeps its tensor .* in another file"):
                work(path)
    with pytest.raises(BackendError, match=r"cannot load .*keeps its tensor .* in another file"):
        OnnxRuntimeBackend(alone)
