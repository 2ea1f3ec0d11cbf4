"""``yolact-run``: images and videos in, overlays and JSON out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from yolact_runtime.commands.overlay_options import add_overlay_options, check_overlay_options
from yolact_runtime.cpu.nms import NmsMethod
from yolact_runtime.errors import UsageError
from yolact_runtime.terminal import Terminal, add_common_options, check_json_destination, run_command

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_command(_parser(), _run, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="yolact-run",
        description="Find instances in images and videos with an exported YOLACT model.",
        epilog="Exit status: 0 all inputs done; 1 something failed (the rest was done); 2 usage; 8 the self-test "
        "failed or cannot be run, nothing was done; 130 interrupted.",
    )
    parser.add_argument(
        "model", type=Path, help="bundle folder, .onnx file or .plan in its bundle, written by yolact-export"
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image, video, folder or glob")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT_DIR", help="write pictures with masks here")
    parser.add_argument(
        "--json", metavar="PATH|-", help="write results as JSON (masks as COCO RLE) to a file or stdout"
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.3,
        help="second score threshold: leave out instances at or below it (default 0.3; published 0)",
    )
    parser.add_argument(
        "--nms",
        choices=[method.value for method in NmsMethod],
        default=NmsMethod.FAST.value,
        help="fast: published default; cross-class: one object, one class; traditional: greedy (default fast)",
    )
    parser.add_argument("--top-k", type=int, metavar="N", help="keep the N best instances of each image")
    add_overlay_options(parser)
    more = parser.add_argument_group("beyond the published behaviour")
    more.add_argument(
        "--crop-margin", type=float, default=0.0, metavar="F", help="widen the mask crop by this fraction of the box"
    )
    more.add_argument("--no-mask-rescoring", action="store_true", help="YOLACT++: skip the mask-IoU network")
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
    machine.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; 0 lets the backend choose")
    machine.add_argument(
        "--self-test",
        action="store_true",
        help="first compare what the model makes here of its bundle's golden frame with what it made at export; "
        "without INPUT do only that",
    )
    add_common_options(parser)
    return parser


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    from yolact_runtime.commands.run_job import RunJob
    from yolact_runtime.commands.self_test_command import check_model, open_model, show_result
    from yolact_runtime.media.inputs import find_inputs
    from yolact_runtime.segmenter_options import SegmenterOptions

    check_json_destination(options.json)
    check_overlay_options(options)
    if options.top_k is not None and options.top_k < 1:
        raise UsageError(f"--top-k must be 1 or more, found {options.top_k}")
    if options.output and options.output.exists() and not options.output.is_dir():
        raise UsageError(f"-o wants a folder for the pictures: {options.output} is not a folder")
    segmenter_options = SegmenterOptions(
        nms=NmsMethod(options.nms),
        min_confidence=options.score,
        crop_margin=options.crop_margin,
        mask_rescoring=not options.no_mask_rescoring,
        num_threads=options.threads,
    )
    if not options.inputs and not options.self_test:
        raise UsageError("name an INPUT: an image, a video, a folder or a glob; or --self-test")
    inputs = find_inputs(options.inputs)
    with open_model(options, segmenter_options) as segmenter:
        terminal.say(f"{segmenter.manifest.name} ({segmenter.manifest.precision}) on {segmenter.backend_name}")
        if options.self_test:
            tested = check_model(segmenter, options)
            if not options.inputs:
                show_result(tested, options)
                return 0
            terminal.say(str(tested))
        job = RunJob(options, terminal, segmenter, frozenset(path.resolve() for path in inputs.images + inputs.videos))
        try:
            for word, reason in inputs.failures:
                job.fail(word, reason)
            for path in terminal.progress(inputs.images, "images", len(inputs.images)):
                job.run_image(path)
            for path in inputs.videos:
                job.run_video(path)
        except KeyboardInterrupt:
            # What is done is kept; the command still ends as an interrupted one.
            job.finish()
            raise
    return job.finish()


if __name__ == "__main__":
    sys.exit(main())
