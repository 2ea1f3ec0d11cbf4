from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_runtime.backends.onnxruntime_session import (
    SessionSettings,
    end_profile,
    open_cpu_session,
    run_options,
    single_feed,
)
from yolact_runtime.errors import BackendUnavailableError


def doubling(kind: int = onnx.TensorProto.FLOAT) -> bytes:
    values = onnx.helper.make_tensor_value_info("image", kind, [1, 3])
    doubled = onnx.helper.make_tensor_value_info("doubled", kind, [1, 3])
    node = onnx.helper.make_node("Add", ["image", "image"], ["doubled"], "twice")
    graph = onnx.helper.make_graph([node], "doubling", [values], [doubled])
    opset = onnx.helper.make_opsetid("", 17)
    content: bytes = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    return content


def entry(options: Any, key: str) -> str | None:
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:
        return None


@examples(100)
@given(
    num_threads=st.integers(0, 64),
    fuses_qdq=st.booleans(),
    level=st.sampled_from(["none", "basic", "extended", "all"]),
    spins=st.booleans(),
    has_arena=st.booleans(),
    config=st.dictionaries(st.sampled_from(["session.dynamic_block_base", "session.use_env_allocators"]), st.just("1")),
)
def test_settings_are_what_onnx_runtime_is_asked_for(
    num_threads: int, fuses_qdq: bool, level: Any, spins: bool, has_arena: bool, config: dict[str, str]
) -> None:
    options = SessionSettings(num_threads, fuses_qdq, level, spins, has_arena, config=config).options()
    assert (options.intra_op_num_threads, options.enable_cpu_mem_arena) == (num_threads, has_arena)
    assert options.log_severity_level == 4, "it prints nothing"
    assert entry(options, "session.load_model_format") == "ONNX", "nothing that nobody looked at is loaded"
    assert (entry(options, "session.disable_quant_qdq") == "1") is not fuses_qdq
    assert (entry(options, "session.intra_op.allow_spinning") == "0") is not spins
    assert all(entry(options, key) == value for key, value in config.items())
    levels = {"none": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
    assert options.graph_optimization_level == getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{levels[level]}")


@pytest.mark.parametrize(
    ("kind", "dtype"), [(onnx.TensorProto.FLOAT, "float32"), (onnx.TensorProto.FLOAT16, "float16")]
)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_session_is_fed_in_the_dtype_that_it_takes(kind: int, dtype: str, as_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(doubling(kind))
    session = open_cpu_session(path if as_file else path.read_bytes())
    (found,) = session.run(None, single_feed(session, np.array([[1, 2, 3]], np.float32)))
    assert found.dtype == dtype
    assert found.tolist() == [[2, 4, 6]]
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert not getattr(session, "_model_bytes", None), "the weights are in memory once"


def test_a_profile_and_the_optimised_graph_are_written_where_they_should_be(tmp_path: Path) -> None:
    settings = SessionSettings(1, profile=tmp_path / "profile", optimised_model=tmp_path / "optimised.onnx")
    session = open_cpu_session(doubling(), settings)
    session.run(None, single_feed(session, np.zeros((1, 3), np.float32)))
    assert any(event["name"] == "twice_kernel_time" for event in end_profile(session))
    assert [node.name for node in onnx.load(tmp_path / "optimised.onnx").graph.node] == ["twice"]
    assert {path.name.partition("_")[0] for path in tmp_path.iterdir()} == {"profile", "optimised.onnx"}


def test_a_run_prints_nothing_and_has_its_entries() -> None:
    options = run_options({"disable_synchronize_execution_providers": "1"})
    assert options.log_severity_level == 4
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"


def test_without_onnx_runtime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match="pip install"):
        SessionSettings().options()
