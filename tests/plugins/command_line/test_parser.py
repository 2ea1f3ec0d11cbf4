from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins.command_line import CommandParser, Example, Rule, TextRequested, in_jobs, is_given, needs
from yolact_plugins.errors import UsageError


def whole(text: str) -> int:
    return int(text)


def make() -> CommandParser:
    parser = CommandParser(
        "tool",
        "Do things.",
        usage=("MODEL [options]", "--self-test"),
        exit_statuses="0 done; 2 usage.",
        examples=(Example("do one", "tool a.bundle -n 1"),),
        job_of=lambda options: "tested" if options.self_test else "done",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a bundle")
    group = parser.add_argument_group(
        "work", rules=[in_jobs("done", otherwise="in a test", advice="leave out the test")]
    )
    group.add_argument(
        "-n", "--num-things", type=whole, default=3, metavar="N", main=True, help="how many: 100%% of them"
    )
    group.add_argument("--prune", metavar="F", help="a share")
    group.add_argument("--seed", default="0", metavar="N", rules=[needs("--prune", advice="add --prune 0.4")])
    group.add_argument("--key", action="append", metavar="KEY", rules=[needs("--prune", "--seed")])
    group.add_argument("--form", choices=["one", "two", "three"])
    parser.add_argument("--self-test", action="store_true")
    return parser


def refused(*words: str) -> str:
    parser = make()
    with pytest.raises(UsageError) as raised:
        parser.require_effects(parser.parse_args(words))
    return str(raised.value)


# --- what was typed ---------------------------------------------------------------------------------------------------


def test_it_knows_what_was_typed_and_how() -> None:
    options = make().parse_args(["m", "-n", "3", "--key=a", "--key", "b"])
    assert options.typed == {"num_things": "-n", "key": "--key"}
    assert (options.model, options.num_things, options.key, options.seed, options.job) == ("m", 3, ["a", "b"], "0", "")
    assert make().parse_args([]).typed == {}


def test_of_several_values_the_last_counts_and_it_is_known() -> None:
    options = make().parse_args(["m", "-n", "3", "--seed", "1", "--seed=1", "--num-things", "4", "--num-things", "5"])
    assert (options.num_things, options.seed, options.overridden) == (5, "1", ["--num-things"])


def test_a_default_that_was_typed_is_refused_too() -> None:
    assert refused("m", "--seed", "0") == "--seed has no effect without --prune; add --prune 0.4, or leave it out"
    make().require_effects(make().parse_args(["m", "--seed", "0", "--prune", "0.4"]))


def test_all_strays_are_named_with_the_first_reason_of_each() -> None:
    assert refused("--self-test", "-n", "3", "--seed", "1") == (
        "-n, --seed have no effect in a test; leave out the test, or leave them out"
    )
    assert refused("m", "--seed", "1", "--key", "k") == (
        "--seed has no effect without --prune; add --prune 0.4, or leave it out"
    )
    assert "--key has no effect without --prune or --seed; add --prune, or" in refused("m", "--key", "k")


def test_a_rule_without_advice() -> None:
    parser = CommandParser("tool", "")
    parser.add_argument("-x", action="store_true", rules=[Rule(lambda _: False, "here")])
    with pytest.raises(UsageError, match=r"^-x has no effect here; leave it out$"):
        parser.require_effects(parser.parse_args(["-x"]))


@pytest.mark.parametrize(
    ("value", "given"), [(None, False), (False, False), (0, True), (0.0, True), (True, True), ("", True), ([], True)]
)
def test_zero_is_a_value_that_somebody_gave(value: Any, given: bool) -> None:
    class Options:
        num_things = value

    assert is_given(Options, "--num-things") is given


def test_options_by_the_fields_they_set() -> None:
    parser = CommandParser("tool", "")
    parser.add_argument("--score", field="min_confidence")
    parser.add_argument("--num-things")
    parser.add_argument("--size", field=("height", "width"))
    parser.add_argument("--steps", field="num_steps")
    parser.add_argument("--epochs", field="num_steps")
    names = parser.option_of_field()
    names = {
        field: name
        for field, name in names.items()
        if name not in {"--help", "--help-all", "--version", "--completion"}
    }
    assert names == {
        "min_confidence": "--score",
        "num_things": "--num-things",
        "height": "--size",
        "width": "--size",
        "num_steps": "--steps",
    }
    assert parser.option_of_field({"epochs": "--epochs"})["num_steps"] == "--epochs"


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--num-thing", "2"], "unknown option --num-thing (did you mean --num-things?)"),
        (["--num_things=2"], "unknown option --num_things (did you mean --num-things?)"),
        (["-num-things", "2"], "unknown option -num-things (did you mean --num-things?)"),
        (["--pruen=2", "m"], "unknown option --pruen (did you mean --prune?)"),
        (["--self"], "unknown option --self (did you mean --self-test?)"),
        (["--coffee"], "unknown option --coffee"),
        (["-x"], "unknown option -x"),
        (["m", "n"], "unexpected word 'n'"),
        (["m", "n" * 5000], f"unexpected word '{'n' * 59}…"),
        (["m", "n", "o"], "unexpected word 'n', and 1 more"),
        (["-n"], "-n needs a value"),
        (["-n", "--prune"], "-n needs a value"),
        (["--num-things", "--prune"], "--num-things needs a value"),
        (["--self-test=1"], "--self-test takes no value; found '1'"),
        (["--form", "four"], "--form: 'four' is not one of its values; choose one, two or three"),
        (["-n", "few"], "-n: invalid whole value: 'few'"),
        (["-nfew"], "-n: invalid whole value: 'few'"),
        (["-n=few"], "-n: invalid whole value: 'few'"),
        (
            ["m", "\N{EM DASH}prune", "0.4"],
            "unknown option \N{EM DASH}prune, whose dash is not a hyphen (did you mean --prune?)",
        ),
        (
            ["m", "\N{EN DASH}\N{EN DASH}seed=3"],
            "unknown option \N{EN DASH}\N{EN DASH}seed, whose dash is not a hyphen (did you mean --seed?)",
        ),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str) -> None:
    assert refused(*words) == f"{said}; see tool --help"


