"""The command ``yolact-bench``: speed of a model, stability of the measurement, and accuracy beside speed."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_benchmarks.commands.bench_options import add_bench_options, add_output_options
from yolact_benchmarks.commands.command_words import (
    FOUND,
    parse_fraction,
    parse_numbers,
    parse_sizes,
)
from yolact_benchmarks.commands.compare_cli import compare_command, compare_parser
from yolact_calibration.labels.options import file_rules
from yolact_plugins.command_line import CommandParser, Example
from yolact_plugins.files import human_size, write_atomically
from yolact_runtime.commands.machine_options import add_machine_options
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.errors import UsageError
from yolact_runtime.option_numbers import check_most, shown_number
from yolact_runtime.terminal import (
    Terminal,
    add_common_options,
    check_json_destination,
    run_command,
    show_results,
    write_json,
)

if TYPE_CHECKING:
    from yolact_benchmarks.facade.benchmark import Benchmark
    from yolact_benchmarks.measure.request import BenchRequest

__all__ = ["main"]

_UNSTABLE = 7
_COMPARE = "compare"
_UNTIL_CI_MOST_S = 120.0
_MOST_S = 86_400.0
"""Longest time that an option accepts: a day, in seconds."""
# Defaults; those that apply are printed.
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
    """Run the command and return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == [_COMPARE]:
        return run_command(compare_parser(), compare_command, words[1:])
    return run_command(_parser(), lambda options, terminal: _run(options, terminal, words), words)


def _parser() -> CommandParser:
    parser = CommandParser(
        "yolact-bench",
        "Measure the time from a frame in memory to its instances, stage by stage, and watch the machine meanwhile.",
        usage=("MODEL [options]", "compare OLD.json NEW.json [options]"),
        exit_statuses="0 done; 1 failed; 2 usage; 5 the model does not fit this machine; 6 out of memory; 7 unstable, "
        "with --strict; 130 interrupted, 143 terminated. compare: 4 slower than allowed.",
        examples=(
            Example("drawn frames with 1, 10 and 100 instances", "yolact-bench my.bundle"),
            Example("your frames, two networks", "yolact-bench my.bundle --images frames/ --precision fp32,int8-cpu"),
            Example("keep a record and a report", "yolact-bench my.bundle --json today.json --html today.html"),
            Example("did it become slower?", "yolact-bench compare yesterday.json today.json"),
        ),
        subcommands={_COMPARE: compare_parser},
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="bundle folder, or one of its .onnx or .plan files")
    add_bench_options(parser)
    add_machine_options(parser, several_networks=True)
    add_output_options(parser.add_argument_group("output"))
    add_common_options(parser)
    return parser


def _run(options: argparse.Namespace, terminal: Terminal, words: Sequence[str]) -> int:
    from yolact_benchmarks.facade.benchmark import run_benchmark

    defaults = _fill_defaults(options)
    request = _request(options)
    check_json_destination(options.json)
    _check_destinations(options)
    if defaults:
        terminal.say(f"defaults: {' '.join(defaults)}")
    result = run_benchmark(request, shlex.join(["yolact-bench", *words]), defaults, terminal)
    _show(result.record, options, terminal)
    _write(result, options, terminal)
    if options.strict and not result.is_stable:
        terminal.error("the measurement is unstable, and --strict was given")
        return _UNSTABLE
    return 0


def _fill_defaults(options: argparse.Namespace) -> list[str]:
    """Fill in options that were not given, and return these as words of a command line."""
    defaults = dict(_DEFAULTS)
    if options.images != defaults["images"]:
        defaults["instances"] = FOUND
        defaults.pop("size")
        options.size = ""
    if options.until_ci is not None:
        defaults["duration"] = _UNTIL_CI_MOST_S
    told = []
    for name, value in defaults.items():
        if name not in options.typed:
            setattr(options, name, value)
            shown = " ".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else value
            told.append(f"--{name.replace('_', '-')} {shown}")
    return told


def _request(options: argparse.Namespace) -> BenchRequest:
    from yolact_benchmarks.facade.benchmark import check_request
    from yolact_benchmarks.measure.measurement import Plan
    from yolact_benchmarks.measure.request import BenchRequest

    _check_words(options)
    until = None if options.until_ci is None else parse_fraction("--until-ci", options.until_ci)
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
    if options.precision and not request.precisions:
        raise UsageError(
            f'--precision takes names of networks, such as fp32,int8-cpu, or all; found "{options.precision}"'
        )
    check_request(request)
    return request


def _check_words(options: argparse.Namespace) -> None:
    """Refuse numbers that are out of range."""
    from yolact_benchmarks.measure.request import MAX_PROCESSES

    for name in ("duration", "warm_up", "stream"):
        # A measurement needs time; the other two may be left out.
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
    check_bit_depth(options.bit_depth, "--bit-depth")


def _check_destinations(options: argparse.Namespace) -> None:
    """Refuse destinations that cannot be written before the measurement starts."""
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


def _show(record: Mapping[str, Any], options: argparse.Namespace, terminal: Terminal) -> None:
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


def _write(result: Benchmark, options: argparse.Namespace, terminal: Terminal) -> None:
    written = []
    if options.markdown and options.markdown != "-":
        written.append(Path(options.markdown))
        write_atomically(written[-1], result.markdown().encode("utf-8", "backslashreplace"))
    if options.html:
        written.append(options.html)
        write_atomically(options.html, result.html().encode())
    if options.json:
        write_json(result.record, options.json)
        if options.json != "-":
            written.append(Path(options.json))
    for path in written:
        terminal.say(f"wrote {path} ({human_size(path.stat().st_size)})")
    if options.json and options.json != "-":
        terminal.say(f"next: yolact-bench compare {shlex.quote(options.json)} NEW.json --max-regress 3%")


if __name__ == "__main__":
    sys.exit(main())
