from __future__ import annotations

import itertools

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.activations import small_network
from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.graph_segments import (
    Segment,
    TensorType,
    check_tensors,
    cut_graph,
    place_tensors,
    segment_model,
)


def test_a_cut_follows_a_wanted_tensor_and_nothing_unneeded_runs() -> None:
    graph = small_network().graph
    names = [node.op_type for node in graph.node]
    segments = cut_graph(graph, {"relu1", "sum", "late"}, 1)
    assert [[names[index] for index in segment.nodes] for segment in segments] == [
        ["Conv", "Relu"],
        ["Conv", "Add"],
        ["Relu", "Mul", "Conv"],
    ]
    assert segments[0] == Segment((0, 1), ("image",), ("relu1",))
    assert segments[1] == Segment((2, 3), ("relu1",), ("sum",))
    assert segments[2] == Segment((4, 5, 6), ("sum", "relu1"), ("late",))


def test_large_segments_are_the_whole() -> None:
    assert len(cut_graph(small_network().graph, {"relu1", "sum", "late"}, 10**9)) == 1
    assert cut_graph(small_network().graph, set(), 1) == []


def test_what_crosses_a_cut_is_an_output_though_nobody_wants_it() -> None:
    # The cut follows conv2, which relu1 passes by.
    segments = cut_graph(small_network().graph, {"conv2", "late"}, 1)
    assert [segment.outputs for segment in segments] == [("relu1", "conv2"), ("late",)]
    assert segments[1].inputs == ("conv2", "relu1")


def test_a_segment_is_a_model_with_its_own_weights() -> None:
    model = small_network()
    segment = cut_graph(model.graph, {"relu1", "sum"}, 1)[1]
    part = segment_model(model, segment, {"relu1": TensorType("float32", (1, 8, 24, 32))})
    assert [tensor.name for tensor in part.graph.initializer] == ["w2"]
    shaped = onnx.shape_inference.infer_shapes(part)
    assert [dim.dim_value for dim in shaped.graph.output[0].type.tensor_type.shape.dim] == [1, 8, 24, 32]


@given(st.data())
def test_tensors_that_live_at_the_same_time_do_not_overlap(data: st.DataObject) -> None:
    segments, sizes = [], {}
    for place in range(data.draw(st.integers(1, 6))):
        outputs = tuple(f"{place}.{number}" for number in range(data.draw(st.integers(1, 4))))
        inputs = tuple(data.draw(st.sets(st.sampled_from(sorted(sizes))))) if sizes else ()
        sizes.update({name: data.draw(st.integers(0, 9)) for name in outputs})
        segments.append(Segment((), inputs, outputs))
    offsets, total = place_tensors(sizes, segments)
    born = {name: place for place, segment in enumerate(segments) for name in segment.outputs}
    dies = born | {name: place for place, segment in enumerate(segments) for name in segment.inputs}
    for place in range(len(segments)):
        live = sorted(
            (offsets[name], sizes[name]) for name in sizes if born[name] <= place <= dies[name] and sizes[name]
        )
        assert all(first + size <= second for (first, size), (second, _) in itertools.pairwise(live))
        assert not live or live[-1][0] + live[-1][1] <= total
    assert total <= sum(sizes.values())


def test_names_that_are_no_activations_are_refused() -> None:
    graph = small_network().graph
    check_tensors(graph, ["image", "conv1", "late"])
    with pytest.raises(CalibrationError, match=r'no tensor "conv3"; similar names are conv'):
        check_tensors(graph, ["conv3"])
    with pytest.raises(CalibrationError, match='"w1" is a weight'):
        check_tensors(graph, ["w1"])
