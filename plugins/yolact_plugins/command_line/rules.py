"""Rules that state when an option has an effect; an option that was typed and has none is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolact_plugins.command_line.mistakes import listed
from yolact_plugins.errors import UsageError

__all__ = ["Rule", "in_jobs", "is_given", "needs", "refuse_strays"]


@dataclass(frozen=True)
class Rule:
    """A condition without which an option has no effect.

    Attributes:
        holds: Tells from the options of a command line whether the condition is met.
        otherwise: Rest of the sentence "--seed has no effect …" where it is not, such as ``"without --prune"``.
        advice: Words to type instead of leaving the option out, such as ``"add --prune 0.4"``; may be empty.
    """

    holds: Callable[[Any], bool]
    otherwise: str
    advice: str = ""


def is_given(options: Any, name: str) -> bool:
    """Return whether an option was typed.

    Args:
        options: Parsed options; of others than those of a command line, whether they have a value.
        name: Name of the option, such as ``"--prune"``.
    """
    dest = name.lstrip("-").replace("-", "_")
    typed: Mapping[str, str] | None = getattr(options, "typed", None)
    if typed is not None:
        return dest in typed
    value = getattr(options, dest)
    # 0 equals False, and is a value that was given.
    return value is not None and value is not False


def needs(*names: str, advice: str = "") -> Rule:
    """Return the rule of options that belong to one of several others.

    Args:
        names: Options, one of which must be given.
        advice: Words to type instead of leaving the options out; by default, to add the first of `names`.
    """
    return Rule(
        lambda options: any(is_given(options, name) for name in names),
        f"without {listed(names)}",
        advice or f"add {names[0]}",
    )


def in_jobs(*jobs: str, otherwise: str, advice: str = "") -> Rule:
    """Return the rule of options that belong to some of a command's jobs; ``options.job`` is the job of this call.

    Args:
        jobs: Names of the jobs in which the option has an effect.
        otherwise: Rest of the sentence "--seed has no effect …" in all other jobs.
        advice: Words to type instead of leaving the option out; may be empty.
    """
    return Rule(lambda options: options.job in jobs, otherwise, advice)


def refuse_strays(options: Any, typed: Iterable[tuple[str, Sequence[Rule]]]) -> None:
    """Refuse options that were typed and would have no effect.

    Args:
        options: Parsed options.
        typed: Names of the options that were typed, each with its rules. The first rule that does not hold counts.

    Raises:
        UsageError: The message names every such option, with the reason and what to type.
    """
    strays: dict[tuple[str, str], list[str]] = {}
    for name, rules in typed:
        broken = next((rule for rule in rules if not rule.holds(options)), None)
        if broken is not None:
            strays.setdefault((broken.otherwise, broken.advice), []).append(name)
    if strays:
        raise UsageError(". ".join(_sentence(names, *reason) for reason, names in strays.items()))


def _sentence(names: Sequence[str], otherwise: str, advice: str) -> str:
    has, them = ("has", "it") if len(names) == 1 else ("have", "them")
    return f"{', '.join(names)} {has} no effect {otherwise}; {advice + ', or ' if advice else ''}leave {them} out"
