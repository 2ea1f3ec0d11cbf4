"""Arguments for the parser of every command: numbers out of range, other types, contradicting options.

The arguments of a working command are changed at one to three places. Silently wrong: an invalid number, or one below
every sensible one, is accepted with exit status 0; a number is refused without the name of its option; or the output is
not whole, or is a bundle that does not open.
"""

from __future__ import annotations

import argparse
import importlib
import random
from typing import Any

from yolact_benchmarks.studies.bad_inputs.trial import COMMANDS
from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome, judge_answer, silent
from yolact_benchmarks.studies.storm.stage import Stage, open_model
from yolact_benchmarks.studies.storm.writers import torn_files
from yolact_plugins.errors import YolactError
from yolact_runtime.option_numbers import real_number, whole_number

__all__ = ["CAMPAIGN"]

_NUMBER_TYPES = (whole_number, real_number)
_NEVER = ("nan", "-inf", "-1e308", "-99999999999999999999")
"""Values that no option with a number accepts."""
_NUMBERS = (
    "inf", "1e308", "1e-320", "0", "-1", "-0", "1", "0.5", "1e400", "9" * 40, "9223372036854775808", "2147483648",
    "1_000", "0x10", " 1", "\u0661", "1e5", "+1", "1,", "true",
)  # fmt: skip
_WORDS = ("a\x1b[2Jb", "-", "--", "nowhere", "/dev/null", "/proc/self/mem", "x" * 5000, "\udcff", "é", "a b", "%s", "*")
_LONG = frozenset(
    {
        "--steps",
        "--epochs",
        "--duration",
        "--until-ci",
        "--warm-up",
        "--bootstrap",
        "--seed",
    }
)
"""Options whose large values mean a long run, or that accept any number (a seed): only `_NEVER` is tried."""


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    rng = attempt.rng
    command = rng.choice(sorted(COMMANDS))
    words = _sound_words(stage, attempt, command)
    never = []
    changed = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        action = rng.choice(_options_of(command))
        name = action.option_strings[-1]
        value = _value(action, rng)
        words += [name] if value is None else [f"{name}={value}"]
        changed.append(f"{name} {value!s:.30}")
        if value in _NEVER and action.type in _NUMBER_TYPES:
            never.append(name)
    what = f"{command} {'; '.join(changed)!a}"
    answer = attempt.run(command, tuple(words))
    finding = judge_answer(answer, what)
    if never and finding.outcome is Outcome.OK:
        return silent(f"{what}: accepted")
    if len(changed) == 1 and never and finding.outcome is Outcome.REFUSED and never[0] not in answer.stderr:
        return silent(f"{what}: refused without the option's name: {finding.what}")
    return _written(attempt, finding) if finding.outcome is Outcome.OK else finding


def _written(attempt: Attempt, finding: Finding) -> Finding:
    """Check that the output of a command with these options can be read."""
    if torn := torn_files(attempt.folder):
        return silent(f"{finding.what}: not whole: {', '.join(torn)}")
    bundle = attempt.folder / "b"
    if bundle.exists():
        try:
            open_model(bundle).close()
        except YolactError as error:
            return silent(f"{finding.what}: a bundle was written that does not open: {error}")
    return finding


def _options_of(command: str) -> list[argparse.Action]:
    parser = importlib.import_module(COMMANDS[command])._parser()
    left_out = {"--help", "--help-all", "--version", "--completion"}
    return [action for action in parser._actions if action.option_strings and not left_out & {*action.option_strings}]


def _value(action: argparse.Action, rng: random.Random) -> Any:
    if action.nargs == 0:
        return None
    if action.choices is not None and rng.random() < 0.5:
        return rng.choice([*action.choices])
    if action.type in _NUMBER_TYPES:
        return rng.choice(_NEVER if _LONG & {*action.option_strings} else (*_NEVER, *_NUMBERS))
    if "," in str(action.metavar):
        return ",".join(rng.choice((*_NEVER, *_NUMBERS)) for _ in range(rng.choice((1, 2, 5))))
    return rng.choice((*_WORDS, *_NUMBERS, *_NEVER))


def _sound_words(stage: Stage, attempt: Attempt, command: str) -> list[str]:
    """Return arguments that work, and take little time."""
    ground, folder = stage.ground, attempt.folder
    few: dict[str, tuple[object, ...]] = {
        "yolact-run": ground.run_words(stage.picture, "--json", folder / "r.json"),
        "yolact-eval": ground.eval_words(ground.annotations, folder / "r.json", "--limit", 2),
        "yolact-export": (stage.checkpoint, "-o", folder / "b", "--no-engine", "-q"),
        "yolact-finetune": (
            stage.checkpoint, "--annotations", ground.annotations, "--images", ground.images, "-o", folder / "n.pth",
            "--steps", 1, "--batch-size", 2, "--workers", 0, "--validation-fraction", 0, "-q",
        ),
        "yolact-bench": (
            stage.bundle, "--duration", 0.1, "--warm-up", 0, "--processes", 1, "--threads", 1, "--size", "64x64",
            "--instances", "found", "-q",
        ),
    }  # fmt: skip
    return [str(word) for word in few[command]]


CAMPAIGN = Campaign("options", _attempt, 80, 2, seconds=90)
