"""Help of a command: the most used options on one page, or all of them."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from yolact_plugins.command_line.actions import described

__all__ = ["Example", "Page", "help_text"]

_NARROWEST, _WIDEST = 30, 100
_HELP_COLUMN = 26
_USAGE = "usage: "


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_HELP_COLUMN, width=_width())

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in _wrapped(text, width - len(indent)))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Format options as ``-o, --output BUNDLE``: the value once, behind the last name."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        if action.nargs == 0:
            return names
        return f"{names} {self._format_args(action, self._get_default_metavar_for_optional(action))}"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        (name,) = self._metavar_formatter(action, default_metavar)(1)
        return {argparse.ONE_OR_MORE: f"{name}...", argparse.ZERO_OR_MORE: f"[{name}...]"}.get(str(action.nargs), name)


@dataclass(frozen=True)
class Example:
    """A command line that works, for the end of a help text.

    Attributes:
        purpose: A few words about the command line.
        command: The command line as it is typed.
    """

    purpose: str
    command: str


@dataclass(frozen=True)
class Page:
    """The contents of a help text.

    Attributes:
        prog: The command as it is typed.
        usages: Words after the command's name, one entry for each way to use it.
        description: Purpose of the command.
        groups: Groups of options.
        exit_statuses: Meaning of the exit statuses.
        examples: Command lines for the end.
    """

    prog: str
    usages: Sequence[str]
    description: str
    groups: Sequence[argparse._ArgumentGroup]
    exit_statuses: str
    examples: Sequence[Example]


def help_text(page: Page, everything: bool = False) -> str:
    """Return the help of a command.

    Args:
        page: Contents of the help.
        everything: List all options, and not the most used ones alone.
    """
    formatter = _Formatter(page.prog)
    formatter.add_text(page.description)
    num_hidden = 0
    for group in page.groups:
        actions = [action for action in group._group_actions if everything or _is_main(action)]
        num_hidden += len(group._group_actions) - len(actions)
        if actions:
            formatter.start_section(group.title)
            formatter.add_arguments(actions)
            formatter.end_section()
    if page.exit_statuses:
        formatter.add_text(f"exit status: {page.exit_statuses}")
    parts = [_usage(page), formatter.format_help().lstrip("\n")]
    if page.examples:
        shown = "\n".join(f"  # {example.purpose}\n{_command(example.command)}" for example in page.examples)
        parts.append(f"examples:\n{shown}\n")
    if num_hidden:
        parts.append(f"{num_hidden} more options: {page.prog} --help-all\n")
    return "\n".join(parts)


def _usage(page: Page) -> str:
    lines = []
    for words in page.usages:
        # A long name leaves little of a narrow terminal.
        width = max(_NARROWEST // 2, _width() - len(_USAGE) - len(page.prog) - 1)
        first, *more = _wrapped(words, width)
        lines += [f"{page.prog} {first}", *(f"{' ' * len(page.prog)} {line}" for line in more)]
    return _USAGE + f"\n{' ' * len(_USAGE)}".join(lines) + "\n"


def _command(command: str) -> str:
    """Format a command line so that it can be pasted, wrapped if it is long."""
    return " \\\n      ".join(_wrapped(f"  {command}", _width() - len("    \\")))


def _width() -> int:
    return max(min(shutil.get_terminal_size().columns, _WIDEST), _NARROWEST) - 2


def _wrapped(text: str, width: int) -> list[str]:
    """Break lines at spaces only, because names of options and files have hyphens in them."""
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _is_main(action: argparse.Action) -> bool:
    return not action.option_strings or described(action).main
