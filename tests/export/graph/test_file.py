"""Files written weight by weight are ordinary ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from yolact_export.graph.file import write_model


@pytest.mark.parametrize("weights", [0, 1, 5])
def test_the_file_holds_exactly_the_model(tmp_path: Path, weights: int) -> None:
    random = np.random.default_rng(weights)
    initializers = [
        numpy_helper.from_array(random.normal(size=(3, 100 * i + 1)).astype(np.float32), f"w{i}")
        for i in range(weights)
    ]
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], initializers, value_info=ends[1:])
    model = helper.make_model(graph, producer_name="test", opset_imports=[helper.make_opsetid("", 17)])
    model.metadata_props.add(key="k", value="v" * 300)
    path = tmp_path / "model.onnx"
    write_model(model, path)
    assert onnx.load(path) == model
    onnx.checker.check_model(path)
