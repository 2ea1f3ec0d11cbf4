"""Outputs of a network against its manifest: every wrong one is refused by name, on the CPU and on the GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import DEFAULT_PROTOTYPE, Thing, raw_outputs, small_manifest, with_precisions, write_bundle
from yolact_runtime.backends import TensorSpec
from yolact_runtime.cpu.nms import NmsSettings
from yolact_runtime.cuda.frame_model import FrameModel
from yolact_runtime.errors import BackendError, OutputError, ShapeError
from yolact_runtime.model.manifest import Manifest, NetworkDtypes
from yolact_runtime.model.network_outputs import (
    OutputType,
    RawOutputs,
    check_declared_dtypes,
    check_output_types,
    require_finite,
    unpack_outputs,
)
from yolact_runtime.segmenter import Segmenter

MANIFEST = small_manifest()
OUTPUTS = raw_outputs(MANIFEST, [Thing((0.2, 0.2, 0.8, 0.8))])
TYPES = {name: OutputType("float32", array.shape) for name, array in OUTPUTS.items()}
names = pytest.mark.parametrize("name", RawOutputs._fields)


def open_on_a_gpu(types: dict[str, OutputType]) -> None:
    """What the GPU's path checks when it is opened; dtypes that it has no word for are refused by the backend."""
    image = TensorSpec("image", (1, 3, 32, 48), np.dtype(np.float32), True)
    outputs = (TensorSpec(name, kind.shape, np.dtype(kind.dtype), False) for name, kind in types.items())  # type: ignore[arg-type]
    FrameModel.of(MANIFEST, NmsSettings(), 0.0, False, (image, *outputs))


def check(types: dict[str, OutputType]) -> None:
    check_output_types(types, MANIFEST)


both = pytest.mark.parametrize("check", [check, open_on_a_gpu])


@both
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_right_outputs_pass(check: Callable[[Any], None], dtype: str) -> None:
    check({name: kind._replace(dtype=dtype) for name, kind in TYPES.items()})


@both
@names
@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", "float64", "int64", "<U3", "object"])
def test_other_dtypes_are_refused(check: Callable[[Any], None], name: str, dtype: str) -> None:
    with pytest.raises(OutputError, match=f'the output "{name}" is .*; float32 or float16 is required'):
        check({**TYPES, name: TYPES[name]._replace(dtype=dtype)})


@both
@names
@examples(30)
@given(data=st.data())
def test_every_other_shape_is_refused(check: Callable[[Any], None], name: str, data: st.DataObject) -> None:
    shape = TYPES[name].shape
    assert shape is not None
    others = st.lists(st.integers(0, 100), max_size=5).map(tuple)
    place = st.integers(0, len(shape) - 1)
    one_side = st.tuples(place, st.integers(0, 100)).map(
        lambda pair: (*shape[: pair[0]], pair[1], *shape[pair[0] + 1 :])
    )
    wrong = data.draw(st.one_of(others, one_side))
    # The manifest does not say how large prototypes are: any number of rows and columns but none is right.
    if wrong == shape or (name == "prototype" and len(wrong) == 4 and wrong[:2] == shape[:2] and 0 not in wrong):
        return
    with pytest.raises(OutputError, match="should have the shape"):
        check({**TYPES, name: OutputType("float32", wrong)})


@both
@names
def test_a_missing_output_is_named(check: Callable[[Any], None], name: str) -> None:
    with pytest.raises(OutputError, match=f"lacks the output {name}; it has"):
        check({other: kind for other, kind in TYPES.items() if other != name})


floats = st.sampled_from(["float32", "float16"])


@examples(60)
@given(floats, floats, st.dictionaries(st.sampled_from(["image", *RawOutputs._fields]), floats, max_size=5))
def test_dtypes_other_than_the_stated_ones_are_refused_by_name(
    stated_input: str, stated_outputs: str, found: dict[str, str]
) -> None:
    manifest = small_manifest(dtypes=NetworkDtypes(stated_input, stated_outputs))
    stated = {"image": stated_input, **dict.fromkeys(RawOutputs._fields, stated_outputs)}
    types = {name: OutputType(found.get(name, dtype), None) for name, dtype in stated.items()}
    outputs = {name: kind for name, kind in types.items() if name != "image"} | {"more": OutputType("int64", None)}
    wrong = [name for name in types if types[name].dtype != stated[name]]
    if not wrong:
        check_declared_dtypes({"image": types["image"]}, outputs, manifest)
        return
    name = wrong[0]
    kind = "input" if name == "image" else "output"
    message = f'the {kind} "{name}" is {types[name].dtype}, and the manifest says {stated[name]}'
    with pytest.raises(OutputError, match=message):
        check_declared_dtypes({"image": types["image"]}, outputs, manifest)


