from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from support.properties import examples
from yolact_runtime.errors import BundleError
from yolact_runtime.model.onnx_metadata import read_metadata

# One folder for all examples: each writes the file anew.
same_folder = [HealthCheck.function_scoped_fixture]
# Protobuf wire types.
VARINT, FIXED64, BYTES, GROUP, FIXED32 = 0, 1, 2, 3, 5


def _model(properties: dict[str, str]) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [weight],
    )
    model = helper.make_model(
        graph,
        producer_name="tests",
        producer_version="1",
        domain="example",
        model_version=3,
        doc_string="a model",
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("other", 1)],
    )
    helper.set_model_props(model, properties)
    return model


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _field(number: int, kind: int, content: bytes) -> bytes:
    return _varint(number * 8 + kind) + (_varint(len(content)) if kind == BYTES else b"") + content


def _property(key: str, value: str) -> bytes:
    return _field(14, BYTES, _field(1, BYTES, key.encode()) + _field(2, BYTES, value.encode()))


@examples(60, suppress_health_check=same_folder)
@given(st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=5))
def test_reads_what_the_onnx_package_wrote(tmp_path: Path, properties: dict[str, str]) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(_model(properties), path)
    assert read_metadata(path) == properties


def test_a_model_whose_weights_lie_outside(tmp_path: Path) -> None:
    onnx.save(
        _model({"key": "value"}), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert read_metadata(tmp_path / "m.onnx") == {"key": "value"}


def test_a_long_value(tmp_path: Path) -> None:
    onnx.save(_model({"a": "x" * 300000, "b": "é猫"}), tmp_path / "m.onnx")
    assert read_metadata(tmp_path / "m.onnx") == {"a": "x" * 300000, "b": "é猫"}


def test_what_is_longer_than_any_model_is_not_read(tmp_path: Path) -> None:
    size = 1 << 40  # a hole in the file; nobody can read it into memory
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        head = _varint(7 * 8 + BYTES) + _varint(size)
        file.write(head)
        file.seek(len(head) + size)
        file.write(_property("key", "value"))
    with pytest.raises(BundleError, match=r"large\.onnx is longer than 2\.1 GB: it is not an ONNX model"):
        read_metadata(path)


def test_fields_of_every_kind_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(
        _field(100, VARINT, _varint(2**64 - 1))
        + _field(101, FIXED64, bytes(8))
        + _field(102, FIXED32, bytes(4))
        + _field(103, BYTES, b"")
        + _field(14, VARINT, b"\x05")  # the number of the metadata, but not a message
        + _property("key", "value")
        + _field(2**28, VARINT, b"\x01")
    )
    assert read_metadata(path) == {"key": "value"}


def test_unknown_fields_inside_an_entry_are_skipped(tmp_path: Path) -> None:
    entry = _field(9, VARINT, b"\x01") + _field(2, BYTES, b"value") + _field(1, BYTES, b"key") + _field(3, BYTES, b"z")
    (tmp_path / "m.onnx").write_bytes(_field(14, BYTES, entry))
    assert read_metadata(tmp_path / "m.onnx") == {"key": "value"}


def test_an_entry_without_a_value(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(_field(14, BYTES, _field(1, BYTES, b"key")))
    assert read_metadata(tmp_path / "m.onnx") == {"key": ""}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x00\x01", "field number 0"),
        (_field(5, GROUP, b""), "field 5 does not fit"),
        (bytes([5 * 8 + 4]), "field 5 does not fit"),
        (bytes([5 * 8 + 7]), "field 5 does not fit"),
        (b"\x80", "cut-off number"),
        (b"\xff" * 20, "cut-off number"),
        (_varint(7 * 8 + VARINT) + b"\x80" * 10 + b"\x01", "cut-off number"),  # more than 64 bits
        (_varint(7 * 8 + BYTES) + _varint(2**63) + b"abc", "field 7 does not fit"),
        (_varint(7 * 8 + BYTES) + _varint(4) + b"abc", "field 7 does not fit"),
        (_varint(7 * 8 + FIXED64) + b"abc", "field 7 does not fit"),
        (_varint(7 * 8 + FIXED32) + b"abc", "field 7 does not fit"),
        (_varint(7 * 8 + BYTES), "cut-off number"),
        (_field(14, BYTES, _field(1, BYTES, b"\xff\xfe")), "utf-8"),
        (_field(14, BYTES, b"\x0a\x7fx"), "field 1 does not fit"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"m\.onnx is not an ONNX model \(.*{reason}.*cut short"):
        read_metadata(path)


def test_a_model_cut_short_at_any_byte_gives_a_bundle_error_or_loses_its_metadata(tmp_path: Path) -> None:
    whole = _model({"key": "value"}).SerializeToString()
    path = tmp_path / "m.onnx"
    outcomes = set()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            metadata = read_metadata(path)
        except BundleError:
            outcomes.add("refused")
        else:
            assert metadata in ({}, {"key": "value"})  # cut between two fields
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


@examples(300, suppress_health_check=same_folder)
@given(st.binary(max_size=60))
def test_random_bytes_give_a_dictionary_or_a_bundle_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    try:
        metadata = read_metadata(path)
    except BundleError:
        return
    assert isinstance(metadata, dict)


@examples(200, suppress_health_check=same_folder)
@given(st.data())
def test_one_wrong_byte_gives_a_dictionary_or_a_bundle_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(_model({"key": "value"}).SerializeToString())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    try:
        read_metadata(path)
    except BundleError:
        return


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*missing\.onnx: No such file"):
        read_metadata(tmp_path / "missing.onnx")
    with pytest.raises(BundleError, match=r"cannot read .*: Is a directory"):
        read_metadata(tmp_path)


def test_a_file_without_fields_has_no_metadata(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    assert read_metadata(tmp_path / "m.onnx") == {}
