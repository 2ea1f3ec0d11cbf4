from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_calibration.training.torch_file import check_torch_file
from yolact_export.checkpoint.checkpoint import load_checkpoint
from yolact_export.checkpoint.file import read_pickle
from yolact_export.checkpoint.pickle_protocol import rewritten_for_torch
from yolact_export.errors import CheckpointError


def state() -> OrderedDict[str, torch.Tensor]:
    tensors = OrderedDict(first=torch.arange(5.0), second=torch.ones(2, 3).half())
    tensors._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    return tensors


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_files_of_every_binary_protocol_are_read(protocol: int, zipped: bool, tmp_path: Path) -> None:
    plain = {
        "text": "größer",
        "bytes": b"abc\xff",
        "integers": [0, -5, 300, 70000, 2**31, 2**70, -(2**40)],
        "others": (None, True, False, 0.5, ("a",), ("a", "b", "c", "d")),
        "number": np.float64(0.3),
        "flag": np.bool_(True),
        "big": ">",
    }
    tensors = state()
    torch.save(
        {"model": tensors, "again": tensors, **plain},
        tmp_path / "x.pth",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    content = read_pickle(tmp_path / "x.pth", [])
    assert {key: content[key] for key in plain} == plain
    assert content["again"] is content["model"]
    assert content["model"]._metadata == {"": {"version": 1}}
    assert all(torch.equal(content["model"][key], value) for key, value in tensors.items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_code_is_not_run_whatever_the_protocol(
    protocol: int, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (os.system, ("touch executed",))

    monkeypatch.chdir(tmp_path)
    torch.save({"a": Payload()}, tmp_path / "x.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="contains Python objects"):
        read_pickle(tmp_path / "x.pth", [])
    assert not (tmp_path / "executed").exists()


def test_files_of_protocol_2_are_not_copied(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save(state(), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        assert rewritten_for_torch(tmp_path / "x.pth", check_torch_file(tmp_path / "x.pth")) is None


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**80), 2**80), st.floats(allow_nan=False), st.text(max_size=5),
        st.binary(min_size=1, max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4), st.tuples(inner, inner)
    ),
    max_leaves=12,
)  # fmt: skip


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=values, protocol=st.sampled_from([1, 3, 4, 5]))
def test_a_translation_means_the_same(content: Any, protocol: int, tmp_path: Path) -> None:
    torch.save({"content": [content, content]}, tmp_path / "x.pth", pickle_protocol=protocol)
    rewritten = rewritten_for_torch(tmp_path / "x.pth", check_torch_file(tmp_path / "x.pth"))
    assert isinstance(rewritten, io.BytesIO)
    assert torch.load(rewritten, weights_only=True) == {"content": [content, content]}


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80), protocol=st.integers(0, 5))
def test_any_bytes_are_translated_or_left_alone(content: bytes, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    head = pickle.dumps(0x1950A86A20F9469CFC6C, protocol)
    path.write_bytes(head + content)
    rewritten_for_torch(path, check_torch_file(path))
    with pytest.raises(CheckpointError):
        read_pickle(path, [])


def test_a_checkpoint_of_protocol_4_loads(narrow_state: Any, tmp_path: Path) -> None:
    tensors = narrow_state("yolact_small")
    torch.save({"state_dict": tensors}, tmp_path / "yolact_small.pth", pickle_protocol=4)
    loaded = load_checkpoint(tmp_path / "yolact_small.pth")
    assert all(torch.equal(value, tensors[key]) for key, value in loaded.model.state_dict().items())
