"""``yolact-bench``: how fast a model is, whether the machine let it be measured, and what speed costs in accuracy."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_benchmarks.commands.command_words import (
    FOUND,
    check_image_folder,
    check_precisions,
    parse_fraction,
    parse_numbers,
    parse_sizes,
)
from yolact_calibration.labels.options import add_file_rules, file_rules
from yolact_plugins.files import human_size, write_atomically
from yolact_runtime.commands.signature_options import add_trust_options, check_trust
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.errors import UsageError
from yolact_runtime.media.image_reader import add_bit_depth_option
from yolact_runtime.option_numbers import check_most, real_number, shown_number, whole_number
from yolact_runtime.terminal import (
    Terminal,
    add_common_options,
    check_json_destination,
    named_as_options,
    run_command,
    show_results,
    write_json,
)

if TYPE_CHECKING:
    from yolact_benchmarks.measure.request import BenchRequest

__all__ = ["main"]

_UNSTABLE = 7
_COMPARE = "compare"
_OPTION_OF_FIELD = {"min_confidence": "--min-confidence", "num_threads": "--threads"}
_UNTIL_CI_MOST_S = 120.0
_MOST_S = 86_400.0
"""A day."""
# In force where nothing else is given; what was not given is said.
_DEFAULTS: dict[str, Any] = {
    "images": ["synthetic"],
    "instances": "1,10,100",
    "size": "1280x720,1920x1080",
    "duration": 10.0,
    "warm_up": 1.0,
    "processes": 5,
    "min_confidence": 0.3,
    "backend": "auto",
    "threads": 0,
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == [_COMPARE]:
        from yolact_benchmarks.commands.compare_cli import compare_command, compare_parser

        return run_command(compare_parser(), compare_command, words[1:])
    return run_command(_parser(), lambda options, terminal: _run(options, terminal, words), words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="yolact-bench",
        description="Measure what a robot feels: from a frame in memory to its instances, by stages, with the machine "
        "watched meanwhile. `yolact-bench compare OLD.json NEW.json` compares two runs.",
        epilog="Exit status: 0 done; 1 failed; 2 usage; 5 the model does not fit this machine; 6 out of memory; "
        "7 unstable, with --strict; 130 interrupted, 143 terminated. compare: 4 slower than allowed.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="bundle folder, or one of its .onnx or .plan files")
    _add_frames(parser)
    _add_length(parser)
    _add_accuracy(parser)
    parser.add_argument("--layers", action="store_true", help="time by part of the model: res4, protonet, …")
    parser.add_argument("--peers", action="store_true", help="what you would use instead, in turns with this model")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE.pth", help="with --peers: for those with PyTorch")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--backend", help="auto or a backend's name (default auto)")
    machine.add_argument(
        "--precision",
        default="",
        metavar="NAMES",
        help="networks of a bundle, side by side: fp32,int8-cpu, or all (default: what the backend runs best)",
    )
    machine.add_argument(
        "--threads", type=whole_number, metavar="N", help="CPU threads; 0 lets the backend choose (default 0)"
    )
    add_trust_options(machine)
    output = parser.add_argument_group("output")
    output.add_argument("--json", metavar="PATH|-", help="write the record, with every sample, to a file or stdout")
    output.add_argument("--html", type=Path, metavar="PATH", help="write a report that stands alone")
    output.add_argument("--markdown", metavar="PATH|-", help="write the tables in Markdown to a file or stdout")
    output.add_argument("--strict", action="store_true", help="exit 7 where a measurement is unstable")
    add_common_options(parser)
    return parser


def _add_frames(parser: argparse.ArgumentParser) -> None:
    frames = parser.add_argument_group("frames")
    frames.add_argument(
        "--images",
        nargs="+",
        metavar="DIR",
        help="folder, files or globs of pictures; the word camera (camera:1: the second one); or synthetic: "
        "drawn scenes (default synthetic)",
    )
    add_bit_depth_option(frames)
    frames.add_argument(
        "--instances",
        metavar="N,N",
        help="exactly so many in every frame, or the word found: what the network finds (default 1,10,100; with "
        "pictures found)",
    )
    frames.add_argument("--size", metavar="WxH,WxH", help="of drawn frames (default 1280x720,1920x1080)")
    frames.add_argument(
        "--min-confidence", type=real_number, metavar="C", help="second score threshold, as of yolact-run (default 0.3)"
    )


def _add_length(parser: argparse.ArgumentParser) -> None:
    length = parser.add_argument_group("how long")
    length.add_argument("--duration", type=real_number, metavar="S", help="seconds for each configuration (default 10)")
    length.add_argument(
        "--until-ci",
        metavar="P%",
        help="go on until every median is known to this, such as 1%%; at most --duration each (default then 120)",
    )
    length.add_argument("--warm-up", type=real_number, metavar="S", help="seconds before anything counts (default 1)")
    length.add_argument(
        "--processes",
        type=whole_number,
        metavar="N",
        help="fresh ones that share the time, because each is a little faster or slower than the last; with --until-ci "
        "the least; 1: only this one (default 5)",
    )
    length.add_argument(
        "--cold-starts", type=whole_number, default=3, metavar="N", help="fresh processes; 0: none (default 3)"
    )
    length.add_argument("--stream", type=real_number, default=3.0, metavar="S", help="seconds; 0: none (default 3)")


def _add_accuracy(parser: argparse.ArgumentParser) -> None:
    accuracy = parser.add_argument_group("accuracy beside speed (with --images DIR)")
    truth = accuracy.add_mutually_exclusive_group()
    truth.add_argument("--annotations", type=Path, metavar="COCO.json", help="labels: box and mask AP")
    truth.add_argument("--against", type=Path, metavar="MODEL", help="no labels: agreement with this model")
    add_file_rules(accuracy)


def _run(options: argparse.Namespace, terminal: Terminal, words: Sequence[str]) -> int:
    from yolact_benchmarks.commands.bench_session import run_bench
    from yolact_benchmarks.report.document import envelope

    defaults = _fill_defaults(options)
    request = _request(options)
    check_json_destination(options.json)
    _check_destinations(options)
    if defaults:
        terminal.say(f"defaults: {' '.join(defaults)}")
    results = run_bench(request, terminal)
    pictures = results.pop("pictures", None)
    command = shlex.join(["yolact-bench", *words])
    record = envelope(command, {**request.settings(), "defaults": defaults}, results)
    _show(record, options, terminal)
    _write(record, pictures, options, terminal)
    is_stable = all(case["verdict"]["stable"] for case in results["cases"])
    if not is_stable and options.strict:
        terminal.error("the measurement is unstable, and --strict was given")
        return _UNSTABLE
    return 0


def _fill_defaults(options: argparse.Namespace) -> list[str]:
    """Fill in what was not given; returns it in words of the command line."""
    defaults = dict(_DEFAULTS)
    if options.images is not None and options.images != defaults["images"]:
        defaults["instances"] = FOUND
        if options.size is not None:
            raise UsageError("--size is that of drawn frames; pictures have their own: leave out --size or --images")
        defaults.pop("size")
        options.size = ""
    if options.until_ci is not None:
        defaults["duration"] = _UNTIL_CI_MOST_S
    told = []
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
            shown = " ".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else value
            told.append(f"--{name.replace('_', '-')} {shown}")
    return told


def _request(options: argparse.Namespace) -> BenchRequest:
    from yolact_benchmarks.measure.measurement import Plan
    from yolact_benchmarks.measure.request import BenchRequest

    _check_words(options)
    check_trust(options)
    until = None if options.until_ci is None else parse_fraction("--until-ci", options.until_ci)
    with named_as_options(_OPTION_OF_FIELD):
        request = BenchRequest(
            model=options.model,
            images=tuple(options.images),
            instances=parse_numbers(options.instances),
            sizes=parse_sizes(options.size) if options.size else (),
            plan=Plan(options.duration, until, options.warm_up),
            num_processes=options.processes,
            precisions=tuple(filter(None, options.precision.split(","))),
            backend=options.backend,
            num_threads=options.threads,
            min_confidence=options.min_confidence,
            annotations=options.annotations,
            against=options.against,
            num_cold_starts=options.cold_starts,
            streaming_s=options.stream,
            with_pictures=options.html is not None,
            with_layers=options.layers,
            with_peers=options.peers,
            checkpoint=options.checkpoint,
            rules=file_rules(options),
            bit_depth=options.bit_depth,
            verify_keys=tuple(options.verify_key or ()),
            trust_engine=options.trust_engine,
        )
        _ = request.options  # made now: a word that does not fit need not wait for the models
    check_precisions(request.model, [name for name in request.precisions if name != "all"])
    _check_files(options, request)
    return request


def _check_words(options: argparse.Namespace) -> None:
    """Refuse numbers that are out of range, and options that belong to others."""
    from yolact_benchmarks.measure.request import MAX_PROCESSES

    for name in ("duration", "warm_up", "stream"):
        # Without any time there is nothing to measure; the others may be left out.
        bounds = "above 0" if name == "duration" else "from 0"
        seconds = getattr(options, name)
        if not 0 <= seconds <= _MOST_S or (name == "duration" and seconds == 0):
            raise UsageError(
                f"--{name.replace('_', '-')} is a number of seconds, {bounds} to {_MOST_S:.0f}; found {seconds:g}"
            )
    for name, least in (("cold_starts", 0), ("processes", 1)):
        option, value = f"--{name.replace('_', '-')}", getattr(options, name)
        if value < least:
            raise UsageError(f"{option} is {least} or more, found {shown_number(value)}")
        check_most(option, value, MAX_PROCESSES)
    if options.checkpoint and not options.peers:
        raise UsageError("--checkpoint is for the peers that run it: give --peers too")
    check_bit_depth(options.bit_depth, "--bit-depth")


def _check_files(options: argparse.Namespace, request: BenchRequest) -> None:
    """What is opened after the speed was measured: a slip of the pen need not wait for that."""
    if options.annotations is None and (options.skip_missing or options.allow_outside):
        raise UsageError("--skip-missing and --allow-outside belong to --annotations, which was not given")
    if (options.annotations or options.against) and request.is_live:
        raise UsageError("--annotations and --against need pictures: --images DIR")
    if options.annotations:
        check_image_folder(options.images)
    for name in ("annotations", "against", "checkpoint"):
        if (path := getattr(options, name)) is not None and not path.exists():
            raise UsageError(f"--{name}: there is no {path}")


def _check_destinations(options: argparse.Namespace) -> None:
    """Refuse what cannot be written before anything takes its time."""
    if options.json == "-" and options.markdown == "-":
        raise UsageError("--json - and --markdown - would both write to stdout; give one of them a file")
    markdown = None if options.markdown in {None, "-"} else Path(options.markdown)
    for option, path, suffixes in (
        ("--html", options.html, {".html", ".htm"}),
        ("--markdown", markdown, {".md", ".markdown"}),
    ):
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise UsageError(f"{option} writes {' or '.join(sorted(suffixes))} files; found {path}")
        if not path.absolute().parent.is_dir():
            raise UsageError(
                f"{option} cannot write {path}: there is no folder {path.parent}. Correct the path, or make "
                f"the folder: mkdir -p {shlex.quote(str(path.parent))}"
            )


def _show(record: dict[str, Any], options: argparse.Namespace, terminal: Terminal) -> None:
    from yolact_benchmarks.report.tables import bench_tables, render_markdown, render_text, unstable_lines

    tables = bench_tables(record["results"])
    if options.markdown == "-":
        show_results(render_markdown(tables).removesuffix("\n").split("\n"))
    lines = render_text(tables)
    if options.json == "-" or options.markdown == "-":
        for line in lines:
            terminal.say(line)
    else:
        show_results(lines)
    for line in unstable_lines(record["results"]):
        terminal.warn(line)


def _write(
    record: dict[str, Any], pictures: list[dict[str, Any]] | None, options: argparse.Namespace, terminal: Terminal
) -> None:
    from yolact_benchmarks.report.tables import bench_tables, render_markdown

    written = []
    if options.markdown and options.markdown != "-":
        written.append(Path(options.markdown))
        write_atomically(
            written[-1], render_markdown(bench_tables(record["results"])).encode("utf-8", "backslashreplace")
        )
    if options.html:
        from yolact_benchmarks.report.report import draw_bench_report

        written.append(options.html)
        write_atomically(options.html, draw_bench_report(record, pictures).encode())
    if options.json:
        write_json(record, options.json)
        if options.json != "-":
            written.append(Path(options.json))
    for path in written:
        terminal.say(f"wrote {path} ({human_size(path.stat().st_size)})")
    if options.json and options.json != "-":
        terminal.say(f"next: yolact-bench compare {shlex.quote(options.json)} NEW.json --max-regress 3%")


if __name__ == "__main__":
    sys.exit(main())
