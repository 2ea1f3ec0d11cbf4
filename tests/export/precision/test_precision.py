"""Networks of other precisions in a folder, on a network that runs in milliseconds."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from support.precision_trials import MANIFEST, make_frames, rely_on_fine_coefficients, swell
from support.quantised import float_network
from support.scenes import make_instances
from support.training_data import square, write_set
from yolact_calibration.data.dataset import AnnotatedImages
from yolact_calibration.errors import DatasetError
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_calibration.evaluation.judge import Judge
from yolact_calibration.float16.rounding import simulate_float16
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.precision import candidate, network_maker
from yolact_calibration.precision.guard_images import GuardImages
from yolact_calibration.quantisation.calibration_images import CalibrationImages, find_calibration_images
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.ranges import RangeMethod
from yolact_calibration.quantisation.trial import Trial
from yolact_export.graph.file import write_model
from yolact_export.precision.document import verdict
from yolact_export.precision.precision import PrecisionRequest, PrecisionResult, add_precisions, network_name
from yolact_runtime.media.images import write_image
from yolact_runtime.model.manifest import METADATA_KEY, Manifest, NetworkDtypes
from yolact_runtime.model.onnx_metadata import read_metadata
from yolact_runtime.terminal import Terminal

BOTH = (Dialect.CPU, Dialect.TENSORRT)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> CalibrationImages:
    folder = tmp_path_factory.mktemp("images")
    for name, frame in make_frames(8, 1):
        write_image(folder / name, frame)
    return find_calibration_images([str(folder)])


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    """Intervals are of no interest here."""
    with pytest.MonkeyPatch.context() as patch:
        settings = BootstrapSettings(num_resamples=20)
        patch.setattr(network_maker, "Judge", functools.partial(Judge, settings=settings))
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(float_network(), tmp_path / network_name("fp32"))
    return tmp_path


Add = Callable[..., tuple[PrecisionResult, str]]


def adder(folder: Path, images: CalibrationImages, cache: Path) -> Add:
    """Adds what is asked for, judged by two images; returns the result, and the talk."""

    def run(dialects: tuple[Dialect, ...] = (), **changes: Any) -> tuple[PrecisionResult, str]:
        guard = GuardImages(make_frames(2), "agreement on 2 images")
        request = PrecisionRequest(
            False,
            dialects,
            images,
            guard,
            method=RangeMethod.MINMAX,
            max_drop=math.inf,
            everything=True,
            num_threads=1,
            cache=cache,
        )
        stream = io.StringIO()
        terminal = Terminal(stream=stream)
        return add_precisions(folder, MANIFEST, dataclasses.replace(request, **changes), terminal), stream.getvalue()

    return run


@pytest.fixture
def add(folder: Path, images: CalibrationImages, cache: Path) -> Add:
    return adder(folder, images, cache)


@pytest.fixture(scope="module")
def everything(images: CalibrationImages, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> PrecisionResult:
    folder = tmp_path_factory.mktemp("everything")
    write_model(float_network(), folder / network_name("fp32"))
    return adder(folder, images, cache)(BOTH, float16=True)[0]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_that_was_asked_for_lies_beside_the_float_network(everything: PrecisionResult) -> None:
    result, folder = everything, everything.variants[0].path.parent
    assert [variant.precision for variant in result.variants] == ["fp32", "fp16", "int8-cpu", "int8"]
    assert names(folder) == {f"model.{name}.onnx" for name in ("fp32", "fp16", "int8-cpu", "int8")}
    assert result.passed
    assert result.variants[0].judgement.worst == 0


def test_every_file_says_its_precision_and_its_plan(everything: PrecisionResult) -> None:
    for variant in everything.variants[1:]:
        manifest = Manifest.from_json(read_metadata(variant.path)[METADATA_KEY], "model")
        assert manifest.precision == variant.precision
        assert manifest.class_names == MANIFEST.class_names
        is_half = variant.precision in {"fp16", "int8"}
        assert manifest.dtypes == variant.dtypes == NetworkDtypes(*["float16" if is_half else "float32"] * 2)
        infos = (*(graph := onnx.load(variant.path).graph).input, *graph.output)
        kind = onnx.TensorProto.FLOAT16 if is_half else onnx.TensorProto.FLOAT
        assert {info.type.tensor_type.elem_type for info in infos} == {kind}
        whole = everything.variants[0].output_bytes
        assert variant.output_bytes * (2 if is_half else 1) == whole > 0
        assert "float32_outputs" not in manifest.provenance
        assert ("int8_parts" in manifest.provenance) == (variant.int8 is not None)
        if variant.int8 is not None:
            assert manifest.provenance["int8_parts"].split(", ") == list(variant.int8.search.int8)


def test_inputs_and_outputs_stay_in_float32_where_that_is_asked_for(add: Add) -> None:
    result, talk = add((Dialect.TENSORRT,), float16=True, half_io=False)
    for variant in result.variants:
        assert variant.dtypes == NetworkDtypes()
        infos = (*(graph := onnx.load(variant.path).graph).input, *graph.output)
        assert {info.type.tensor_type.elem_type for info in infos} == {onnx.TensorProto.FLOAT}
    assert "stay in float32" not in talk


def test_outputs_that_lose_too_much_in_float16_are_written_in_float32_and_say_why(add: Add, folder: Path) -> None:
    write_model(rely_on_fine_coefficients(float_network()), folder / network_name("fp32"))
    result, talk = add(float16=True, max_drop=2.0)
    _, fp16 = result.variants
    assert fp16.passed
    assert fp16.dtypes == NetworkDtypes("float16", "float32")
    manifest = Manifest.from_json(read_metadata(fp16.path)[METADATA_KEY], "model")
    assert fp16.half is not None
    assert manifest.dtypes == fp16.dtypes
    assert manifest.provenance["float32_outputs"] == fp16.half.float32_outputs
    assert f"  the outputs of fp16 stay in float32: {fp16.half.float32_outputs}\n" in talk


def test_what_is_judged_is_what_is_written(everything: PrecisionResult) -> None:
    """The predictions are those of the file: for engines with float16 where it is not INT8."""
    frames = make_frames(2)
    for variant in everything.variants[1:]:
        model = onnx.load(variant.path)
        has_half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
        assert has_half == (variant.precision in {"fp16", "int8"})
        simulated = simulate_float16(model)
        found = Trial(MANIFEST, frames, num_threads=1).find(simulated, simulate=variant.precision == "int8")
        for name, instances in found.items():
            np.testing.assert_array_equal(instances.confidence, variant.predictions[name].confidence)


def test_a_network_that_loses_too_much_is_kept_under_another_name(add: Add, folder: Path) -> None:
    result, _ = add(BOTH, float16=True, max_drop=1e-9)
    assert not result.passed
    assert {variant.precision: variant.passed for variant in result.variants}["fp32"]
    rejected = {variant.path.name for variant in result.variants if not variant.passed}
    assert {"model.int8.onnx.rejected", "model.int8-cpu.onnx.rejected"} <= rejected
    for variant in result.variants:
        assert variant.path.exists()
        assert variant.passed != variant.path.name.endswith(".rejected")
    onnx.load(folder / "model.int8.onnx.rejected", format="protobuf")


def test_without_a_guard_a_search_still_aims_at_the_usual_limit(add: Add) -> None:
    """Nothing is refused; that is no reason to make it worse than need be."""
    result, talk = add((Dialect.CPU,), everything=False, num_sensitivity=0)
    (int8,) = [variant for variant in result.variants if variant.int8]
    assert int8.passed
    assert int8.int8 is not None
    assert int8.int8.max_drop == 8.0
    assert math.isinf(result.max_drop)
    assert "no limit, nothing is rejected" in talk
    assert "inf" not in talk


def test_a_float16_network_that_overflows_is_rejected_and_the_others_stand(
    add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = candidate.to_float16

    def overflow(*arguments: Any, **names: Any) -> Any:
        half = original(*arguments, **names)
        if not any(node.op_type == "QuantizeLinear" for node in half.model.graph.node):
            weight = next(t for t in half.model.graph.initializer if t.name == "proto_net.10.weight.half")
            values = np.full(tuple(weight.dims), 65504, np.float16)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
            bias = next(t for t in half.model.graph.initializer if t.name == "prediction_layers.0.conf_layer.bias.half")
            bias.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(bias.dims), np.inf, np.float16), bias.name))
        return half

    monkeypatch.setattr(candidate, "to_float16", overflow)
    result, _ = add((Dialect.CPU,), float16=True, max_drop=99.0)
    passed = {variant.precision: variant.passed for variant in result.variants}
    assert passed == {"fp32": True, "fp16": False, "int8-cpu": True}
    assert [variant.judgement.worst for variant in result.variants if variant.precision == "fp16"] == [100.0]


@pytest.mark.parametrize("pair", [("proto_net.0", "proto_net.2"), ("proto_net.4", "proto_net.8")])
def test_values_beyond_float16_are_exported_in_float32_without_a_loss(
    add: Add, folder: Path, pair: tuple[str, str]
) -> None:
    write_model(swell(float_network(), *pair, 3e4), folder / network_name("fp32"))
    result, _ = add(float16=True, max_drop=2.0)
    _, fp16 = result.variants
    assert fp16.passed
    assert fp16.is_sound
    assert fp16.half is not None
    assert set(pair) <= set(fp16.half.kept_single)
    document = verdict(result, {})
    assert f"; fp16 computes {pair[0]}, " in document


def test_an_overflow_that_no_calibration_image_showed_is_rejected_and_located(
    add: Add, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ONNX Runtime computes the file, nothing is lost; an engine would find nothing."""
    write_model(swell(float_network(), "proto_net.0", "proto_net.2", 3e4), folder / network_name("fp32"))
    monkeypatch.setattr(network_maker, "_largest", lambda calibration: {})
    result, _ = add(float16=True, max_drop=99.0)
    _, fp16 = result.variants
    assert not fp16.passed
    assert not fp16.is_sound
    assert fp16.overflow is not None
    assert fp16.overflow.startswith("first in proto_net.1 (")
    assert "on 0.png, then" in fp16.overflow
    hidden = Trial(MANIFEST, make_frames(2), num_threads=1).find(onnx.load(fp16.path, format="protobuf"))
    assert all(len(instances) for instances in hidden.values())
    document = verdict(result, {})
    assert document.startswith("fp16 gave outputs that are not finite (it overflows: first in proto_net.1 ")
    assert "no loss" not in document


