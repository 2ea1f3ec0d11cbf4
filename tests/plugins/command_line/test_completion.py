"""Completion scripts, run by the shells that they are for."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from support.tools import needs_tool, require_tool
from yolact_plugins.command_line import CommandParser, TextRequested
from yolact_plugins.command_line.completion import SHELLS, completed_options, completion_script


def make_compare() -> CommandParser:
    parser = CommandParser("tool compare", "", completes=False)
    parser.add_argument("--any-machine", action="store_true", help="all: [the] same")
    return parser


def make() -> CommandParser:
    parser = CommandParser("tool", "", subcommands={"compare": make_compare})
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("-o", "--output", metavar="DIR", help="it's a folder: [any] 100%% of $HOME `x` \\ it")
    parser.add_argument("--json", metavar="PATH|-")
    parser.add_argument("--target", choices=["cpu", "rtx"])
    parser.add_argument("--precision", metavar="NAME", suggest=["fp16", "fp32"])
    parser.add_argument("--threads", metavar="N")
    return parser


def script(shell: str) -> str:
    return completion_script(shell, "tool", make().actions, {"compare": make_compare().actions})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a.json").touch()
    (tmp_path / "b.json").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


CASES = [
    ("tool --t", {"--target", "--threads"}),
    ("tool x --prec", {"--precision"}),
    ("tool --target ", {"cpu", "rtx"}),
    ("tool --target=r", {"rtx"}),
    ("tool x --precision fp1", {"fp16"}),
    ("tool --json ", {"a folder", "a.json", "b.json"}),
    ("tool --json b", {"b.json"}),
    ("tool -o ", {"a folder"}),
    ("tool --output a", {"a folder"}),
    ("tool --threads ", set()),
    ("tool comp", {"compare"}),
    ("tool compare --a", {"--any-machine"}),
    ("tool compare a", {"a folder", "a.json"}),
    ("tool x --any", set()),
]


def bash_words(line: str) -> list[str]:
    """The words of a line as bash gives them to a completion."""
    words = [part for word in line.split(" ") for part in re.split("(=)", word)]
    return words[:-1] if line.endswith("=") else words


@needs_tool("bash")
@pytest.mark.parametrize(("line", "proposed"), CASES)
def test_bash(line: str, proposed: set[str], folder: Path) -> None:
    words = bash_words(line)
    code = f"{script('bash')}\nCOMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}\n_tool\n"
    code += "printf '%s\\n' \"${COMPREPLY[@]}\"; complete -p tool"
    done = subprocess.run([require_tool("bash"), "--norc", "-c", code], capture_output=True, text=True, check=True)
    *found, registered = done.stdout.splitlines()
    assert {name for name in found if name} == proposed
    assert done.stderr == ""
    assert registered == "complete -o filenames -F _tool tool"


@needs_tool("fish")
@pytest.mark.parametrize(("line", "proposed"), CASES)
def test_fish(line: str, proposed: set[str], folder: Path) -> None:
    (folder / "tool.fish").write_text(script("fish"))
    code = f"source tool.fish; complete -C {shlex.quote(line)}"
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    command = [require_tool("fish"), "--no-config", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    (folder / "tool.fish").unlink()
    found = {
        line.partition("\t")[0].partition("=")[2 * ("=" in line.partition("\t")[0])]
        for line in done.stdout.splitlines()
    }
    assert {name.rstrip("/").replace("\\ ", " ") for name in found} - {
        "tool.fish",
        ".local",
        ".config",
        ".cache",
    } == proposed
    assert done.stderr == ""


@needs_tool("zsh")
@pytest.mark.parametrize(("line", "proposed"), CASES)
def test_zsh(line: str, proposed: set[str], folder: Path) -> None:
    """In a shell of its own, which is asked for all completions of a line; what it would show is printed."""
    (folder / ".zsh").mkdir()
    (folder / ".zsh" / "tool.zsh").write_text(script("zsh"))
    (folder / ".zsh" / "inner.zsh").write_text(
        "PROMPT=; autoload -Uz compinit && compinit -u -D; source .zsh/tool.zsh\n"
        'compadd () { local -a got; builtin compadd -O got "$@"; print -rl -- "<"$^got">"; builtin compadd "$@"; }\n'
        "_probe () { _main_complete; exit }; zle -C probe complete-word _probe; bindkey '^I' probe; print READY\n"
    )
    code = (
        "zmodload zsh/zpty; zpty z zsh -f -i; zpty -w z 'source .zsh/inner.zsh'; "
        "while zpty -r z out; do [[ $out == *READY* ]] && break; done; "
        f"zpty -w -n z {shlex.quote(line)}$'\\t'; while zpty -r z out; do print -rn -- $out; done"
    )
    zsh = [require_tool("zsh"), "-f", "-c", code]
    done = subprocess.run(zsh, capture_output=True, text=True, timeout=60, check=True)
    found = {name.replace("\\ ", " ") for name in re.findall(r"<(.*?)>", done.stdout)}
    assert {name for name in found if not name.startswith(".")} == proposed, done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_the_option_asks_for_the_script(shell: str) -> None:
    with pytest.raises(TextRequested) as request:
        make().parse_args(["--completion", shell])
    assert request.value.text == script(shell)


def test_kinds_of_values() -> None:
    kinds = {option.metavar: option.kind for option in completed_options(make().actions) if option.takes_value}
    assert kinds["MODEL"] == kinds["PATH|-"] == "files"
    assert (kinds["DIR"], kinds["N"]) == ("folders", "words")
