"""What every command does with words that nobody means, how messages count, and that their commands can be typed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.commands import COMMANDS, ROOT, entry_point

MODULES = sorted(ROOT.glob("*/yolact_*/**/*.py"))
# What the command needs besides.
WRITES_A_FOLDER = {
    "python -m yolact_calibration.shapes": ["--count", "1"],
    "python -m yolact_plugins.compile": ["--arch", "sm_87"],
    "yolact-export": ["x.pth"],
    "yolact-run": ["x.bundle", "x.png"],
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("words", [[""], ["x", ""], ["--json", ""], ["--images="], ["x", "-o", "", "y"]], ids=" ".join)
def test_an_empty_word_is_not_the_current_folder(
    command: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert entry_point(command)(words) == 2
    assert capsys.readouterr().err.startswith("error: there is an empty word ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", sorted(WRITES_A_FOLDER))
def test_a_folder_does_not_go_to_stdout(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert entry_point(command)([*WRITES_A_FOLDER[command], "-o", "-"]) == 2
    assert "of that name is -o ./-" in capsys.readouterr().err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_that_name_can_be_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert entry_point("python -m yolact_calibration.shapes")(["--count", "1", "-o", "./-"]) == 0
    assert (tmp_path / "-" / "instances.json").is_file()


@pytest.mark.parametrize("command", ["yolact-run", "yolact-eval", "yolact-bench"])
def test_the_help_of_commands_that_run_a_model_agrees(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry_point(command)(["--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "MODEL bundle folder, or one of its .onnx or .plan files" in told
    assert "5 the model does not fit this machine; 6 out of memory" in told


def test_messages_count_in_words() -> None:
    """``1 file(s)`` is a form to fill in; :func:`yolact_plugins.files.counted` knows the plural."""
    form = re.compile(r"[a-z]\((s|es|ies)\)")
    for path in MODULES:
        texts = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)]
        found = [(text.lineno, text.value) for text in texts if isinstance(text.value, str)]
        assert [line for line, text in found if form.search(text)] == [], path


# What a message may put into a command besides what it has quoted for the shell.
QUOTED = re.compile(r"\b(quote|join|_?words?|_?word_?|_what_to_type)\b")
HARMLESS = {"arch", "cubin.arch", "form", "out", "keys", "SCHEMA", "_user_name(user, plain=True)", "command"}
COMMAND_LINE = re.compile(
    r"(?<![\w.-])(?:yolact-(?:export|run|eval|bench|finetune)|python -m (?!yolact_benchmarks\.studies)[\w.]+"
    r"|openssl|chmod|chown|mv|df|ls -ld|mkdir)"
    r"(?= )[^;,:()]*"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_in_proposed_commands_are_quoted_for_the_shell(path: Path) -> None:
    """``yolact-export my robot.bundle --engine`` is not what anybody meant to type."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            holes = [ast.unparse(part.value) for part in node.values if isinstance(part, ast.FormattedValue)]
            parts = iter(range(len(holes)))
            text = "".join(
                f"\0{next(parts)}\0" if isinstance(part, ast.FormattedValue) else str(ast.literal_eval(part))
                for part in node.values
            )
            for command in COMMAND_LINE.findall(text):
                put_in = [holes[int(number)] for number in re.findall(r"\0(\d+)\0", command)]
                found += [hole for hole in put_in if not QUOTED.search(hole) and hole not in HARMLESS]
    assert found == []