def test_without_a_guard_an_overflow_is_kept_and_gets_no_verdict(
    add: Add, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(swell(float_network(), "proto_net.0", "proto_net.2", 3e4), folder / network_name("fp32"))
    monkeypatch.setattr(network_maker, "_largest", lambda calibration: {})
    result, _ = add(float16=True)
    assert result.variants[1].passed
    assert not result.variants[1].is_sound
    assert verdict(result, {}).endswith(": no verdict, and kept because no limit was set")


def test_plans_for_engines_are_judged_with_float16_beside_int8(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    cast: list[onnx.ModelProto] = []
    original = network_maker.to_float16
    for module in (network_maker, candidate):
        monkeypatch.setattr(
            module, "to_float16", lambda model, *rest, **names: (cast.append(model), original(model, *rest, **names))[1]
        )
    add((Dialect.TENSORRT,), guard=GuardImages(make_frames(1), "agreement on 1 image"))
    # The plan that was tried, and the network that was written; without float16 outputs it would lose as much.
    assert len(cast) == 3
    assert all(any(node.op_type == "QuantizeLinear" for node in model.graph.node) for model in cast)


def test_a_second_run_makes_no_pass_over_the_images(add: Add) -> None:
    add(())
    result, _ = add(())
    assert result.calibration.from_cache
    assert [variant.precision for variant in result.variants] == ["fp32"]


# --- images that do not serve -----------------------------------------------------------------------------------------


def labelled(folder: Path, class_name: str, things: int = 1) -> GuardImages:
    objects = [[{"segmentation": square(2, 2, 4)}] * things for _ in range(2)]
    annotations, images = write_set(folder, objects, names=(class_name,), size=96)
    return GuardImages.labelled(AnnotatedImages.open(CocoAnnotations.from_file(annotations), images), None)


def test_labels_of_other_classes_end_it_before_any_work(
    add: Add, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calibrate(*_: object, **__: object) -> None:
        raise AssertionError("labels are looked at first")

    monkeypatch.setattr(network_maker, "calibrate", calibrate)
    with pytest.raises(DatasetError, match="no class"):
        add(BOTH, guard=labelled(tmp_path_factory.mktemp("other"), "zebra"))
    assert names(folder) == {"model.fp32.onnx"}


def test_labels_on_which_nothing_can_be_lost_are_refused(
    add: Add, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The right names on the wrong images: the float model has no AP, and no candidate could have less."""
    with pytest.raises(DatasetError, match=r"points of (box|mask) AP on 2 labelled images"):
        add(BOTH, guard=labelled(tmp_path_factory.mktemp("wrong"), "a"), max_drop=None)
    assert names(folder) == {"model.fp32.onnx"}


def test_a_guard_without_anything_in_it_is_refused(add: Add, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "find", lambda self, model, **_: {"a": make_instances(96, 96, [])})
    with pytest.raises(DatasetError, match="the float model finds nothing"):
        add(BOTH)
    assert names(folder) == {"model.fp32.onnx"}


def test_the_largest_values_seen_tell_what_fits_into_float16(everything: PrecisionResult) -> None:
    half = everything.variants[1].half
    assert half is not None
    convolutions = {convolution.name for convolution in NetworkGraph(float_network()).convolutions}
    assert not convolutions & set(half.kept_single)
    largest = network_maker._largest(everything.calibration)
    assert largest["image"] == pytest.approx(max(-(0 - 123.68) / 58.4, (255 - 103.94) / 57.38), rel=0.1)
