"""Engines, built by TensorRT-RTX: the one TensorRT that needs no GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from support.engine_graphs import small_graph, small_model
from support.fake_tensorrt import ILogger
from support.scenes import small_manifest
from yolact_export.engine import api as engine_api
from yolact_export.engine.api import configure, create_network
from yolact_export.engine.build import build_engine
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.progress import BuildProgress, ProgressLine
from yolact_export.errors import EngineBuildError, MissingDependencyError, UsageError
from yolact_export.graph.export import ExportOptions, export_network
from yolact_runtime.backends.tensorrt_library import TensorRtLibrary, load_tensorrt
from yolact_runtime.errors import BackendUnavailableError, ManifestError
from yolact_runtime.model.engine_name import manifest_from_name
from yolact_runtime.model.manifest import NetworkDtypes

MANIFEST = small_manifest(class_names=("Straßenbahn", "cat"))


def build(model: bytes, manifest: str = MANIFEST.to_json(), **options: object):
    return build_engine(model, manifest, EngineOptions("rtx", **options))


def test_the_manifest_is_in_the_engine() -> None:
    plan = build(small_model("fp32")).plan
    start = plan.index(b'{"name"')
    document, _ = json.JSONDecoder().raw_decode(plan[start : start + 4096].decode("ascii", "replace"))
    assert manifest_from_name(json.dumps(document), "engine") == MANIFEST


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (NetworkDtypes("float16", "float32"), 'the input "image" is float32, but .* says float16'),
        (NetworkDtypes("float32", "float16"), 'the output "prototype" is float32, but .* says float16'),
    ],
    ids=["input", "output"],
)
def test_a_network_whose_manifest_states_other_types_is_refused(stated: NetworkDtypes, message: str) -> None:
    """The engine would have the network's types and the manifest's words, so that no runtime would open it."""
    model = small_graph("fp32")
    model.graph.node[-1].output[0] = model.graph.output[0].name = "prototype"
    with pytest.raises(EngineBuildError, match=message):
        build(model.SerializeToString(), replace(MANIFEST, dtypes=stated).to_json())


def test_two_builds_are_equal_byte_for_byte() -> None:
    assert build(small_model("int8")).plan == build(small_model("int8")).plan


def test_the_facts_say_what_was_built_where() -> None:
    facts = build(small_model("fp32"), compute_capabilities=("8.6", "8.9"), workspace_bytes=1 << 28).facts
    assert facts["target"] == "rtx"
    assert facts["library"] == "tensorrt_rtx"
    assert facts["library_version"] == load_tensorrt("rtx").version
    assert facts["compute_capabilities"] == "8.6, 8.9"
    assert facts["workspace_bytes"] == str(1 << 28)
    assert facts["optimisation_level"] == "default"
    assert (facts["user_allocation"], facts["tf32"]) == ("yes", "no")
    # Not "and later" than 8.0: there are GPUs between these that the builder does not know.
    assert build(small_model("fp32"), tf32=True).facts | {"onnx_sha256": ""} == facts | {
        "compute_capabilities": "8.0, 8.6, 8.9, 12.0, 12.1 and later",
        "workspace_bytes": "default",
        "tf32": "yes",
        "onnx_sha256": "",
    }
    assert {"os", "arch", "onnx_sha256", "version_compatible"} <= facts.keys()
    assert all(isinstance(value, str) for value in facts.values())


def test_options_reach_the_builder() -> None:
    library = load_tensorrt("rtx")
    trt, builder = library.module, library.module.Builder(library.logger)
    config = configure(library, builder, EngineOptions("rtx", 1 << 28, 5, ("8.6", "12.0")), None)
    assert config.builder_optimization_level == 5
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 28
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    capabilities = [config.get_compute_capability(i) for i in range(config.num_compute_capabilities)]
    assert capabilities == [trt.ComputeCapability.SM86, trt.ComputeCapability.SM120]
    assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert configure(library, builder, EngineOptions("rtx", tf32=True), None).get_flag(trt.BuilderFlag.TF32)
    assert create_network(library, builder).get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_the_builder_was_asked_for_is_in_the_plan(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(precision)
    plan = build(model).plan
    assert build(model, tf32=True).plan != plan
    monkeypatch.setattr(engine_api, "takes_all_memory_from_its_caller", lambda _: False)
    assert build(model).plan != plan


def test_a_library_without_these_flags_is_not_asked_for_them() -> None:
    flags = SimpleNamespace(__members__={})
    asked: list[str] = []
    config = SimpleNamespace(clear_flag=asked.append, set_flag=asked.append)
    module = SimpleNamespace(
        __name__="tensorrt",
        __version__="11.9.0",
        BuilderFlag=flags,
        ILogger=ILogger,
        ProfilingVerbosity=SimpleNamespace(DETAILED=2),
    )
    library, builder = TensorRtLibrary("tensorrt", module), SimpleNamespace(create_builder_config=lambda: config)
    configure(library, builder, EngineOptions(), None)
    assert asked == []
    with pytest.raises(UsageError, match=r"tensorrt 11\.9\.0 has no TF32; leave the option out"):
        configure(library, builder, EngineOptions(tf32=True), None)
    flags.TF32, flags.__members__["TF32"] = "tf32", "tf32"
    configure(library, builder, EngineOptions(), None)
    assert asked == ["tf32"]


def test_more_compute_capabilities_are_a_larger_engine() -> None:
    assert len(build(small_model("fp32"), compute_capabilities=("7.5", "8.6")).plan) > len(
        build(small_model("fp32"), compute_capabilities=("8.6",)).plan
    )


def test_the_log_is_kept_for_people() -> None:
    tail = build(small_model("fp32")).log_tail
    assert any("Engine generation completed" in line for line in tail)
    assert not any("LayerType" in line for line in tail)


def test_a_dynamic_batch_builds() -> None:
    assert build(small_model("fp32", batch="batch"), max_batch=2).plan


def test_progress_nests_and_ends() -> None:
    events: list[BuildProgress] = []

    def take(progress: BuildProgress) -> bool:
        events.append(progress)
        return True

    build_engine(small_model("fp32"), MANIFEST.to_json(), EngineOptions("rtx"), take)
    started = [event.phase for event in events if event.kind == "start"]
    assert sorted(started) == sorted(event.phase for event in events if event.kind == "finish")
    assert {event.parent for event in events if event.kind == "start"} >= {None, "Building engine"}
    line = ProgressLine()
    texts = [line.update(event) for event in events]
    assert texts[0] == "Building engine 0/6"
    assert any(text.startswith("Building engine 0/6 > ") for text in texts)
    assert texts[-1] == ""


def test_a_cancelled_build_raises() -> None:
    with pytest.raises(EngineBuildError, match="BuildCanceled"):
        build_engine(small_model("fp32"), MANIFEST.to_json(), EngineOptions("rtx"), lambda _: False)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_uint8_is_refused_because_tensorrt_would_clip_it() -> None:
    with pytest.raises(EngineBuildError, match=r"quantised to UINT8.*zero point 0"):
        build(small_model("int8", activation=np.uint8))


def test_the_parsers_errors_name_their_node() -> None:
    model = small_graph("fp16")
    next(node for node in model.graph.node if node.name == "conv2").input[2] = "single"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(32, np.float32), "single"))
    with pytest.raises(EngineBuildError, match=r"^tensorrt_rtx \S+ does not accept the model:\n  conv2 \(Conv\): "):
        build(model.SerializeToString())


def test_an_error_of_the_model_as_a_whole() -> None:
    model = small_graph("fp32")
    model.graph.node[1].op_type = "Einsum"
    with pytest.raises(
        EngineBuildError, match=r"does not accept the model:\n  the model: Attribute not found: equation"
    ):
        build(model.SerializeToString())


def test_a_bias_quantised_the_way_of_onnx_runtime_is_an_error_with_its_node() -> None:
    model = small_graph("int8")
    bias = onnx.numpy_helper.from_array(np.zeros(32, np.int32), "conv1.bias.int32")
    scale = onnx.numpy_helper.from_array(np.ones((), np.float32), "conv1.bias.scale")
    model.graph.initializer.extend([bias, scale])
    node = onnx.helper.make_node("DequantizeLinear", [bias.name, scale.name], ["b"], name="bias.dequantize")
    model.graph.node.insert(0, node)
    next(node for node in model.graph.node if node.name == "conv1").input[2] = "b"
    with pytest.raises(EngineBuildError, match=r"bias\.dequantize \(DequantizeLinear\).*Int32"):
        build(model.SerializeToString())


def test_a_workspace_that_is_too_small_is_named() -> None:
    with pytest.raises(EngineBuildError, match="raise --workspace"):
        build(small_model("fp32"), workspace_bytes=1)


def test_a_compute_capability_that_rtx_does_not_have() -> None:
    with pytest.raises(UsageError, match=r"does not build for compute capability 8\.7; it supports 7\.5, 8\.0, 8\.6, "):
        build(small_model("fp32"), compute_capabilities=("8.7",))


def test_deformable_convolutions(narrow_model):
    model = export_network(narrow_model("yolact_plus_resnet50"), ExportOptions(deform_conv="deform-conv"))
    with pytest.raises(EngineBuildError, match="--deform-conv grid-sample"):
        build(model.SerializeToString())


def test_a_manifest_that_is_none() -> None:
    with pytest.raises(ManifestError):
        build(small_model("fp32"), "{}")


def test_tensorrt_without_a_gpu_or_the_package_is_an_error_and_no_crash() -> None:
    if (load := _try_to_load()) is None:
        pytest.skip(f"TensorRT and a GPU are here: {load}")
    with pytest.raises((MissingDependencyError, BackendUnavailableError)):
        build_engine(small_model("fp32"), MANIFEST.to_json(), EngineOptions("tensorrt"))


def _try_to_load() -> Exception | None:
    from yolact_runtime.backends.cuda_driver import find_gpu

    try:
        load_tensorrt("tensorrt")
        find_gpu()
    except (MissingDependencyError, BackendUnavailableError) as error:
        return error
    return None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "cuda"}, 'no TensorRT target "cuda"; there are tensorrt, rtx'),
        ({"workspace_bytes": 0}, "workspace must be positive"),
        ({"memory_limit_bytes": -1}, "memory limit must be positive"),
        ({"optimisation_level": 6}, "from 0 to 5"),
        ({"max_batch": 0}, "1 or more"),
        ({"target": "rtx", "compute_capabilities": ("sm86",)}, 'such as 8.6; found "sm86"'),
        ({"target": "rtx", "version_compatible": True}, "are for the target tensorrt"),
        ({"target": "rtx", "hardware_compatible": True}, "are for the target tensorrt"),
        ({"compute_capabilities": ("8.6",)}, "compute capabilities are for --target rtx"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EngineOptions(**options)


def test_options_survive_json() -> None:
    options = EngineOptions(
        "rtx", 1 << 30, 4, ("8.6", "12.0"), memory_limit_bytes=5, tf32=True, group_depthwise=False, max_batch=8
    )
    assert EngineOptions.from_document(json.loads(json.dumps(options.to_document()))) == options
