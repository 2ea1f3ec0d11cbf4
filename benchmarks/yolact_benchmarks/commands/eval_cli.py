"""``yolact-eval``: how accurate a model is, by labels or by another model."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_benchmarks.commands.eval_options import add_eval_options
from yolact_calibration.errors import DatasetError, UsageError
from yolact_calibration.labels.options import file_rules
from yolact_plugins.command_line import CommandParser, Example
from yolact_plugins.files import counted, human_size
from yolact_runtime.commands.machine_options import add_machine_options
from yolact_runtime.commands.signature_options import check_trust, signature_document, signature_words
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.errors import BackendError, FrameError
from yolact_runtime.media.image_reader import ImageReader, reader_for_model
from yolact_runtime.option_numbers import MAX_COUNT, check_most, shown_number
from yolact_runtime.terminal import (
    Terminal,
    add_common_options,
    check_json_destination,
    run_command,
    show_results,
    write_json,
)

if TYPE_CHECKING:
    from yolact_calibration.evaluation.bootstrap import BootstrapSettings, Interval
    from yolact_runtime.masks.instances import Instances
    from yolact_runtime.segmenter import Segmenter

__all__ = ["main"]

_NAMES_SHOWN = 5


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_command(_parser(), _run, arguments)


def _parser() -> CommandParser:
    parser = CommandParser(
        "yolact-eval",
        "Measure the accuracy of an exported model: box and mask AP against labels, or agreement with another model "
        "where there are no labels. All figures lie between 0 and 1.",
        usage=(
            "MODEL --annotations COCO.json --images DIR [options]",
            "MODEL --against REFERENCE_MODEL --images DIR... [options]",
        ),
        exit_statuses="0 done; 1 failed; 2 usage; 5 the model does not fit this machine; 6 out of memory; 130 "
        "interrupted, 143 terminated (figures are for all images, so none are written).",
        examples=(
            Example("box and mask AP", "yolact-eval my.bundle --annotations val.json --images val/"),
            Example(
                "does INT8 find what float32 finds?",
                "yolact-eval my.bundle --precision int8-cpu --against my.bundle --images frames/",
            ),
        ),
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="bundle folder, or one of its .onnx or .plan files")
    add_eval_options(parser)
    add_machine_options(parser)
    add_common_options(parser)
    return parser


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    from yolact_benchmarks.commands.command_words import check_precisions
    from yolact_calibration.evaluation.coco_evaluator import require_evaluator
    from yolact_runtime.segmenter_options import SegmenterOptions

    check_json_destination(options.json)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit must be 1 or more, found {shown_number(options.limit)}")
    check_most("--limit", options.limit, MAX_COUNT)
    if options.min_confidence is not None and not 0 <= options.min_confidence < 1:
        raise UsageError(f"--min-confidence must be 0 or more and below 1, found {options.min_confidence:g}")
    if options.seed < 0:
        raise UsageError(f"--seed must be 0 or more, found {shown_number(options.seed)}")
    SegmenterOptions(num_threads=options.threads)
    check_bit_depth(options.bit_depth, "--bit-depth")
    check_trust(options)
    check_precisions(options.model, [options.precision] if options.precision else [])
    settings = _bootstrap_settings(options)
    require_evaluator()
    started = time.monotonic()
    measure = _measure_agreement if options.against else _measure_accuracy
    lines, document = measure(options, terminal, settings)
    seconds = time.monotonic() - started
    found = counted(sum(document["instances"].values()), "instance")
    lines += ["", f"{counted(document['images'], 'image')}, {found}, {seconds:.1f} s"]
    if options.json == "-":
        for line in lines:
            terminal.say(line)
    else:
        show_results(lines)
    if options.json:
        write_json({**document, "seconds": round(seconds, 2)}, options.json)
        if options.json != "-":
            terminal.say(f"wrote {options.json} ({human_size(Path(options.json).stat().st_size)})")
    return 0


def _bootstrap_settings(options: argparse.Namespace) -> BootstrapSettings | None:
    from yolact_calibration.evaluation.bootstrap import BootstrapSettings

    if options.bootstrap == 0:
        return None
    if options.bootstrap < 0:
        raise UsageError(f"--bootstrap must be 0 or more, found {shown_number(options.bootstrap)}")
    return BootstrapSettings(num_resamples=options.bootstrap, seed=options.seed)


def _measure_accuracy(
    options: argparse.Namespace, terminal: Terminal, settings: BootstrapSettings | None
) -> tuple[list[str], dict[str, Any]]:
    """Against labels: lines for people and the JSON object."""
    from yolact_benchmarks.commands.command_words import check_image_folder
    from yolact_benchmarks.report.eval_tables import accuracy_lines
    from yolact_calibration.data.annotated_images import AnnotatedImages
    from yolact_calibration.evaluation.accuracy import AccuracyMeter
    from yolact_calibration.evaluation.bootstrap import bootstrap_precision
    from yolact_calibration.evaluation.coco_evaluator import KINDS
    from yolact_calibration.labels.coco import CocoAnnotations

    check_image_folder(options.images)
    annotations = CocoAnnotations.from_file(options.annotations)
    if options.limit is not None:
        annotations = annotations.first(options.limit)
    with _open(options.model, options.precision, options, terminal) as segmenter:
        reader = reader_for_model(options.bit_depth, segmenter.manifest, terminal.warn)
        data = AnnotatedImages.open(annotations, Path(options.images[0]), file_rules(options), reader)
        annotations = data.annotations
        meter = AccuracyMeter(annotations, segmenter.class_names)
        for finding in (*meter.findings, *data.findings):
            terminal.warn(finding)
        data.check(terminal)
        for image in terminal.progress(annotations.images, "images", len(annotations)):
            path = data.path(image)
            meter.add(image.image_id, _segment(segmenter, path, reader.read(path)))
        model = _describe(options.model, segmenter, options)
    accuracy = meter.measure()
    document = {
        **accuracy.document(),
        "model": model,
        "annotations": {"file": str(options.annotations), "sha256": annotations.sha256},
        "findings": [*accuracy.findings, *data.findings],
    }
    kinds = [kind for kind in KINDS if kind == "bbox" or not accuracy.has_boxes_only]
    intervals = {kind: bootstrap_precision(accuracy.matches(kind), settings) for kind in kinds} if settings else None
    document |= _interval_document(intervals, settings)
    return accuracy_lines(accuracy, intervals, options.verbose), document


def _measure_agreement(
    options: argparse.Namespace, terminal: Terminal, settings: BootstrapSettings | None
) -> tuple[list[str], dict[str, Any]]:
    """Against another model: lines for people and the JSON object."""
    from yolact_benchmarks.report.eval_tables import agreement_lines
    from yolact_calibration.evaluation.agreement import AgreementMeter

    paths = _find_images(options, terminal)
    with ExitStack() as stack:
        candidate = stack.enter_context(_open(options.model, options.precision, options, terminal))
        # The float network of a bundle: INT8 is compared with what it was made of, and not with itself.
        precision = "fp32" if options.against.is_dir() else None
        reference = stack.enter_context(_open(options.against, precision, options, terminal))
        _require_same_classes(candidate.class_names, reference.class_names, options)
        meter = AgreementMeter(reference.class_names, 0.3 if options.min_confidence is None else options.min_confidence)
        reader = _reader_for_both(candidate, reference, options, terminal)
        for path in terminal.progress(paths, "images", len(paths)):
            frame = reader.read(path)
            meter.add(str(path), _segment(reference, path, frame), _segment(candidate, path, frame))
        models = {
            "model": _describe(options.model, candidate, options),
            "reference": _describe(options.against, reference, options),
        }
    agreement = meter.measure()
    if not agreement.num_instances:
        terminal.warn(
            f"the reference finds nothing with a confidence above {agreement.min_confidence} in these images, so there "
            f"is nothing to agree on: give other images, or a lower --min-confidence"
        )
    intervals = agreement.intervals(settings) if settings else None
    document = {**agreement.document(), **models, **_interval_document(intervals, settings)}
    return agreement_lines(agreement, intervals, options.verbose), document


def _open(path: Path, precision: str | None, options: argparse.Namespace, terminal: Terminal) -> Segmenter:
    from yolact_runtime.backends.onnxruntime import float16_note
    from yolact_runtime.segmenter import Segmenter, SegmenterOptions

    # No second threshold, as in the published evaluation: AP counts the low scores too.
    settings = SegmenterOptions(min_confidence=0.0, num_threads=options.threads)
    trusted = _is_trusted(path, options)
    segmenter = Segmenter.open(
        path, options.backend, settings, precision, verify_key=options.verify_key, trust_engine=trusted
    )
    manifest, signature = segmenter.manifest, signature_document(path, segmenter, trusted)
    terminal.say(
        f"{path}: {manifest.name} ({manifest.precision}) on {segmenter.backend_name}{signature_words(signature)}"
    )
    if note := float16_note(segmenter.backend_name, manifest.precision):
        terminal.warn(note)
    return segmenter


def _is_trusted(path: Path, options: argparse.Namespace) -> bool:
    """``--trust-engine`` is for the model, and not for what it is compared with."""
    return bool(options.trust_engine and path == options.model)


def _reader_for_both(
    candidate: Segmenter, reference: Segmenter, options: argparse.Namespace, terminal: Terminal
) -> ImageReader:
    depths = {segmenter.manifest.input.bit_depth for segmenter in (candidate, reference)} - {None}
    if len(depths) > 1 and options.bit_depth is None:
        raise UsageError(
            f"{options.model} and {options.against} were calibrated with images of different bit depths, "
            f"{' and '.join(map(str, sorted(filter(None, depths))))}: say with --bit-depth what these images have"
        )
    stated = candidate if candidate.manifest.input.bit_depth is not None else reference
    return reader_for_model(options.bit_depth, stated.manifest, terminal.warn)


def _describe(path: Path, segmenter: Segmenter, options: argparse.Namespace) -> dict[str, str]:
    from yolact_runtime.backends.onnxruntime import float16_note

    note = float16_note(segmenter.backend_name, segmenter.manifest.precision)
    return {
        "file": str(path),
        "name": segmenter.manifest.name,
        "precision": segmenter.manifest.precision,
        "backend": segmenter.backend_name,
        **signature_document(path, segmenter, _is_trusted(path, options)),
        **({} if note is None else {"note": note}),
    }


def _segment(segmenter: Segmenter, path: Path, frame: Any) -> Instances:
    try:
        return segmenter(frame)
    except (FrameError, BackendError) as error:
        # One image less would be another figure: the evaluation ends, and says where.
        raise type(error)(f"{path}: {error}") from error


def _find_images(options: argparse.Namespace, terminal: Terminal) -> list[Path]:
    from yolact_runtime.media.inputs import find_inputs

    inputs = find_inputs(options.images)
    if inputs.failures:
        word, reason = inputs.failures[0]
        raise DatasetError(f"--images {word}: {reason}")
    for sentence in inputs.left_out:
        terminal.warn(sentence)
    if inputs.videos:
        terminal.warn(
            f"left out, because only images are compared: {counted(len(inputs.videos), 'video')}, {inputs.videos[0]} "
            f"first"
        )
    paths = list(inputs.images[: options.limit])
    if not paths:
        raise DatasetError(f"--images {' '.join(options.images)}: no image there")
    _require_files(paths, "--images names")
    return paths


def _require_files(paths: Sequence[Path], who: str) -> None:
    """Every file is there, or nothing starts."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        shown = ", ".join(str(path) for path in missing[:_NAMES_SHOWN])
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        raise DatasetError(
            f"{who} {counted(len(paths), 'image')}, and {len(missing)} of them are not there: {shown}{more}. "
            f"Correct --images"
        )


def _require_same_classes(model: Sequence[str], reference: Sequence[str], options: argparse.Namespace) -> None:
    if tuple(model) == tuple(reference):
        return
    place = next((i for i, pair in enumerate(zip(model, reference, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        reason = f"{counted(len(model), 'class', 'classes')} and {len(reference)}"
    else:
        reason = f'class {place} is "{model[place]}" in one and "{reference[place]}" in the other'
    raise DatasetError(f"{options.model} and {options.against} cannot be compared: {reason}")


def _interval_document(
    intervals: dict[str, dict[str, Interval]] | None, settings: BootstrapSettings | None
) -> dict[str, Any]:
    if intervals is None or settings is None:
        return {}
    return {
        "intervals": {
            "level": settings.confidence_level,
            "resamples": settings.num_resamples,
            "seed": settings.seed,
            **{
                group: {name: interval.document() for name, interval in members.items()}
                for group, members in intervals.items()
            },
        }
    }


if __name__ == "__main__":
    sys.exit(main())
