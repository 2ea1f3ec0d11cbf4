"""Options that know whether they are among the most used ones, when they have an effect, and that they were typed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from yolact_plugins.command_line.rules import Rule

__all__ = ["Described", "ShowText", "TextRequested", "described", "register_actions"]


class TextRequested(Exception):  # noqa: N818 - no mistake was made
    """The end of a parse by an option such as ``--help``, whose text is the command's whole work.

    Args:
        text: Text for stdout, with its last line break.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class ShowText(argparse.Action):
    """An option that ends the parse with a text.

    Args:
        option_strings: Names of the option.
        text: Function that returns the text for the option's value.
        **kwargs: Keyword arguments of :class:`argparse.Action`.
    """

    def __init__(self, option_strings: Sequence[str], text: Callable[[Any], str], **kwargs: Any) -> None:
        kwargs |= {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}
        super().__init__(option_strings, **kwargs)
        self._text = text

    def __call__(self, _: object, __: object, values: Any, ___: object = None) -> None:
        raise TextRequested(self._text(values))


class Described:
    """Facts about an option that :mod:`argparse` does not keep; a mixin of its actions.

    Args:
        main: The option is listed by ``--help``; all are by ``--help-all``.
        rules: Conditions without which the option has no effect.
        field: Name of the field of an options dataclass that the option sets, where that is not its own name; or names.
        suggest: Values for shell completion, where there are no fixed choices.
    """

    def __init__(
        self,
        *args: Any,
        main: bool = False,
        rules: Sequence[Rule] = (),
        field: str | Sequence[str] = (),
        suggest: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.main = main
        self.rules = tuple(rules)
        self.fields = (field,) if isinstance(field, str) else tuple(field)
        self.suggest = tuple(suggest)


class _Recorded(Described, argparse.Action):
    """Keeps the name that was typed; several values add up, and of single ones the last counts."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        typed = getattr(namespace, "typed", None)
        if typed is not None and option_string is not None:
            if self.dest in typed and isinstance(self, argparse._StoreAction):
                before = getattr(namespace, self.dest)
                if self.nargs in {argparse.ONE_OR_MORE, argparse.ZERO_OR_MORE}:
                    values = [*before, *values]
                elif values != before and option_string not in namespace.overridden:
                    namespace.overridden.append(option_string)
            typed[self.dest] = option_string
        super().__call__(parser, namespace, values, option_string)


class _Store(_Recorded, argparse._StoreAction):
    pass


class _StoreTrue(_Recorded, argparse._StoreTrueAction):
    pass


class _Append(_Recorded, argparse._AppendAction):
    pass


def register_actions(parser: argparse.ArgumentParser) -> None:
    """Let a parser make options that are :class:`Described`."""
    for name, action in ((None, _Store), ("store", _Store), ("store_true", _StoreTrue), ("append", _Append)):
        parser.register("action", name, action)


def described(action: argparse.Action) -> Described:
    """Return what is known of an option; nothing of those that :mod:`argparse` makes itself."""
    return action if isinstance(action, Described) else Described()
