"""Every number on a command line is read as it was typed, or refused by the option's name before any work."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.commands import COMMANDS, PARSERS, entry_point, parser_of
from yolact_benchmarks.facade import bench_session
from yolact_runtime.errors import BundleError

# What nobody can mean, or few: each is refused by every option, unless the table lists it as valid.
TRIED = (
    *("-1", "0", "nan", "inf", "-inf", "1e308", str(10**30), str(2**63), "9" * 5000),
    *("", "1e", "\N{FULLWIDTH DIGIT FIVE}", "1_000", " 5"),
)
VAST = (str(10**30), str(2**63))

# Each command fails with the name of what is not there as soon as its numbers are accepted.
WORDS = {
    "yolact-bench": ["nowhere.bundle"],
    "yolact-bench compare": ["compare", "nowhere.json", "nowhere.json"],
    "yolact-eval": ["nowhere.bundle", "--images", "nowhere.png"],
    "yolact-export": ["{inputs}/nowhere.pth"],
    "yolact-finetune": ["yolact_tiny", "--annotations", "nowhere.json", "--images", "nowhere", "-o", "x.pth"],
    "yolact-run": ["nowhere.bundle", "nowhere.png"],
    "python -m yolact_calibration.shapes": ["-o", "{inputs}/nowhere.pth"],
    "python -m yolact_plugins.compile": ["--family", "nowhere"],
}
# Options whose values are names, files and the like.
TEXTS = {
    *("--against", "--annotations", "--backbone-weights", "--backend", "--calib", "--calibration-cache"),
    *("--checkpoint", "--class-names", "--config", "--family", "--html", "--images", "--json", "--jsonl"),
    *("--markdown", "--output", "--precision", "--recover-annotations", "--sign", "--validation-annotations"),
    *("--validation-images", "--verify-key", "--weights"),
}


@dataclasses.dataclass(frozen=True)
class Number:
    """An option.

    Attributes:
        command: In :data:`PARSERS`.
        option: As it is typed.
        good: A value that is accepted; None where that would be work.
        valid: Those of :data:`TRIED` that are accepted too, because they are meant and cheap.
        more: Other words that the option needs.
    """

    command: str
    option: str
    good: str | None
    valid: Sequence[str] = ()
    more: Sequence[str] = ()


def numbers(command: str, rows: dict[str, tuple[str | None, Sequence[str]]], more: Sequence[str] = ()) -> list[Number]:
    return [Number(command, option, good, valid, more) for option, (good, valid) in rows.items()]


COUNT, COUNT_OR_NONE = ("3", [" 5"]), ("3", ["0", " 5"])
SHARE_OR_NONE = ("0.5", ["0"])
BIT_DEPTH = {"--bit-depth": ("12", [])}
PRUNE = ["--prune", "0.4", "--calib", "nowhere"]
INT8 = ["--int8", "--calib", "nowhere"]
NUMBERS = [
    *numbers(
        "yolact-run",
        {
            "--score": SHARE_OR_NONE,
            "--top-k": COUNT,
            # Of a crop that is wider than the frame nothing is cut off.
            "--crop-margin": ("0.1", ["0", "inf", "1e308", *VAST, " 5"]),
            "--threads": COUNT_OR_NONE,
            **BIT_DEPTH,
        },
    ),
    *numbers(
        "yolact-eval",
        {
            "--limit": COUNT,
            "--bootstrap": COUNT_OR_NONE,
            "--seed": COUNT_OR_NONE,
            "--threads": COUNT_OR_NONE,
            "--min-confidence": SHARE_OR_NONE,
            **BIT_DEPTH,
        },
        ["--against", "nowhere.onnx"],
    ),
    *numbers(
        "yolact-bench",
        {
            "--threads": COUNT_OR_NONE,
            "--min-confidence": SHARE_OR_NONE,
            "--duration": COUNT,
            "--until-ci": ("1%", []),
            "--warm-up": COUNT_OR_NONE,
            "--processes": COUNT,
            "--cold-starts": COUNT_OR_NONE,
            "--stream": COUNT_OR_NONE,
            "--instances": ("1,10,found", ["0"]),
            "--size": ("640x480,64x64", []),
        },
    ),
    *numbers("yolact-bench", BIT_DEPTH, ["--images", "nowhere.png"]),
    *numbers("yolact-bench compare", {"--max-regress": ("3%", [])}),
    *numbers(
        "yolact-export",
        {
            "--prune": ("0.3", []),
            "--recover-steps": COUNT_OR_NONE,
            "--round-to": COUNT,
            "--recover-batch": COUNT,
            "--recover-rate": ("1e-3", [" 5"]),
            "--seed": COUNT_OR_NONE,
            "--workers": COUNT_OR_NONE,
            "--threads": COUNT,
            **BIT_DEPTH,
        },
        PRUNE,
    ),
    *numbers(
        "yolact-export",
        {"--max-drop": ("0.5", ["0", " 5"]), "--guard-images": COUNT, "--sensitivity-images": COUNT_OR_NONE},
        INT8,
    ),
    *numbers(
        "yolact-export",
        {
            "--builder-level": COUNT_OR_NONE,
            "--workspace": ("2G", [" 5"]),
            "--memory-limit": ("1.5 GiB", [" 5"]),
        },
        ["--engine"],
    ),
    *numbers("yolact-export", {"--input-size": ("960x544", []), "--prior-scales": ("24,48,96,192,384", [])}),
    Number("yolact-export", "--compute-capability", "8.6,8.9", more=["--engine", "--target", "rtx"]),
    *numbers("yolact-finetune", {"--epochs": ("0.5", [" 5"]), "--steps": COUNT}),
    *numbers(
        "yolact-finetune",
        {
            "--batch-size": COUNT,
            "--learning-rate": ("1e-3", [" 5"]),
            "--warmup": COUNT_OR_NONE,
            "--expand": ("1", [" 5"]),
            "--seed": COUNT_OR_NONE,
            "--workers": COUNT_OR_NONE,
            "--save-every": COUNT,
            "--evaluate-every": COUNT,
            "--validation-fraction": SHARE_OR_NONE,
            "--input-size": ("550", []),
            "--prior-scales": ("24,48,96,192,384", []),
            **BIT_DEPTH,
        },
        ["--steps", "5"],
    ),
    Number("python -m yolact_calibration.shapes", "--count", *COUNT),
    *numbers(
        "python -m yolact_calibration.shapes", {"--seed": COUNT_OR_NONE, "--size": ("64x64", [])}, ["--count", "1"]
    ),
    Number("python -m yolact_plugins.compile", "--arch", None),
]


def test_every_command_is_walked() -> None:
    assert {command.removesuffix(" compare") for command in PARSERS} == set(COMMANDS)


@pytest.mark.parametrize("command", sorted(PARSERS))
def test_every_option_with_a_value_is_known_here(command: str) -> None:
    """An option that is new is listed as a number, and tried, or as a text."""
    parser = parser_of(command)
    with_values = [
        action for action in parser._actions if action.option_strings and action.nargs != 0 and action.choices is None
    ]
    names = {action.option_strings[-1] for action in with_values}
    listed = [number.option for number in NUMBERS if number.command == command]
    assert len(listed) == len(set(listed))
    assert names - TEXTS == set(listed)
    # They read "1_000", and digits of every script.
    assert [action.option_strings for action in with_values if action.type in (int, float)] == []


def run(number: Number, value: str, inputs: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    words = [word.format(inputs=inputs) for word in WORDS[number.command]]
    exclusive = {"--epochs", "--steps"} if number.option in {"--epochs", "--steps"} else set()
    more = [] if exclusive and number.more else number.more
    main = entry_point(number.command.removesuffix(" compare"))
    status = main([*words, *more, f"{number.option}={value}"])
    return status, capsys.readouterr().err


def work(*_: object) -> None:
    """Instead of yolact-bench, which looks at the machine for a second before it opens its model."""
    raise BundleError("no bundle at nowhere.bundle")


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number.command} {number.option}")
def test_each_number_is_accepted_or_refused_by_name(
    number: Number, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, here = tmp_path / "inputs", tmp_path / "here"
    inputs.mkdir()
    here.mkdir()
    (inputs / "nowhere.pth").write_bytes(b"no checkpoint")
    monkeypatch.chdir(here)
    monkeypatch.setattr(bench_session, "run_bench", work)
    for value in TRIED:
        status, said = run(number, value, inputs, capsys)
        error = next(line for line in said.splitlines() if "error: " in line)
        if value in number.valid:
            assert (status, "nowhere" in error) == (1, True), (value, said)
        else:
            assert (status, number.option in error) == (2, True), (value, said)
            # A range, or what such a word looks like.
            rule = error.partition(number.option)[2].partition("found")[0]
            assert re.search(r"[0-9]|name something", rule), (value, said)
        assert len(error) < 1000
        assert list(here.iterdir()) == []
    if number.good is not None:
        status, said = run(number, number.good, inputs, capsys)
        assert (status, "nowhere" in said) == (1, True), said
