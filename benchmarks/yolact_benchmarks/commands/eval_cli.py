"""The command ``yolact-eval``: accuracy of a model against labels, or agreement with another model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_benchmarks.commands.eval_options import add_eval_options
from yolact_calibration.labels.options import file_rules
from yolact_plugins.command_line import CommandParser, Example
from yolact_plugins.files import counted, human_size
from yolact_runtime.commands.machine_options import add_machine_options
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.terminal import (
    Terminal,
    add_common_options,
    check_json_destination,
    run_command,
    show_results,
    write_json,
)

if TYPE_CHECKING:
    from yolact_benchmarks.facade.evaluation import Evaluation, EvaluationOptions

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
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
    from yolact_benchmarks.facade.evaluation import evaluate

    check_json_destination(options.json)
    check_bit_depth(options.bit_depth, "--bit-depth")
    result = evaluate(
        options.model,
        options.images,
        annotations=options.annotations,
        against=options.against,
        backend=options.backend,
        precision=options.precision,
        options=_evaluation_options(options),
        reporter=terminal,
    )
    _show(result, options, terminal)
    return 0


def _evaluation_options(options: argparse.Namespace) -> EvaluationOptions:
    from yolact_benchmarks.facade.evaluation import EvaluationOptions

    return EvaluationOptions(
        limit=options.limit,
        min_confidence=options.min_confidence,
        num_resamples=options.bootstrap,
        seed=options.seed,
        num_threads=options.threads,
        bit_depth=options.bit_depth,
        rules=file_rules(options),
        verify_keys=tuple(options.verify_key or ()),
        trust_engine=options.trust_engine,
    )


def _show(result: Evaluation, options: argparse.Namespace, terminal: Terminal) -> None:
    from yolact_benchmarks.report.eval_tables import accuracy_lines, agreement_lines
    from yolact_calibration.evaluation.accuracy import Accuracy

    figures = result.figures
    if isinstance(figures, Accuracy):
        lines = accuracy_lines(figures, result.intervals, options.verbose)
    else:
        lines = agreement_lines(figures, result.intervals, options.verbose)
    found = counted(sum(figures.num_instances.values()), "instance")
    lines += ["", f"{counted(figures.num_images, 'image')}, {found}, {result.seconds:.1f} s"]
    if options.json == "-":
        for line in lines:
            terminal.say(line)
    else:
        show_results(lines)
    if options.json:
        write_json(result.document(), options.json)
        if options.json != "-":
            terminal.say(f"wrote {options.json} ({human_size(Path(options.json).stat().st_size)})")


if __name__ == "__main__":
    sys.exit(main())
