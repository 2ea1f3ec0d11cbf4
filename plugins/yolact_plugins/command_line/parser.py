"""Parsers of the project's commands."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from yolact_plugins import __version__
from yolact_plugins.command_line.actions import ShowText, described, register_actions
from yolact_plugins.command_line.completion import SHELLS, completion_script
from yolact_plugins.command_line.help_text import Example, Page, help_text
from yolact_plugins.command_line.mistakes import NEGATIVE_NUMBER, last_taken, listed, reworded, unknown_option
from yolact_plugins.command_line.rules import Rule, refuse_strays
from yolact_plugins.errors import UsageError

__all__ = ["CommandParser", "Example", "OptionGroup", "Options"]

_GENERAL = "general"
_ASKS_FOR_TEXT = frozenset({"-h", "--help", "--help-all", "--version"})


class Options(argparse.Namespace):
    """Parsed options of a command line.

    Attributes:
        typed: Names of options as they were typed, by the attribute that each sets.
        job: Name of the command's job; empty if the command has one job.
        overridden: Options that were typed again with another value; the last value counts.
    """

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.typed: dict[str, str] = {}
        self.job = ""
        self.overridden: list[str] = []


class OptionGroup(argparse._ArgumentGroup):
    """Options under one heading, with rules that apply to all of them."""

    rules: tuple[Rule, ...] = ()


class CommandParser(argparse.ArgumentParser):
    """A parser with two lengths of help, errors of one line, and rules about which options have an effect when.

    Options are added as to any :class:`argparse.ArgumentParser`, and take the keywords of
    :class:`~yolact_plugins.command_line.actions.Described` besides. Options cannot be abbreviated.

    Args:
        prog: The command as it is typed.
        description: Purpose of the command.
        usage: Words after the command's name, one entry for each way to use it.
        exit_statuses: Meaning of the exit statuses.
        examples: Command lines for the end of the help.
        job_of: Tells from the parsed options which of its jobs the command is asked for; may raise UsageError.
        intermixed: Positional words may also stand between options.
        subcommands: Parsers of words that may stand in place of the first one, for shell completion.
        completes: The command is a program of its own, for which shells can complete words.
    """

    def __init__(
        self,
        prog: str,
        description: str,
        usage: Sequence[str] = ("[options]",),
        exit_statuses: str = "",
        examples: Sequence[Example] = (),
        job_of: Callable[[Options], str] | None = None,
        intermixed: bool = False,
        subcommands: Mapping[str, Callable[[], CommandParser]] | None = None,
        completes: bool = True,
    ) -> None:
        super().__init__(prog=prog, description=description, add_help=False, allow_abbrev=False)
        register_actions(self)
        self._negative_number_matcher = NEGATIVE_NUMBER
        self._words: Sequence[str] = ()
        self.usages = tuple(usage)
        self.usage = f"{prog} {self.usages[0]}"
        self.exit_statuses = exit_statuses
        self.examples = tuple(examples)
        self.subcommands = dict(subcommands or {})
        self._job_of = job_of
        self._intermixed = intermixed
        self._positionals.title = "arguments"
        general = self.general = self.add_argument_group(_GENERAL)
        for names, text, what in (
            (("-h", "--help"), self.format_help, "show the most used options and exit"),
            (("--help-all",), self.format_full_help, "show all options and exit"),
            (("--version",), lambda: f"{prog} {__version__}\n", "print the version and exit"),
        ):
            general.add_argument(*names, action=ShowText, nargs=0, text=lambda _, text=text: text(), help=what)
        if completes:
            general.add_argument(
                "--completion",
                action=ShowText,
                text=self._completion,
                choices=SHELLS,
                metavar="SHELL",
                help="print a completion script for bash, zsh or fish and exit",
            )

    @property
    def actions(self) -> Sequence[argparse.Action]:
        """Options and positional words in the order in which they were added."""
        return self._actions

    @property
    def groups(self) -> Sequence[argparse._ArgumentGroup]:
        """Groups of options in the order of the help; what all commands have comes last."""
        return sorted(self._action_groups, key=lambda group: group.title == _GENERAL)

    def option_of_field(self, typed: Container[str] = ()) -> dict[str, str]:
        """Return names of options by the fields of options dataclasses that they set.

        Args:
            typed: Attributes that were set by options that were typed; of several options for a field, one of these
                is named.
        """
        names: dict[str, str] = {}
        were_typed = set()
        for action in self._actions:
            for field in described(action).fields or (action.dest,) if action.option_strings else ():
                if field not in names or (action.dest in typed and field not in were_typed):
                    names[field] = action.option_strings[-1]
                if action.dest in typed:
                    were_typed.add(field)
        return names

    def add_argument_group(self, *args: Any, rules: Sequence[Rule] = (), **kwargs: Any) -> OptionGroup:
        """Add a group of options.

        Args:
            *args: Arguments of :meth:`argparse.ArgumentParser.add_argument_group`.
            rules: Conditions without which none of the group's options has an effect.
            **kwargs: Keyword arguments of the same method.
        """
        group = OptionGroup(self, *args, **kwargs)
        group.rules = tuple(rules)
        self._action_groups.append(group)
        return group

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Return the :class:`Options` of a command line.

        Raises:
            TextRequested: An option such as ``--help`` asks for a text, and for nothing else.
            UsageError: The words cannot be understood.
        """
        words = self._words = sys.argv[1:] if args is None else list(args)
        mistake = unknown_option(words, self._option_string_actions)
        if mistake and not _ASKS_FOR_TEXT.intersection(words):
            self.error(mistake)
        parse = self.parse_known_intermixed_args if self._intermixed else self.parse_known_args
        options, rest = parse(words, Options() if namespace is None else namespace)
        if rest:
            self._refuse_late_subcommand(options)
            self.error(f"unexpected word {rest[0]!r}" + (f", and {len(rest) - 1} more" if len(rest) > 1 else ""))
        return options

    def require_effects(self, options: Options) -> None:
        """Find the job of a command line, and refuse options that have no effect in it.

        Args:
            options: Parsed options; their ``job`` is set.

        Raises:
            UsageError: Such an option was typed; the message says why it has no effect and what to type.
        """
        if self._job_of is not None:
            options.job = self._job_of(options)
        refuse_strays(options, self._typed(options))

    def rules_of(self, action: argparse.Action) -> tuple[Rule, ...]:
        """Return the rules of an option: those of its group, then its own."""
        of_groups: tuple[Rule, ...] = ()
        for group in self._action_groups:
            if isinstance(group, OptionGroup) and action in group._group_actions:
                of_groups += group.rules
        return of_groups + described(action).rules

    def format_help(self) -> str:
        """Return the text of ``--help``."""
        return help_text(self._page())

    def format_full_help(self) -> str:
        """Return the text of ``--help-all``."""
        return help_text(self._page(), everything=True)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: Always.
        """
        said = reworded(message, self._words).removesuffix(".")
        # A paste gone wrong need not fill the screen.
        said = re.sub(r"\S{120,}", lambda word: f"{word[0][:60]}…", f"{said}{self._who_took_it(said)}")
        raise UsageError(f"{said}; see {self.prog} --help")

    def _who_took_it(self, said: str) -> str:
        """Return a sentence about the option that took the positional word which a message misses; empty if none."""
        first = next((str(action.metavar) for action in self._actions if not action.option_strings), "")
        greedy = {name for action in self._actions if action.nargs == "+" for name in action.option_strings}
        taken = last_taken(self._words, greedy)
        if not first or not taken or first not in said.removeprefix("missing: ").split(", "):
            return ""
        return f". {taken[0]} takes all words behind it, {taken[1]} too: name {first} before it"

    def _refuse_late_subcommand(self, options: Options) -> None:
        """Refuse ``-q compare a b``, where options stand before a word that has to be the first one."""
        for action in self._actions:
            word = str(getattr(options, action.dest, ""))
            if not action.option_strings and word in self.subcommands:
                others = list(self._words)
                others.remove(word)
                self.error(f"{word} comes first: {self.prog} {shlex.join([word, *others])}")

    def _completion(self, shell: str) -> str:
        subcommands = {word: make().actions for word, make in self.subcommands.items()}
        return completion_script(shell, self.prog, self.actions, subcommands)

    def _page(self) -> Page:
        return Page(self.prog, self.usages, self.description or "", self.groups, self.exit_statuses, self.examples)

    def _typed(self, options: Options) -> Iterator[tuple[str, tuple[Rule, ...]]]:
        for action in self._actions:
            if action.dest in options.typed:
                yield options.typed[action.dest], self.rules_of(action)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not among an option's choices; :mod:`argparse` calls it."""
        if action.choices is None or value in action.choices:
            return
        names = [str(choice) for choice in action.choices]
        raise argparse.ArgumentError(action, f"{value!r} is not one of its values; choose {listed(names)}")
