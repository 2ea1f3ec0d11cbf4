"""The command ``yolact-bench compare OLD.json NEW.json``: exit status 4 if the newer run is slower than allowed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_benchmarks.commands.command_words import parse_fraction
from yolact_benchmarks.report.document import BenchRecordError, read_record
from yolact_plugins.command_line import CommandParser, Example
from yolact_runtime.terminal import Terminal, add_common_options, check_json_destination, show_results, write_json

if TYPE_CHECKING:
    from yolact_benchmarks.report.tables import Table
    from yolact_benchmarks.statistics.compare import Comparison, Ratio

__all__ = ["compare_command", "compare_parser"]

_SLOWER, _UNSTABLE = 4, 7


def compare_parser() -> CommandParser:
    """Return the parser of the words after ``compare``."""
    parser = CommandParser(
        "yolact-bench compare",
        "Compare two records, configuration by configuration: ratios of the medians and of the fastest tenths, with "
        "intervals.",
        usage=("OLD.json NEW.json [options]",),
        exit_statuses="0 no slower than allowed; 1 failed; 2 usage; 4 slower; 5 different machines; 7 it may be "
        "slower, but not surely, or with --strict a measurement was unstable.",
        examples=(Example("fail if 3 % slower", "yolact-bench compare yesterday.json today.json --max-regress 3%"),),
        completes=False,
    )
    parser.add_argument("old", type=Path, metavar="OLD.json", help="record written by yolact-bench --json")
    parser.add_argument("new", type=Path, metavar="NEW.json", help="record of the run to judge")
    options = parser.add_argument_group("options")
    options.add_argument(
        "--max-regress", default="3%", metavar="P%", main=True, help="slowdown that is allowed (default 3%%)"
    )
    options.add_argument("--any-machine", action="store_true", main=True, help="compare records of different machines")
    options.add_argument(
        "--strict", action="store_true", main=True, help="exit with status 7 if a measurement was unstable"
    )
    options.add_argument("--json", metavar="PATH|-", main=True, help="write the comparison as JSON to a file or stdout")
    add_common_options(parser)
    return parser


def compare_command(options: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command and return the exit status."""
    from yolact_benchmarks.report.tables import render_text
    from yolact_benchmarks.statistics.compare import compare_records

    check_json_destination(options.json)
    limit = parse_fraction("--max-regress", options.max_regress)
    old, new = read_record(options.old), read_record(options.new)
    try:
        comparison = compare_records(old, new, limit, options.any_machine)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BenchRecordError(
            f"cannot compare {options.old} and {options.new}: one of them was not written by yolact-bench "
            f"({type(error).__name__}: {error}); measure again with --json NEW.json"
        ) from error
    if not comparison.cases:
        raise BenchRecordError(
            f"{options.old} and {options.new} have no configuration in common; the same networks, sizes and numbers of "
            f"instances have to be in both (found {', '.join(comparison.missing)})"
        )
    lines = render_text([_table(comparison, limit)])
    if options.json == "-":
        for line in lines:
            terminal.say(line)
    else:
        show_results(lines)
    if options.json:
        write_json({"old": str(options.old), "new": str(options.new), **comparison.document()}, options.json)
    for line in comparison.warnings:
        terminal.warn(line)
    if comparison.missing:
        terminal.warn(f"only in one of the records, and not compared: {', '.join(comparison.missing)}")
    if comparison.regressions:
        names = ", ".join(case.name for case in comparison.regressions)
        terminal.error(f"slower by more than {limit:.1%}: {names}")
        return _SLOWER
    if comparison.doubts:
        names = ", ".join(case.name for case in comparison.doubts)
        why = "the intervals are too wide, or the two figures disagree"
        if any(any(case.is_disturbed) for case in comparison.doubts):
            why = "a measurement was disturbed"
        terminal.error(
            f"it cannot be told whether {names} became slower by more than {limit:.1%}, because {why}; measure both "
            f"again, with a longer --duration and more --processes"
        )
        return _UNSTABLE
    is_stable = all(case.is_stable for case in comparison.cases)
    return _UNSTABLE if options.strict and not is_stable else 0


def _table(comparison: Comparison, limit: float) -> Table:
    from yolact_benchmarks.report.tables import Table

    rows = [
        (
            case.name,
            f"{case.old_ms:.2f}",
            f"{case.new_ms:.2f}",
            _shown(case.median),
            _shown(case.fast),
            case.outcome + ("" if case.is_stable else " !"),
        )
        for case in comparison.cases
    ]
    heads = ("configuration", "old ms", "new ms", "median", "fastest 1/10", "")
    note = (
        f"slower: by more than {limit:.1%}, and surely slower at all; ± half the 95 % interval of the ratio over "
        f"processes; ! a measurement was unstable"
    )
    return Table("new over old", heads, tuple(rows), 1, (note,))


def _shown(ratio: Ratio) -> str:
    return f"{ratio.ratio:.3f} ± {ratio.relative_half_width:.1%}"
