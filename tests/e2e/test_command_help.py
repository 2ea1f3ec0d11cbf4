"""Help of every command: short, complete, with examples that work."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from support.commands import COMMANDS, PARSERS, PROJECT, entry_point, parser_of
from yolact_plugins.command_line import CommandParser, completion

MOST_OPTIONS, MOST_LINES = 12, 80
# What an engineer types first. The words before an option are those of a command that works.
MISTAKES = [
    ("yolact-run", "", "missing: MODEL, INPUT; see yolact-run --help"),
    ("yolact-run", "my.bundle", "name an INPUT: an image, a video, a folder or a glob; or --self-test"),
    ("yolact-run", "my.bundle a.jpg --treshold 0.5", "unknown option --treshold; see yolact-run --help"),
    ("yolact-run", "my.bundle a.jpg -output out", "unknown option -output (did you mean --output?); see"),
    ("yolact-run", "my.bundle a.jpg --thread 4", "unknown option --thread (did you mean --threads?); see"),
    ("yolact-run", "my.bundle a.jpg --backend trt", "--backend: 'trt' is not one of its values; choose auto, tensorrt"),
    (
        "yolact-run",
        "my.bundle a.jpg --score high",
        "--score: expected a number such as 0.5 or 1e-3; found 'high'; see",
    ),
    ("yolact-run", "my.bundle --self-test -o out", "-o has no effect in a self-test alone, which has a frame"),
    ("yolact-eval", "my.bundle --images val", "missing: one of --annotations or --against; see yolact-eval --help"),
    (
        "yolact-eval",
        "my.bundle --annotation a.json --images val",
        "unknown option --annotation (did you mean --annotations",
    ),
    (
        "yolact-export",
        "best.pth --int8 --calibration frames",
        "unknown option --calibration (did you mean --calibration-cache",
    ),
    ("yolact-export", "best.pth --seed 1", "--seed has no effect without --prune; add --prune 0.4, or leave it out"),
    (
        "yolact-export",
        "best.pth --engine --no-engine",
        "--no-engine and --engine exclude each other; leave one out; see",
    ),
    ("yolact-finetune", "yolact_tiny --epochs 20", "missing: --annotations, --images, --output; see yolact-finetune"),
    ("yolact-bench", "my.bundle --duration", "--duration needs a value; see yolact-bench --help"),
    ("yolact-bench", "compare old.json", "missing: NEW.json; see yolact-bench compare --help"),
]


def lines_of(parser: CommandParser, full: bool) -> list[str]:
    return (parser.format_full_help() if full else parser.format_help()).splitlines()


def options_in(lines: list[str]) -> set[str]:
    return {match[1] for line in lines if (match := re.match(r" {2}(?:-\w, )?(--[\w-]+)", line))}


@pytest.mark.parametrize("command", sorted(PARSERS))
def test_help_is_short_and_full_help_is_complete(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = parser_of(command)
    short, full = lines_of(parser, full=False), lines_of(parser, full=True)
    named = {action.option_strings[-1] for action in parser.actions if action.option_strings}
    assert options_in(full) == named
    assert len(options_in(short)) <= MOST_OPTIONS
    assert len(short) <= MOST_LINES
    for line in (*short, *full):
        assert len(line) <= 80, line
        # Every option has a help that begins in lower case and does not end like a sentence.
    for action in parser.actions:
        assert re.fullmatch(r"([^A-Z\s]|YOLACT|COCO|GPU|CPU|ImageNet)[^\n]*([^.\s]|\.\.\.)", str(action.help)), (
            action.help
        )


@pytest.mark.parametrize("command", sorted(PARSERS))
def test_required_options_are_in_the_short_help(command: str) -> None:
    parser = parser_of(command)
    needed = {action.option_strings[-1] for action in parser.actions if action.required and action.option_strings}
    for group in parser._mutually_exclusive_groups:
        if group.required:
            needed |= {action.option_strings[-1] for action in group._group_actions}
    assert needed <= options_in(lines_of(parser, full=False))


@pytest.mark.parametrize("command", sorted(PARSERS))
def test_examples_are_command_lines_that_have_an_effect(command: str, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.bundle").mkdir()
    (tmp_path / "my.bundle" / "manifest.json").write_text("{}")
    (tmp_path / "frames").mkdir()
    parser = parser_of(command)
    assert parser.examples
    for example in parser.examples:
        assert example.command.startswith(parser.prog)
        words = shlex.split(example.command.removeprefix(parser.prog))
        other = parser.subcommands.get(words[0]) if words else None
        chosen = parser if other is None else other()
        chosen.require_effects(chosen.parse_args(words if other is None else words[1:]))


@pytest.mark.parametrize(("command", "words", "said"), MISTAKES)
def test_typical_mistakes_are_one_line(
    command: str, words: str, said: str, tmp_path: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert entry_point(command)(words.split()) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {said}")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("shell", completion.SHELLS)
def test_programs_print_completions(command: str, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command in PROJECT["project"]["scripts"]:
        assert entry_point(command)(["--completion", shell]) == 0
        assert capsys.readouterr().out.count(command) >= 3
    else:
        # A module that Python runs has no name that a shell could complete.
        assert entry_point(command)(["--completion", shell]) == 2


def test_every_value_has_a_kind() -> None:
    """A metavar that is new is a path, or is listed here as something else."""
    others = {*("C", "F", "FORM", "MODE", "N", "N,N", "N.N,..", "N|WxH", "NAME", "NAMES", "P", "P%", "PX,PX,..", "R")}
    others |= {"S", "SHELL", "SIZE", "TYPE", "WxH", "WxH,WxH", "sm_XY", "BACKEND"}
    for command in PARSERS:
        for option in completion.completed_options(parser_of(command).actions):
            if option.takes_value and not option.choices:
                assert (option.kind == "words") == (option.metavar in others), (command, option)
