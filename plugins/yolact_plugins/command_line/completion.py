"""Completion scripts for shells: static text, so that completing a word starts no Python."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from yolact_plugins.command_line.actions import described

__all__ = ["SHELLS", "CompletedOption", "completed_options", "completion_script"]

_FOLDERS = frozenset({"BUNDLE", "DIR", "OUT_DIR"})
_FILES = frozenset(
    {
        *("CHECKPOINT", "CHECKPOINT|CONFIG", "COCO.json", "FILE", "FILE.pth", "INPUT", "KEY", "MODEL", "NEW.json"),
        *("OLD.json", "OUT.pth", "PATH", "PATH|-", "REFERENCE_MODEL"),
    }
)
"""Metavars of values that are paths; every other value is a number or a name."""


@dataclass(frozen=True)
class CompletedOption:
    """An option or a positional word, as shells complete it.

    Attributes:
        names: The option's names with their dashes; none is a positional word.
        text: Help of the option in one line.
        takes_value: A value follows.
        takes_many: Several values follow.
        choices: Values to propose.
        kind: Kind of its values: ``"files"``, ``"folders"``, or ``"words"``.
        metavar: Name of its value.
    """

    names: tuple[str, ...]
    text: str
    takes_value: bool
    takes_many: bool
    choices: tuple[str, ...]
    kind: str
    metavar: str


def completed_options(actions: Iterable[argparse.Action]) -> list[CompletedOption]:
    """Return what shells complete of a parser's actions."""
    return [_completed(action) for action in actions]


def _completed(action: argparse.Action) -> CompletedOption:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    kind = "folders" if metavar in _FOLDERS else "files" if metavar in _FILES else "words"
    choices = tuple(map(str, action.choices or described(action).suggest))
    return CompletedOption(
        tuple(action.option_strings),
        re.sub(r"\s+", " ", (action.help or "").replace("%%", "%")),
        action.nargs != 0,
        action.nargs in {"+", "*"},
        choices,
        kind,
        metavar,
    )


def completion_script(
    shell: str,
    command: str,
    actions: Iterable[argparse.Action],
    subcommands: Mapping[str, Iterable[argparse.Action]],
) -> str:
    """Return a script that completes the words of a command.

    Args:
        shell: Name of a shell of :data:`SHELLS`.
        command: Name of the program.
        actions: Actions of its parser.
        subcommands: Words that may stand first, each with the actions of a parser of its own.
    """
    commands = {"": completed_options(actions)}
    commands |= {word: completed_options(others) for word, others in subcommands.items()}
    return _SCRIPTS[shell](command, commands)


def _bash(command: str, commands: Mapping[str, Sequence[CompletedOption]]) -> str:
    name = _function_name(command)
    lines = [
        f"# bash completion of {command}. Load it with: source <({command} --completion bash)",
        f"{name}() {{",
        '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"',
        "    # bash splits --option=value into three words.",
        '    if [[ $cur == "=" ]]; then cur=""',
        '    elif [[ $prev == "=" ]]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi',
        "    COMPREPLY=()",
    ]
    for word, options in sorted(commands.items(), reverse=True):
        if word:
            lines += [f'    if [[ $COMP_CWORD -gt 1 && "${{COMP_WORDS[1]}}" == {word} ]]; then']
            lines += [f"    {line}" for line in _bash_words(options)]
            lines += ["        return", "    fi"]
    lines += _bash_words(commands[""], [word for word in commands if word])
    return "\n".join([*lines, "}", f"complete -o filenames -F {name} {command}", ""])


def _bash_words(options: Sequence[CompletedOption], subcommands: Sequence[str] = ()) -> list[str]:
    lines = ['    case "$prev" in']
    for option in options:
        if option.names and option.takes_value:
            lines += [f"        {'|'.join(option.names)}) {_bash_values(option)} ;;"]
    lines += ["    esac"]
    names = " ".join(name for option in options for name in option.names)
    lines += [f"    if [[ $cur == -* ]]; then {_bash_reply('-W ' + _quoted(names))}; return; fi"]
    if subcommands:
        first = f"-W {_quoted(' '.join(subcommands))} -f"
        lines += [f"    if [[ $COMP_CWORD -eq 1 ]]; then {_bash_reply(first)}; return; fi"]
    return [*lines, f"    {_bash_reply('-f')}"]


