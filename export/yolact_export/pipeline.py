"""Conversion of a checkpoint to a bundle, step by step, with as little memory as the steps allow."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from yolact_export.bundle_writer import REPORT_NAME, check_destination, encode_manifest, staged_bundle, write_manifest
from yolact_export.checkpoint.checkpoint import CheckpointOptions, LoadedCheckpoint, load_checkpoint
from yolact_export.checkpoint.findings import say_findings
from yolact_export.checkpoint.weights import TOP_LEVEL
from yolact_export.drawing import draw_frame
from yolact_export.golden import write_golden
from yolact_export.graph.export import ExportOptions, export_mask_iou, export_network
from yolact_export.graph.file import write_model
from yolact_export.model.double_precision import run_in_double_precision
from yolact_export.verify import (
    DetectionAgreement,
    Rounding,
    Verification,
    compare_instances,
    compare_outputs,
    require_finite,
)
from yolact_plugins import __version__
from yolact_plugins.files import write_atomically
from yolact_plugins.text import printable
from yolact_runtime.backends import create_backend
from yolact_runtime.cpu.mask_assembly import soft_masks
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.model.manifest import METADATA_KEY, Manifest
from yolact_runtime.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from yolact_export.engine.bundle import WrittenEngine
    from yolact_export.precision.precision import PrecisionResult
    from yolact_export.training.pruning import PrunedCheckpoint

__all__ = ["AddNetworks", "ExportResult", "export_checkpoint"]

Float = npt.NDArray[np.float32]
AddNetworks = Callable[[Path, Manifest], tuple["PrecisionResult", dict[str, Any]]]
"""Function that writes networks of other precisions into a bundle's folder, and returns their part of the report."""
_NETWORK, _MASK_IOU = "model.fp32.onnx", "mask_iou.fp32.onnx"


@dataclass(frozen=True)
class ExportResult:
    """Result of an export.

    Attributes:
        bundle: Folder of the bundle.
        manifest: Manifest as it was written.
        findings: Lines about what was inferred from the checkpoint, and from what.
        verification: Comparison of the models with the checkpoint.
        precisions: Networks of other precisions, or None.
        precision_report: Findings about them, a JSON object, or None.
        pruned: The pruned checkpoint that was exported, or None.
        engines: The engines that were built.
        seconds: Duration of the export; 0 if it was not measured.
    """

    bundle: Path
    manifest: Manifest
    findings: tuple[str, ...]
    verification: Verification
    precisions: PrecisionResult | None = None
    precision_report: Mapping[str, Any] | None = None
    pruned: PrunedCheckpoint | None = None
    engines: tuple[WrittenEngine, ...] = ()
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every network of another precision lost no more accuracy than allowed."""
        return self.precisions is None or self.precisions.passed

    def document(self) -> dict[str, Any]:
        """Return the JSON object that ``yolact-export --json`` writes."""
        return {
            "bundle": str(self.bundle),
            "manifest": json.loads(self.manifest.to_json()),
            "findings": list(self.findings),
            "verification": self.verification.document(),
            "pruning": None if self.pruned is None else self.pruned.record,
            "precision": self.precision_report,
            "engines": [engine.document() for engine in self.engines],
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class _Expected:
    """Results of PyTorch for the test frame, kept after the model itself is freed."""

    frame: npt.NDArray[np.uint8]
    outputs: dict[str, Float]
    masks: Float | None = field(default=None)
    mask_iou: Float | None = field(default=None)


def export_checkpoint(
    checkpoint: Path,
    bundle: Path,
    checkpoint_options: CheckpointOptions | None = None,
    export_options: ExportOptions | None = None,
    more_report: Mapping[str, object] | None = None,
    add_networks: AddNetworks | None = None,
    finish: Callable[[Path], None] = lambda _: None,
    reporter: Reporter = SILENT,
) -> ExportResult:
    """Read a checkpoint, write its models as ONNX, verify them against torch, and put the bundle in place.

    Args:
        checkpoint: Path of the ``.pth`` file.
        bundle: Folder to write; an earlier bundle there is replaced once the new one is complete.
        checkpoint_options: Known properties of the checkpoint that the file does not state.
        export_options: Options of the graph; its metadata is filled in here.
        more_report: Entries for the bundle's report, such as how the checkpoint was pruned.
        add_networks: Function that writes networks of other precisions, once the float32 one is verified.
        finish: Function that receives the complete folder before it takes its place, in order to sign it.
        reporter: Reporter that receives a line for each step.

    Raises:
        CheckpointError, ExportError, VerificationError: The export failed; nothing was written.
        UsageError: An option would have no effect on this model.
    """
    check_destination(bundle)
    options = export_options or ExportOptions()
    loaded = load_checkpoint(checkpoint, checkpoint_options)
    options.require_effects(loaded.model)
    say_findings(loaded.findings, reporter)
    manifest = _manifest(loaded, checkpoint, options)
    options = replace(options, metadata={METADATA_KEY: encode_manifest(manifest)})
    with staged_bundle(bundle) as folder:
        roles = _write_models(folder, loaded, options, reporter)
        reporter.say("verifying against torch")
        findings, expected = loaded.findings, _expect(loaded, manifest)
        require_finite(expected.outputs)
        del loaded  # the models of ONNX Runtime take its place in memory
        verification = _verify(folder, manifest, expected)
        verification.require(
            None if verification.passed else _rounding(checkpoint, checkpoint_options, manifest, expected)
        )
        report = {"findings": findings, "verification": verification.document(), **(more_report or {})}
        added, added_report = add_networks(folder, manifest) if add_networks is not None else (None, None)
        precisions, dtypes = {}, {}
        if added is not None:
            precisions = {v.path.name: v.precision for v in added.variants if v.passed}
            dtypes = {v.path.name: v.dtypes for v in added.variants if v.passed}
            roles |= dict.fromkeys(precisions, "network")
            report["precision"] = added_report
        manifest = write_manifest(folder, manifest, roles, precisions, dtypes)
        reporter.say("drawing the golden frame")
        manifest = write_golden(folder, manifest, reporter)
        write_atomically(folder / REPORT_NAME, (json.dumps(report, indent=2) + "\n").encode())
        finish(folder)
    return ExportResult(bundle, manifest, findings, verification, added, added_report)


def _manifest(loaded: LoadedCheckpoint, checkpoint: Path, options: ExportOptions) -> Manifest:
    config = loaded.config
    provenance = {
        "checkpoint": printable(checkpoint.name),
        "checkpoint_sha256": loaded.sha256,
        **({} if loaded.weights == TOP_LEVEL else {"checkpoint_weights": printable(loaded.weights)}),
        "config": config.name,
        "deform_conv": options.deform_conv_form.value,
        "yolact-deploy": __version__,
        **{name: importlib.metadata.version(name) for name in ("torch", "onnx")},
    }
    return Manifest(
        name=printable(checkpoint.stem),
        class_names=loaded.class_names,
        input=replace(config.input_spec(normalised_in_graph=options.normalise_in_graph), bit_depth=options.bit_depth),
        priors=config.prior_spec(),
        mask_rescoring=config.mask_rescoring,
        provenance=provenance,
    )


def _write_models(folder: Path, loaded: LoadedCheckpoint, options: ExportOptions, reporter: Reporter) -> dict[str, str]:
    """Write the graphs one after the other; return roles by file name."""
    roles = {}
    exports = ((_NETWORK, "network", export_network), (_MASK_IOU, "mask_iou", export_mask_iou))
    for name, role, export in exports:
        model = export(loaded, options)
        if model is None:
            continue
        reporter.say(f"writing {name} ({len(model.graph.node)} nodes)")
        write_model(model, folder / name)
        roles[name] = role
    return roles


@torch.inference_mode()
def _expect(loaded: LoadedCheckpoint, manifest: Manifest) -> _Expected:
    """Run the PyTorch model on the test frame, with the runtime's own preprocessing."""
    frame = draw_frame(480, 640)
    # The PyTorch model always expects normalised input, whatever the graph expects.
    raw = loaded.model(torch.from_numpy(preprocess(frame, loaded.config.input_spec())))
    outputs = {name: tensor.numpy() for name, tensor in raw._asdict().items()}
    if loaded.model.mask_iou is None:
        return _Expected(frame, outputs)
    masks = _some_masks(outputs, manifest)
    return _Expected(frame, outputs, masks, loaded.model.mask_iou(torch.from_numpy(masks)).numpy())


