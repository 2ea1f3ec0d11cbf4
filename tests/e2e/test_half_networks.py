"""Networks with float16 inputs and outputs, as exports write them: on the CPU, on the simulated GPU, in bundles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from support.device_network import HostNetwork, tensor_specs
from support.golden_bundles import GoldenBundle, dtypes_of, file_of, write_network
from support.host_gpu import host_gpu, share_kernels
from support.tools import needs_tool
from yolact_calibration.shapes.scene import SceneOptions, make_scene
from yolact_export.golden import write_golden
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.cuda.device_kernels import DeviceKernels
from yolact_runtime.errors import OutputError, SelfTestError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.bundle import MANIFEST_NAME, open_bundle, read_manifest
from yolact_runtime.model.manifest import METADATA_KEY, NetworkDtypes

CPU = "onnxruntime-cpu"
HALF = NetworkDtypes("float16", "float16")
OPTIONS = SegmenterOptions(min_confidence=0.3, num_threads=1)
half_precisions = pytest.mark.parametrize("precision", ["fp16", "int8"])


def scene(seed: int = 7) -> npt.NDArray[np.uint8]:
    return make_scene(seed, SceneOptions(height=240, width=320)).image


def require_alike(found: Instances, expected: Instances, confidence: float, iou: float) -> None:
    """The same objects, in whatever order, within what rounding may move."""
    assert len(found) == len(expected) >= 3
    similar = np.where(found.class_id[:, None] == expected.class_id[None], found.mask.iou(expected.mask), 0)
    partner = similar.argmax(axis=0)
    assert sorted(partner) == list(range(len(found)))
    assert similar.max(axis=0).min() >= iou
    np.testing.assert_allclose(found.confidence[partner], expected.confidence, atol=confidence)


# --- on the CPU -------------------------------------------------------------------------------------------------------


def with_float32_io(bundle: GoldenBundle, precision: str) -> None:
    """The same network as an earlier release would have written it: casts behind its input and before its outputs."""
    path = bundle.folder / file_of(precision)
    model = onnx.load(path)
    names = {info.name: f"{info.name}.cut" for info in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        for places in (node.input, node.output):
            for index, name in enumerate(places):
                places[index] = names.get(name, name)
    before = [onnx.helper.make_node("Cast", [i.name], [names[i.name]], to=10) for i in model.graph.input]
    behind = [onnx.helper.make_node("Cast", [names[o.name]], [o.name], to=1) for o in model.graph.output]
    nodes = [*before, *model.graph.node, *behind]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    manifest = read_manifest(bundle.folder)
    write_network(bundle.folder, precision, model, manifest)
    entry = dataclasses.replace(manifest.artefacts[path.name], dtypes=dtypes_of(model))
    bundle.write(dataclasses.replace(manifest, artefacts={**manifest.artefacts, path.name: entry}))


def find(bundle: Path, precision: str) -> Instances:
    with Segmenter.open(bundle, CPU, OPTIONS, precision) as segmenter:
        return segmenter(scene())


@half_precisions
def test_the_cpu_finds_with_float16_outputs_what_it_finds_with_float32(
    shapes: Path, tmp_path: Path, precision: str
) -> None:
    assert open_bundle(shapes, precision).manifest.dtypes == HALF
    found = find(shapes, precision)
    require_alike(found, find(shapes, "fp32"), *((0.02, 0.95) if precision == "fp16" else (0.15, 0.8)))
    earlier = GoldenBundle.copy(shapes, tmp_path / "earlier.bundle")
    with_float32_io(earlier, precision)
    assert open_bundle(earlier.folder, precision).manifest.dtypes == NetworkDtypes()
    # ONNX Runtime removes other casts between its float32 operators then; an engine computes the same.
    require_alike(found, find(earlier.folder, precision), 1e-3, 0.98)


def test_networks_for_the_cpu_keep_float32(shapes: Path) -> None:
    for precision in ("fp32", "int8-cpu"):
        assert open_bundle(shapes, precision).manifest.dtypes == NetworkDtypes()


# --- on the simulated GPU ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        share_kernels(patch)
        yield


@needs_tool("g++")
@pytest.mark.usefixtures("_kernels")
def test_the_gpu_reads_and_writes_float16_with_its_own_kernels(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(shapes, "fp16")
    manifest, frame = bundle.manifest, scene()
    backend = OnnxRuntimeBackend(bundle.network, num_threads=1)
    shape: Any = backend.outputs["prototype"].shape
    asked: list[str] = []
    original = DeviceKernels.get
    monkeypatch.setattr(DeviceKernels, "get", lambda self, name: (asked.append(name), original(self, name))[1])
    with host_gpu() as device:
        network = HostNetwork(device, tensor_specs(manifest, shape[1:], np.float16, np.float16), backend.infer)
        with Segmenter(manifest, network, None, OPTIONS) as segmenter:
            found = segmenter(frame)
    assert {name for name in asked if name.endswith("_f16")} >= {"preprocess_f16", "candidates_score_f16"}
    assert not [name for name in asked if name.endswith("_f32")]
    (image,) = network.inputs
    assert image.dtype == np.float16
    # What the CPU makes of the same outputs; and of its own input, which float16 rounds the same but at ties.
    own = preprocess(frame, manifest.input).astype(np.float16)
    assert (image == own).mean() > 0.99
    outputs = backend.infer(image)
    assert {array.dtype for array in outputs.values()} == {np.dtype(np.float16)}
    expected = Postprocessor.of(manifest, OPTIONS.nms_settings(manifest))(outputs, *frame.shape[:2])
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-6)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(found.mask.dense(), expected.mask.dense())


# --- bundles of earlier releases, and contradictions ------------------------------------------------------------------


def as_of_schema(bundle: GoldenBundle, version: int) -> None:
    """Every document of a bundle as a release before float16 outputs wrote it; hashes fit."""

    def older(document: dict[str, Any]) -> dict[str, Any]:
        del document["dtypes"]
        for entry in document["artefacts"].values():
            entry.pop("dtypes", None)
            if version == 1:
                del entry["build"]
        return {**document, "schema_version": version}

    for path in bundle.folder.glob("model.*.onnx"):
        model = onnx.load(path)
        embedded = next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)
        embedded.value = json.dumps(older(json.loads(embedded.value)))
        onnx.save(model, path)
    bundle.write(read_manifest(bundle.folder))
    manifest = bundle.folder / MANIFEST_NAME
    manifest.write_text(json.dumps(older(json.loads(manifest.read_bytes()))))


@pytest.mark.parametrize(("version", "precisions"), [(1, ["fp16"]), (2, ["fp32", "fp16", "int8", "int8-cpu"])])
def test_bundles_of_earlier_releases_mean_float32_and_keep_working(
    shapes: Path, tmp_path: Path, version: int, precisions: list[str]
) -> None:
    bundle = GoldenBundle.copy(shapes, tmp_path / "old.bundle")
    for precision in ("fp16", "int8"):
        with_float32_io(bundle, precision)
    if version == 2:
        write_golden(bundle.folder, read_manifest(bundle.folder))
    as_of_schema(bundle, version)
    for precision in precisions:
        with Segmenter.open(bundle.folder, CPU, OPTIONS, precision, self_test=version == 2) as segmenter:
            assert segmenter.manifest.dtypes == NetworkDtypes()
            assert len(segmenter(scene())) >= 3
    with Segmenter.open(bundle.folder / file_of("fp16"), CPU, OPTIONS) as segmenter:
        assert len(segmenter(scene())) >= 3


def relabel(bundle: GoldenBundle, precision: str, dtypes: NetworkDtypes) -> None:
    manifest, name = read_manifest(bundle.folder), file_of(precision)
    entry = dataclasses.replace(manifest.artefacts[name], dtypes=dtypes)
    bundle.write(dataclasses.replace(manifest, artefacts={**manifest.artefacts, name: entry}))


@pytest.mark.parametrize(
    ("precision", "change", "message"),
    [
        ("fp16", lambda b: as_of_schema(b, 2), 'the input "image" is float16, and the manifest says float32'),
        (
            "fp16",
            lambda b: relabel(b, "fp16", NetworkDtypes("float16", "float32")),
            'the output "box_regression" is float16, and the manifest says float32',
        ),
        ("fp32", lambda b: relabel(b, "fp32", HALF), 'the input "image" is float32, and the manifest says float16'),
    ],
    ids=["old manifest", "outputs", "input"],
)
def test_a_network_that_contradicts_its_manifest_is_refused_by_name(
    shapes: Path, tmp_path: Path, precision: str, change: Callable[[GoldenBundle], None], message: str
) -> None:
    bundle = GoldenBundle.copy(shapes, tmp_path / "b.bundle")
    change(bundle)
    with pytest.raises(OutputError, match=message):
        Segmenter.open(bundle.folder, CPU, OPTIONS, precision)


def test_the_self_test_compares_what_both_manifests_say(shapes: Path, tmp_path: Path) -> None:
    """The bundle's is right; the one inside the network would be believed where the file is opened alone."""
    bundle = GoldenBundle.copy(shapes, tmp_path / "b.bundle")
    path = bundle.folder / file_of("fp16")
    model = onnx.load(path)
    embedded = next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    embedded.value = embedded.value.replace('"outputs": "float16"', '"outputs": "float32"')
    onnx.save(model, path)
    bundle.write(read_manifest(bundle.folder))
    with pytest.raises(
        SelfTestError, match=r"dtypes\.outputs is float16 in the manifest, float32 in the network itself"
    ):
        Segmenter.open(bundle.folder, CPU, OPTIONS, "fp16", self_test=True)
    with pytest.raises(OutputError, match='the output "box_regression" is float16, and the manifest says float32'):
        Segmenter.open(path, CPU, OPTIONS)