@pytest.mark.parametrize("value", ["-1", "-.5", "-1e-3", "-3%", "-inf", "-NaN", "-1920x1080"])
def test_a_value_may_be_a_negative_number(value: str) -> None:
    """What is wrong with it is said by the option that takes it."""
    assert make().parse_args(["m", "--prune", value]).prune == value
    assert make().parse_args([f"--prune={value}", value]).model == value


def test_an_option_that_takes_several_values() -> None:
    parser = CommandParser("tool", "", subcommands={"compare": make})
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--images", nargs="+", default=["drawn"], metavar="DIR")
    parser.add_argument("-n", type=whole)
    assert parser.parse_args(["m"]).images == ["drawn"]
    assert parser.parse_args(["m", "--images", "a", "b", "-n", "1", "--images", "c", "-n", "1"]).images == [
        "a",
        "b",
        "c",
    ]
    for words, said in (
        (["--images", "a", "m"], "missing: MODEL. --images takes all words behind it, m too: name MODEL before it"),
        (
            ["--images", "a", "-n", "1"],
            "missing: MODEL. --images takes all words behind it, a too: name MODEL before it",
        ),
        (["-n", "1"], "missing: MODEL"),
        (["-n", "1", "compare", "a b"], "compare comes first: tool compare -n 1 'a b'"),
    ):
        with pytest.raises(UsageError, match=f"^{re.escape(said)}; see tool --help$"):
            parser.parse_args(words)


def test_what_is_missing_and_what_excludes_each_other() -> None:
    parser = CommandParser("tool", "")
    parser.add_argument("a", metavar="MODEL")
    parser.add_argument("--b", required=True)
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--left")
    either.add_argument("--right")
    for words, said in (
        ([], "missing: MODEL, --b"),
        (["m", "--b", "1"], "missing: one of --left or --right"),
        (["m", "--b", "1", "--left", "1", "--right", "2"], "--right and --left exclude each other; leave one out"),
    ):
        with pytest.raises(UsageError, match=f"^{said}; see tool --help$"):
            parser.parse_args(words)


def test_words_that_are_no_options() -> None:
    parser = CommandParser("tool", "")
    parser.add_argument("words", nargs="*")
    parser.add_argument("-n", type=whole)
    words = ["-", "-1", "-.5", "-a b", "--", "--coffee", "-x"]
    assert parser.parse_args(["-n", "-2", *words]).words == [word for word in words if word != "--"]


@pytest.mark.parametrize("columns", ["0", "1", "12", "30"])
def test_help_fits_no_terminal_and_is_there(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    parser = CommandParser("python -m some_package.some_module", "Do things.", usage=("MODEL [options]",))
    assert "MODEL" in parser.format_help()
    assert "--version" in parser.format_full_help()


@examples(200)
@given(st.lists(st.text(alphabet="-=abnumigs 0.", max_size=12), max_size=4))
def test_any_words_are_options_or_a_usage_error(words: list[str]) -> None:
    said = ""
    try:
        make().parse_args(words)
    except UsageError as error:
        said = str(error)
    assert not said or said.endswith("; see tool --help")


# --- help -------------------------------------------------------------------------------------------------------------


def shown(*words: str) -> str:
    with pytest.raises(TextRequested) as request:
        make().parse_args(words)
    return request.value.text


def test_short_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert shown("--help") == shown("-h", "--coffee") == HELP


HELP = """\
usage: tool MODEL [options]
       tool --self-test

Do things.

arguments:
  MODEL               a bundle

work:
  -n, --num-things N  how many: 100% of them

exit status: 0 done; 2 usage.

examples:
  # do one
  tool a.bundle -n 1

9 more options: tool --help-all
"""


def test_full_help_has_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown("--help-all")
    assert re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE) == [
        *("--self-test", "--num-things", "--prune", "--seed", "--key", "--form"),
        *("--help", "--help-all", "--version", "--completion"),
    ]
    assert text.endswith("  tool a.bundle -n 1\n")


def test_long_examples_and_usages_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    command = "tool some.bundle --num-things 12 --prune 0.4 --key one-key.pem"
    parser = CommandParser("tool", "", usage=(command.removeprefix("tool "),), examples=[Example("x", command)])
    text = parser.format_help()
    assert max(map(len, text.splitlines())) <= 40
    # It can be pasted.
    pasted = text.partition("# x\n")[2].partition("\n\n")[0].replace("\\\n", " ").split()
    assert pasted == command.split()
    assert text.partition("\n\n")[0].removeprefix("usage: ").split() == command.split()