@names
def test_what_a_model_leaves_open_passes(name: str) -> None:
    check({**TYPES, name: OutputType("float32", None)})
    shape = TYPES[name].shape
    assert shape is not None
    for side in range(len(shape)):
        check({**TYPES, name: OutputType("float32", (*shape[:side], None, *shape[side + 1 :]))})


def test_the_error_is_one_of_backends_and_one_of_shapes() -> None:
    assert issubclass(OutputError, BackendError)
    assert issubclass(OutputError, ShapeError)


def test_outputs_are_unpacked_as_views() -> None:
    raw = unpack_outputs({**OUTPUTS, "further": np.zeros(3, np.int64)}, MANIFEST)
    assert raw.prototype.shape == DEFAULT_PROTOTYPE.shape
    for name in RawOutputs._fields:
        assert np.shares_memory(getattr(raw, name), OUTPUTS[name])


@examples(100)
@given(
    st.sampled_from([np.float32, np.float16]),
    st.sampled_from([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 65504.0, -65504.0, 6e-8]),
    st.integers(1, 70),
    st.floats(0, 1, exclude_max=True),
)
def test_require_finite_finds_one_value_anywhere(dtype: npt.DTypeLike, value: float, size: int, place: float) -> None:
    values = np.random.default_rng(size).normal(0, 1, size).astype(dtype)
    values[int(place * size)] = value
    if np.isfinite(value):
        require_finite(values, "prototype")
        return
    with pytest.raises(OutputError, match=r'"prototype" contains NaN or infinity.*run the fp32 model'):
        require_finite(values, "prototype")


def test_nothing_is_finite() -> None:
    require_finite(np.zeros(0, np.float32), "prototype")
    require_finite(np.zeros(0, np.float16), "prototype")


# --- what a model declares, when it is opened ------------------------------------------------------------------------


def write_network(folder: Path, name: str, kind: int | None, shape: Sequence[int | str] | None) -> Path:
    """A bundle whose network casts one output to another type, or declares another shape for it."""
    write_bundle(folder, [Thing((0.2, 0.2, 0.8, 0.8))])
    path = folder / "model.fp32.onnx"
    model = onnx.load(path)
    output = next(info for info in model.graph.output if info.name == name)
    if kind is not None:
        node = next(node for node in model.graph.node if name in node.output)
        node.output[0] = "before"
        model.graph.node.append(onnx.helper.make_node("Cast", ["before"], [name], to=kind))
        output.type.tensor_type.elem_type = kind
    if shape is not None:
        output.CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    onnx.save(model, path)
    with_precisions(folder, "fp32")
    return folder


@names
@pytest.mark.parametrize("kind", [onnx.TensorProto.INT8, onnx.TensorProto.BOOL, onnx.TensorProto.STRING])
def test_a_network_of_another_dtype_is_refused_when_it_is_opened(tmp_path: Path, name: str, kind: int) -> None:
    with pytest.raises(OutputError, match=f'"{name}" is (int8|bool|string); float32 or float16 is required'):
        Segmenter.open(write_network(tmp_path, name, kind, None), "onnxruntime-cpu")


def test_a_network_of_another_shape_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, [])
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes(), "manifest")
    fewer = dataclasses.replace(manifest, class_names=("cat", "dog"))
    (folder / "manifest.json").write_text(fewer.to_json())
    with pytest.raises(OutputError, match=r'"class_logit" should have the shape \(1, 90, 3\).*found \(1, 90, 4\)'):
        Segmenter.open(folder, "onnxruntime-cpu")


@pytest.mark.parametrize("shape", [["n", 90, 4], [1, "priors", 4]])
def test_a_network_that_leaves_sides_open_is_opened_and_runs(tmp_path: Path, shape: Sequence[int | str]) -> None:
    with Segmenter.open(write_network(tmp_path, "class_logit", None, shape), "onnxruntime-cpu") as segmenter:
        assert len(segmenter(np.full((30, 40, 3), 255, np.uint8))) == 3
