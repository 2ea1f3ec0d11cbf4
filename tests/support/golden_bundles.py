"""A bundle of the trained model of shapes in four precisions with its golden frame, and functions that damage it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto

from yolact_calibration.float16.conversion import to_float16
from yolact_calibration.quantisation.int8 import choose_ranges
from yolact_calibration.quantisation.network_graph import FINAL_GROUPS, NetworkGraph
from yolact_calibration.quantisation.observer import observe
from yolact_calibration.quantisation.qdq import quantise
from yolact_calibration.quantisation.qdq_placement import Dialect, quantisable_tensors
from yolact_calibration.quantisation.ranges import RangeMethod
from yolact_export.bundle_writer import write_manifest
from yolact_export.drawing import draw_frame
from yolact_export.golden import write_golden
from yolact_export.pipeline import export_checkpoint
from yolact_runtime.model.bundle import MANIFEST_NAME, file_sha256, read_manifest
from yolact_runtime.model.manifest import METADATA_KEY, Manifest, NetworkDtypes

__all__ = ["PRECISIONS", "SHAPES", "GoldenBundle", "dtypes_of", "file_of", "write_shapes_bundle"]

SHAPES = Path(__file__).parents[2] / "examples" / "models" / "shapes.pth"
PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")


def file_of(precision: str) -> str:
    """Return the name of the network's file in a bundle."""
    return f"model.{precision}.onnx"


def write_shapes_bundle(folder: Path, checkpoint: Path = SHAPES, half_io: bool = True) -> Path:
    """Write the bundle, with every convolution but the final ones in INT8, without a search.

    The accuracy does not matter here. Networks for engines have float16 inputs and outputs, unless `half_io` is false,
    like those of earlier releases.
    """
    export_checkpoint(checkpoint, folder)
    manifest = read_manifest(folder)
    model = onnx.load(folder / file_of("fp32"))
    graph = NetworkGraph(model)
    convolutions = [c.name for group, members in graph.groups.items() if group not in FINAL_GROUPS for c in members]
    tensors = quantisable_tensors(graph)
    frames = [(str(seed), draw_frame(300, 400, seed)) for seed in range(3)]
    histograms = observe(model, tensors, frames, manifest.input)
    largest = {name: max(-found.low, found.high) for name, found in histograms.items()}
    quantised = {
        dialect: quantise(model, choose_ranges(histograms, RangeMethod.MSE, dialect), convolutions, dialect)
        for dialect in Dialect
    }
    networks = {
        "fp32": model,
        "fp16": to_float16(model, largest, half_input=half_io, half_outputs=half_io).model,
        "int8": to_float16(quantised[Dialect.TENSORRT], largest, half_input=half_io, half_outputs=half_io).model,
        "int8-cpu": quantised[Dialect.CPU],
    }
    for precision, network in networks.items():
        write_network(folder, precision, network, manifest)
    names = {file_of(precision): precision for precision in PRECISIONS}
    dtypes = {file_of(precision): dtypes_of(network) for precision, network in networks.items()}
    write_golden(folder, write_manifest(folder, manifest, dict.fromkeys(names, "network"), names, dtypes))
    return folder


def dtypes_of(model: onnx.ModelProto) -> NetworkDtypes:
    """Return the declared dtypes of a network with one input and any number of outputs of one dtype."""
    name = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
    (given,), (made,) = (
        {name[info.type.tensor_type.elem_type] for info in infos} for infos in (model.graph.input, model.graph.output)
    )
    return NetworkDtypes(given, made)


def write_network(folder: Path, precision: str, model: onnx.ModelProto, manifest: Manifest) -> None:
    embedded = dataclasses.replace(manifest, precision=precision, dtypes=dtypes_of(model), artefacts={})
    onnx.helper.set_model_props(model, {METADATA_KEY: embedded.to_json()})
    onnx.save(model, folder / file_of(precision))


@dataclasses.dataclass(frozen=True)
class GoldenBundle:
    """A copy of a bundle that a test damages so that hashes and embedded manifests still match: only computing reveals
    it.
    """

    folder: Path

    @classmethod
    def copy(cls, source: Path, folder: Path) -> GoldenBundle:
        return cls(Path(shutil.copytree(source, folder)))

    def edit_manifest(self, edit: Callable[[Manifest], Manifest], embedded: bool = True) -> None:
        """Change the manifest, and its copies inside the networks, too."""
        manifest = edit(read_manifest(self.folder))
        if embedded:
            for precision in PRECISIONS:
                write_network(self.folder, precision, onnx.load(self.folder / file_of(precision)), manifest)
        self.write(manifest)

    def edit_network(self, precision: str, edit: Callable[[onnx.ModelProto], None]) -> None:
        model = onnx.load(self.folder / file_of(precision))
        edit(model)
        onnx.save(model, self.folder / file_of(precision))
        self.write(read_manifest(self.folder))

    def put_network(self, precision: str, source: Path) -> None:
        """Replace a network by another file, labelled as if it were the original, including its dtypes."""
        model, manifest = onnx.load(source), read_manifest(self.folder)
        write_network(self.folder, precision, model, manifest)
        name = file_of(precision)
        entry = dataclasses.replace(manifest.artefacts[name], dtypes=dtypes_of(model))
        self.write(dataclasses.replace(manifest, artefacts={**manifest.artefacts, name: entry}))

    def write(self, manifest: Manifest) -> None:
        """Write the manifest, with the hashes of the present files."""
        artefacts = {
            name: dataclasses.replace(
                artefact,
                sha256=file_sha256(self.folder / name),
                size_bytes=(self.folder / name).stat().st_size,
            )
            for name, artefact in manifest.artefacts.items()
        }
        text = json.dumps(dataclasses.asdict(dataclasses.replace(manifest, artefacts=artefacts)))
        (self.folder / MANIFEST_NAME).write_text(text)