def _bash_values(option: CompletedOption) -> str:
    if option.choices:
        return f"{_bash_reply('-W ' + _quoted(' '.join(option.choices)))}; return"
    if option.kind == "words":
        return "return"
    return f"{_bash_reply('-d' if option.kind == 'folders' else '-f')}; return"


def _bash_reply(what: str) -> str:
    return f'mapfile -t COMPREPLY < <(compgen {what} -- "$cur")'


def _zsh(command: str, commands: Mapping[str, Sequence[CompletedOption]]) -> str:
    name = _function_name(command)
    lines = [
        f"#compdef {command}",
        f"# zsh completion of {command}. Load it after compinit with: source <({command} --completion zsh)",
        f"{name}() {{",
    ]
    for word, options in sorted(commands.items(), reverse=True):
        if word:
            lines += [f"    if (( CURRENT > 2 )) && [[ $words[2] == {word} ]]; then"]
            lines += ["        shift words; (( CURRENT-- ))", *(f"    {line}" for line in _zsh_words(options))]
            lines += ["        return", "    fi"]
    subcommands = [word for word in commands if word]
    if subcommands:
        lines += [f"    (( CURRENT == 2 )) && compadd -- {' '.join(subcommands)}"]
    lines += _zsh_words(commands[""])
    load = f'if [[ "$funcstack[1]" == {name} ]]; then {name} "$@"; else compdef {name} {command}; fi'
    return "\n".join([*lines, "}", load, ""])


def _zsh_words(options: Sequence[CompletedOption]) -> list[str]:
    specs = [_zsh_spec(option, name) for option in options for name in option.names]
    return ["    _arguments -S \\", *(f"        {spec} \\" for spec in specs), "        '*:file:_files'"]


def _zsh_spec(option: CompletedOption, name: str) -> str:
    text = re.sub(r"([\\\[\]:])", r"\\\1", option.text)
    if not option.takes_value:
        return _quoted(f"{name}[{text}]")
    actions = {"files": "_files", "folders": "_files -/", "words": " "}
    action = f"({' '.join(option.choices)})" if option.choices else actions[option.kind]
    value = re.sub(r"([\\:])", r"\\\1", option.metavar)
    # With "+" the value may be in the same word as a short option, with "=" behind one.
    return _quoted(f"*{name}{'=' if name.startswith('--') else '+'}[{text}]:{value}:{action}")


def _fish(command: str, commands: Mapping[str, Sequence[CompletedOption]]) -> str:
    lines = [f"# fish completion of {command}. Load it with: {command} --completion fish | source"]
    words = [word for word in commands if word]
    for word in words:
        lines += [f"complete -c {command} -n __fish_is_first_arg -a {word}"]
    for word, options in commands.items():
        condition = f"__fish_seen_subcommand_from {word}" if word else ""
        if words and not word:
            condition = f"not __fish_seen_subcommand_from {' '.join(words)}"
        for option in options:
            if option.names:
                lines += [_fish_line(command, option, condition)]
    return "\n".join([*lines, ""])


def _fish_line(command: str, option: CompletedOption, condition: str) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    value = ""
    if option.choices:
        value = f" -x -a {_fish_quoted(' '.join(option.choices))}"
    elif option.takes_value:
        folders = " -x -a '(__fish_complete_directories)'"
        value = {"files": " -r -F", "folders": folders, "words": " -x"}[option.kind]
    when = f" -n {_fish_quoted(condition)}" if condition else ""
    return f"complete -c {command}{when} {' '.join(names)}{value} -d {_fish_quoted(option.text)}"


def _function_name(command: str) -> str:
    return "_" + re.sub(r"\W", "_", command)


def _quoted(text: str) -> str:
    quoted = text.replace("'", "'\\''")
    return f"'{quoted}'"


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_SCRIPTS: Mapping[str, Callable[[str, Mapping[str, Sequence[CompletedOption]]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
SHELLS = tuple(_SCRIPTS)
"""Names of the shells that there are scripts for."""
