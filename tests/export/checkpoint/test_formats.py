"""Files that are no checkpoint, each named for what it is."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import shlex
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.checkpoint.checkpoint import load_checkpoint
from yolact_export.checkpoint.formats import describe_file, describe_folder
from yolact_export.errors import CheckpointError


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "weights_only" not in message
    assert len(message.splitlines()) == 1
    return message


def packed(names: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return target.getvalue()


def tarred(name: str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return target.getvalue()


def arrays() -> bytes:
    target = io.BytesIO()
    np.savez(target, weight=np.ones(3))
    return target.getvalue()


def array() -> bytes:
    target = io.BytesIO()
    np.save(target, np.ones(3))
    return target.getvalue()


def onnx_model() -> bytes:
    graph = onnx.helper.make_graph([], "g", [], [])
    return bytes(onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString())


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def torchscript() -> bytes:
    target = io.BytesIO()
    with warnings.catch_warnings():
        # TorchScript is deprecated, and its files are there.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)), target)
    return target.getvalue()


FORMATS: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip of a checkpoint": (
        lambda: packed({"readme.txt": b"", "yolact_base.pth": b"x"}),
        r"a zip file with readme\.txt, yolact_base\.pth; unpack it: unzip .+, and give yolact_base\.pth",
    ),
    "zip of many": (lambda: packed({f"{i}.jpg": b"" for i in range(9)}), r"0\.jpg, 1\.jpg, 2\.jpg and 6 more"),
    "zip without its folder": (lambda: packed({"data.pkl": b"", "version": b"3"}), "without its folder.*zip -0 -r"),
    "bundle": (lambda: packed({"b/manifest.json": b"", "b/model.fp32.onnx": b""}), "a packed bundle"),
    "keras": (lambda: packed({"config.json": b"", "model.weights.h5": b""}), "a Keras model"),
    "npz": (arrays, "a NumPy archive"),
    "npy": (array, "a NumPy array"),
    "torchscript": (torchscript, r"a TorchScript archive \(torch\.jit\.save\).*torch\.jit\.load"),
    "torch.export": (
        lambda: packed({"m/archive_format": b"pt2", "m/models/model.json": b""}),
        r"program of torch\.export",
    ),
    "empty zip": (lambda: packed({}), "an empty zip file"),
    "pickle": (lambda: pickle.dumps({"a": 1}, 4), "a Python pickle that torch.save did not write"),
    "pickle 2": (lambda: pickle.dumps([1.5] * 99, 2), "a Python pickle that torch.save did not write"),
    "safetensors": (safetensors, r"a safetensors file; convert it: python -c"),
    "onnx": (onnx_model, "an ONNX model, the result of an export"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, as Keras and TensorFlow write them"),
    "tflite": (lambda: b"\x1c\0\0\0TFL3" + bytes(99), "a TensorFlow Lite model"),
    "tar": (lambda: tarred("yolact_base.pth"), r"a tar archive that begins with yolact_base\.pth; .*tar xf"),
    "gzip": (lambda: gzip.compress(b"x" * 99), "compressed with gzip; unpack it.*gzip -dk"),
    "xz": (lambda: lzma.compress(b"x" * 99), "compressed with xz"),
    "bzip2": (lambda: bz2.compress(b"x" * 99), "compressed with bzip2"),
    "zstd": (lambda: b"(\xb5/\xfd" + bytes(99), "compressed with zstd"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive"),
    "rar": (lambda: b"Rar!\x1a\x07\x01\0" + bytes(99), "a RAR archive"),
    "picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
    "engine": (lambda: b"ftrt" + bytes(99), "a TensorRT engine"),
    "zeros": (lambda: bytes(5000), "begins with zeros only, such as an unfinished download"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["yolact_base_54_800000.pth", "x y.pth.tar"])
def test_a_file_is_named_for_what_it_is(kind: str, name: str, tmp_path: Path) -> None:
    make, part = FORMATS[kind]
    path = tmp_path / name
    path.write_bytes(make())
    message = refusal(path)
    assert re.search(part, message), message
    assert "not a PyTorch checkpoint but " in message


def test_the_weights_of_a_torchscript_archive_come_out_by_the_command(tmp_path: Path) -> None:
    path = tmp_path / "my model.pt"
    path.write_bytes(torchscript())
    command = re.search(r"python -c .*$", refusal(path))
    assert command is not None
    program, _, code, source, target = shlex.split(command[0])
    assert (program, source) == ("python", str(path))
    compile(code, "command", "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.save(torch.jit.load(source, "cpu").state_dict(), target)
    assert set(torch.load(target, weights_only=True)) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["manifest.json", "model.fp32.onnx"], "a bundle, which is the result of an export"),
        (["data.pkl", "version"], "the folder of an unpacked checkpoint.*zip -0 -r"),
        (["saved_model.pb"], "a TensorFlow model"),
        ([".metadata", "__0_0.distcp"], "a distributed checkpoint.*dcp_to_torch"),
        (["b.pth", "a.pth"], r"a folder; give one file in it, such as \S+a\.pth"),
        ([], "a folder without a .pth file"),
    ],
)
def test_a_folder_is_named_for_what_it_is(names: list[str], part: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert re.search(part, describe_folder(tmp_path))
    assert re.search(part, refusal(tmp_path))


@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x08\x08\x12", b"{", b"\x1f\x8b", b"ustar"]),
    content=st.binary(max_size=700),
    name=st.sampled_from(["x.pth", "x.onnx", "yolact_base.pth"]),
)
def test_any_bytes_are_a_checkpoint_error(head: bytes, content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(head + content)
    refusal(path)


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), values=st.binary(min_size=1, max_size=40), zipped=st.booleans())
def test_a_scribbled_checkpoint_gives_no_other_error(place: float, values: bytes, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"a": torch.ones(9)}, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + len(values)] = values
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_is_not_taken_for_anything_else(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    for protocol in (1, 2, 3, 4, 5):
        torch.save({"a": torch.ones(9)}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        assert describe_file(path, path.read_bytes()[:512]) == ""
