"""What a refusal advises works: the words to add are accepted, and the reason for the refusal is gone."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.commands import PARSERS, parser_of
from support.properties import examples
from yolact_plugins.command_line import CommandParser
from yolact_plugins.errors import UsageError

TRAIN = "--annotations labels.json --images images -o out.pth --steps 5"
BASES = [
    ("yolact-run", "my.bundle photo.jpg"),
    ("yolact-run", "my.bundle --self-test"),
    ("yolact-eval", "my.bundle --against my.bundle --images images"),
    ("yolact-eval", "my.bundle --annotations labels.json --images images"),
    ("yolact-bench", "my.bundle"),
    ("yolact-bench", "my.bundle --images images"),
    ("yolact-bench compare", "old.json new.json"),
    ("yolact-export", "model.pth"),
    ("yolact-export", "model.pth --prune 0.4 --calib images"),
    ("yolact-export", "my.bundle --engine"),
    ("yolact-export", "my.bundle --int8 --calib images"),
    ("yolact-export", "my.bundle --sign key.pem"),
    ("yolact-finetune", f"yolact_tiny {TRAIN}"),
    ("yolact-finetune", f"model.pth {TRAIN}"),
    ("python -m yolact_calibration.shapes", "--count 1 -o scenes"),
    ("python -m yolact_plugins.compile", "--arch sm_87"),
]
PARSERS_MADE = {command: parser_of(command) for command in PARSERS}
SENTENCE = re.compile(r"(?P<names>-.+?) (?:has|have) no effect (?P<why>.*?)(?P<advice>;.*)leave (?:it|them) out")


@pytest.fixture(scope="module", autouse=True)
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("ground")
    (folder / "my.bundle").mkdir()
    (folder / "my.bundle" / "manifest.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def refusals(parser: CommandParser, words: list[str]) -> dict[tuple[str, str], list[list[str]]]:
    """Options that have no effect and the reason, each with the additions that are advised; UsageError for others."""
    try:
        parser.require_effects(parser.parse_args(words))
    except UsageError as error:
        sentences = [SENTENCE.fullmatch(sentence) for sentence in re.split(r"(?<=out)\. ", str(error))]
        if not all(sentences):
            raise
        return {
            (match["names"], match["why"]): additions(match["why"], match["advice"]) for match in sentences if match
        }
    return {}


def additions(why: str, advice: str) -> list[list[str]]:
    if "add one of them" in advice:
        return [[name] for name in re.findall(r"--[\w-]+", why)]
    match = re.match(r"; (?:add|name) (?P<words>(an INPUT|a bundle with -o|-.+)), or ", advice)
    if match is None:
        return []
    special = {"an INPUT": ["photo.jpg"], "a bundle with -o": ["-o", "my.bundle"]}
    return [special.get(match["words"], shlex.split(match["words"]))]


def with_value(action: argparse.Action) -> list[str]:
    name = action.option_strings[-1]
    if action.nargs == 0:
        return [name]
    if action.choices:
        return [name, str(list(action.choices)[-1])]
    return [name, "64x64" if action.metavar == "WxH" else "0" if action.metavar in {*"NSCFPR"} else "x"]


def takes_a_value(parser: CommandParser, name: str) -> bool:
    return any(action.nargs != 0 for action in parser.actions if name in action.option_strings)


@examples(250)
@given(st.sampled_from(BASES), st.lists(st.integers(0, 99), max_size=3))
def test_what_is_advised_works(base: tuple[str, str], chosen: list[int]) -> None:
    parser = PARSERS_MADE[base[0]]
    options = [action for action in parser.actions if action.option_strings and action.dest != argparse.SUPPRESS]
    picked = {index % len(options): options[index % len(options)] for index in chosen}
    words = base[1].split() + [word for action in picked.values() for word in with_value(action)]
    try:
        found = refusals(parser, words)
    except UsageError:
        # They exclude each other, or were given before.
        return
    for refused, advised in found.items():
        for addition in advised:
            if addition[0] == "-o" and "--output" in words:
                # Another folder is to be named instead.
                continue
            if len(addition) == 1 and takes_a_value(parser, addition[0]):
                addition.append("0.4")
            after = refusals(parser, words + addition)
            assert refused not in after, addition
            assert not any(addition[0] in names.split(", ") for names, _ in after), (addition, after)
