"""The command line of ``yolact-run``: images and videos in, overlays and JSON out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_runtime.commands.overlay_options import add_overlay_options, check_overlay_options
from yolact_runtime.commands.run_words import check_words, typed_output
from yolact_runtime.commands.signature_options import (
    add_trust_options,
    check_trust,
    signature_document,
    signature_words,
)
from yolact_runtime.cpu.nms import NmsMethod
from yolact_runtime.errors import SelfTestError, UsageError
from yolact_runtime.media.image_reader import add_bit_depth_option
from yolact_runtime.option_numbers import real_number, whole_number
from yolact_runtime.segmenter_options import SegmenterOptions
from yolact_runtime.terminal import Terminal, add_common_options, named_as_options, run_command

if TYPE_CHECKING:
    from yolact_runtime.commands.run_job import RunJob
    from yolact_runtime.segmenter import Segmenter

__all__ = ["main"]

_OPTION_OF_FIELD = {"min_confidence": "--score", "crop_margin": "--crop-margin", "num_threads": "--threads"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_parser(), _run, arguments)


class _AnyOrderParser(argparse.ArgumentParser):
    """A parser that accepts inputs behind options, too; argparse ends a list of words at the first option."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        return self.parse_intermixed_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = _AnyOrderParser(
        prog="yolact-run",
        description="Find instances in images and videos with an exported YOLACT model.",
        epilog="Exit status: 0 all inputs done; 1 something failed (the rest was done); 2 usage; 5 the model does "
        "not fit this machine; 6 out of memory; 8 the self-test failed or cannot be run, nothing "
        "was done; 130 interrupted, 143 terminated (what was done is written).",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="bundle folder, or one of its .onnx or .plan files")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image, video, folder or glob")
    add_bit_depth_option(parser)
    parser.add_argument("-o", "--output", type=typed_output, metavar="OUT_DIR", help="write pictures with masks here")
    parser.add_argument(
        "--json", metavar="PATH|-", help="write results as JSON (masks as COCO RLE) to a file or stdout"
    )
    parser.add_argument(
        "--jsonl",
        metavar="PATH|-",
        help="write results as JSON Lines, a line for each image or frame as soon as it is done",
    )
    parser.add_argument(
        "--score",
        type=real_number,
        default=0.3,
        help="second score threshold: leave out instances at or below it (default 0.3; published 0)",
    )
    parser.add_argument(
        "--nms",
        choices=[method.value for method in NmsMethod],
        default=NmsMethod.FAST.value,
        help="fast: published default; cross-class: one object, one class; traditional: greedy (default fast)",
    )
    parser.add_argument("--top-k", type=whole_number, metavar="N", help="keep the N best instances of each image")
    add_overlay_options(parser)
    more = parser.add_argument_group("beyond the published behaviour")
    more.add_argument(
        "--crop-margin",
        type=real_number,
        default=0.0,
        metavar="F",
        help="widen the mask crop by this fraction of the box",
    )
    more.add_argument("--no-mask-rescoring", action="store_true", help="YOLACT++: skip the mask-IoU network")
    _add_machine(parser)
    add_common_options(parser)
    return parser


def _add_machine(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--backend",
        default="auto",
        help="auto, tensorrt, tensorrt-rtx, onnxruntime-cuda or onnxruntime-cpu (default auto)",
    )
    machine.add_argument(
        "--precision",
        metavar="NAME",
        help="which network of a bundle: fp32, fp16, int8, int8-cpu (default: what the backend runs best)",
    )
    machine.add_argument(
        "--threads", type=whole_number, default=0, metavar="N", help="CPU threads; 0 lets the backend choose"
    )
    machine.add_argument(
        "--self-test",
        action="store_true",
        help="first compare what the model makes here of its bundle's golden frame with what it made at export; "
        "without INPUT do only that",
    )
    add_trust_options(machine)


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    from yolact_runtime.commands.run_job import RunJob

    check_words(options)
    check_overlay_options(options)
    check_trust(options)
    with named_as_options(_OPTION_OF_FIELD):
        segmenter_options = SegmenterOptions(
            nms=NmsMethod(options.nms),
            min_confidence=options.score,
            crop_margin=options.crop_margin,
            mask_rescoring=not options.no_mask_rescoring,
            num_threads=options.threads,
        )
    job = RunJob(options, terminal)
    try:
        if _run_job(job, options, terminal, segmenter_options):
            return job.finish()
    except (UsageError, SelfTestError):
        # No inputs were processed; the self-test has written its result.
        raise
    except BaseException as error:
        try:
            job.stop(error)
        except BaseException:
            job.abandon()
            raise
        raise
    return 0


def _run_job(job: RunJob, options: argparse.Namespace, terminal: Terminal, segmenter_options: SegmenterOptions) -> bool:
    """Run everything but the end; return False if there was only a self-test."""
    from yolact_runtime.commands.self_test_command import check_model, open_model, show_result
    from yolact_runtime.media.inputs import find_inputs

    inputs = find_inputs(options.inputs)
    for sentence in inputs.left_out:
        terminal.warn(sentence)
    with open_model(options, segmenter_options) as segmenter:
        signature = signature_document(options.model, segmenter, options.trust_engine)
        terminal.say(
            f"{segmenter.manifest.name} ({segmenter.manifest.precision}) on {segmenter.backend_name}"
            f"{_where(segmenter)}{signature_words(signature)}"
        )
        if options.self_test:
            tested = check_model(segmenter, options)
            if not options.inputs:
                show_result(tested, options, signature)
                return False
            terminal.say(str(tested))
        job.run(segmenter, inputs, signature)
    return True


def _where(segmenter: Segmenter) -> str:
    """Describe where frames are prepared and masks made, for the backend where that depends on installed packages."""
    place = segmenter.postprocessing.upper()
    return f", post-processing on the {place}" if segmenter.backend_name == "onnxruntime-cuda" else ""


if __name__ == "__main__":
    sys.exit(main())