def _some_masks(outputs: dict[str, Float], manifest: Manifest) -> Float:
    """Create ``(16, 1, Hp, Wp)`` cropped soft masks of priors spread over the image, input for the mask-IoU network."""
    postprocess = Postprocessor.of(manifest)
    chosen = np.linspace(0, len(postprocess.priors) - 1, 16).astype(np.int64)
    centre, size = postprocess.priors[chosen, :2], postprocess.priors[chosen, 2:]
    xyxy = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    return soft_masks(outputs["prototype"][0], outputs["mask_coefficient"][0][chosen], xyxy)[:, None]


def _verify(folder: Path, manifest: Manifest, expected: _Expected) -> Verification:
    found = _run(folder / _NETWORK, preprocess(expected.frame, manifest.input))
    outputs = compare_outputs(expected.outputs, found)
    if expected.masks is not None and expected.mask_iou is not None:
        outputs += compare_outputs({"mask_iou": expected.mask_iou}, _run(folder / _MASK_IOU, expected.masks))
    return Verification(outputs, _compare_detections(manifest, expected.frame, expected.outputs, found))


def _rounding(checkpoint: Path, options: CheckpointOptions | None, manifest: Manifest, expected: _Expected) -> Rounding:
    """Measure the effect of float32 rounding on the checkpoint, which is read once more."""
    loaded = load_checkpoint(checkpoint, options)
    exact = run_in_double_precision(loaded.model, preprocess(expected.frame, loaded.config.input_spec()))
    single = {name: array.astype(np.float32) for name, array in exact.outputs.items()}
    disturbed = {name: array.astype(np.float32) for name, array in exact.disturbed.items()}
    found = [_compare_detections(manifest, expected.frame, single, other) for other in (expected.outputs, disturbed)]
    detections = min(found, key=lambda agreement: (agreement.passed, agreement.matched))
    own = compare_outputs(exact.outputs, expected.outputs), compare_outputs(exact.outputs, disturbed)
    # The worse of both; a NaN is worse than any number.
    worst = (max(pair, key=lambda o: np.nan_to_num(o.max_relative, nan=np.inf)) for pair in zip(*own, strict=True))
    return Rounding(tuple(worst), detections, exact.largest, exact.layer)


def _compare_detections(
    manifest: Manifest, frame: npt.NDArray[np.uint8], a: Mapping[str, Float], b: Mapping[str, Float]
) -> DetectionAgreement:
    postprocess = Postprocessor.of(manifest)
    return compare_instances(*(postprocess(outputs, *frame.shape[:2]) for outputs in (a, b)))


def _run(model: Path, tensor: Float) -> dict[str, Any]:
    backend = create_backend("onnxruntime-cpu", model)
    try:
        return dict(backend.infer(tensor))
    finally:
        backend.close()
