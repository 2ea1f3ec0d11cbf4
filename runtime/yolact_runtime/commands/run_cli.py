"""The command line of ``yolact-run``: images and videos in, overlays and JSON out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_plugins.command_line import CommandParser, Example, OptionGroup, in_jobs
from yolact_runtime.commands.machine_options import add_machine_options
from yolact_runtime.commands.overlay_options import add_overlay_options, check_overlay_options
from yolact_runtime.commands.run_words import INPUTS, check_words, job_of, typed_output
from yolact_runtime.commands.signature_options import check_trust, signature_document, signature_words
from yolact_runtime.cpu.nms import NmsMethod
from yolact_runtime.errors import SelfTestError, UsageError
from yolact_runtime.media.image_reader import add_bit_depth_option
from yolact_runtime.option_numbers import real_number, whole_number
from yolact_runtime.segmenter_options import SegmenterOptions
from yolact_runtime.terminal import Terminal, add_common_options, run_command

if TYPE_CHECKING:
    from yolact_runtime.commands.run_job import RunJob
    from yolact_runtime.segmenter import Segmenter

__all__ = ["main"]

_WITH_INPUTS = in_jobs(
    INPUTS, otherwise="in a self-test alone, which has a frame and thresholds of its own", advice="name an INPUT"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_parser(), _run, arguments)


def _parser() -> CommandParser:
    parser = CommandParser(
        "yolact-run",
        "Find instances in images and videos with an exported YOLACT model.",
        usage=("MODEL INPUT... [options]", "MODEL --self-test [options]"),
        exit_statuses="0 all inputs done; 1 something failed (the rest was done); 2 usage; 5 the model does not fit "
        "this machine; 6 out of memory; 8 the self-test failed or cannot be run, nothing was done; 130 interrupted, "
        "143 terminated (what was done is written).",
        examples=(
            Example("draw masks on a picture", "yolact-run my.bundle photo.jpg -o out"),
            Example("masks of a folder as JSON (COCO RLE)", "yolact-run my.bundle images/ --json results.json"),
            Example("one line for each frame, as it is done", "yolact-run my.bundle video.mp4 --jsonl -"),
            Example("does the model work on this machine?", "yolact-run my.bundle --self-test"),
        ),
        job_of=job_of,
        intermixed=True,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="bundle folder, or one of its .onnx or .plan files")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image, video, folder or glob")
    _add_results(parser.add_argument_group("results"))
    add_overlay_options(parser, [_WITH_INPUTS])
    _add_detection(parser.add_argument_group("detection", rules=[_WITH_INPUTS]))
    add_bit_depth_option(parser.add_argument_group("images", rules=[_WITH_INPUTS]))
    add_machine_options(parser)
    more = parser.add_argument_group("model")
    more.add_argument(
        "--no-mask-rescoring", action="store_true", help="YOLACT++: skip the network that re-scores masks"
    )
    more.add_argument(
        "--self-test",
        action="store_true",
        main=True,
        help="first check that the model's output on its golden frame is what it was at export; without INPUT do only "
        "that",
    )
    add_common_options(parser)
    return parser


def _add_results(group: OptionGroup) -> None:
    group.add_argument(
        "-o",
        "--output",
        type=typed_output,
        metavar="OUT_DIR",
        main=True,
        rules=[_WITH_INPUTS],
        help="write pictures with masks here",
    )
    group.add_argument(
        "--json",
        metavar="PATH|-",
        main=True,
        help="write results, or the self-test's, as JSON (masks as COCO RLE) to a file or stdout",
    )
    group.add_argument(
        "--jsonl",
        metavar="PATH|-",
        main=True,
        rules=[_WITH_INPUTS],
        help="write results as JSON Lines, a line for each image or frame as soon as it is done",
    )


def _add_detection(group: OptionGroup) -> None:
    group.add_argument(
        "--score",
        type=real_number,
        default=0.3,
        metavar="S",
        field="min_confidence",
        main=True,
        help="leave out instances with this score or less (default 0.3; 0, as published, keeps all)",
    )
    group.add_argument(
        "--top-k", type=whole_number, metavar="N", main=True, help="keep the N best instances of each image"
    )
    group.add_argument(
        "--nms",
        choices=[method.value for method in NmsMethod],
        default=NmsMethod.FAST.value,
        metavar="NAME",
        help="fast, as published; cross-class: one class for each object; or traditional (default fast)",
    )
    group.add_argument(
        "--crop-margin",
        type=real_number,
        default=0.0,
        metavar="F",
        help="crop masks to boxes that are larger by this fraction on each side (default 0, as published)",
    )


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    from yolact_runtime.commands.run_job import RunJob

    check_words(options)
    check_overlay_options(options)
    check_trust(options)
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
        if options.no_mask_rescoring and not segmenter.manifest.mask_rescoring:
            raise UsageError(
                f"--no-mask-rescoring has no effect on {options.model}: only YOLACT++ has a network that re-scores "
                f"masks; leave it out"
            )
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
