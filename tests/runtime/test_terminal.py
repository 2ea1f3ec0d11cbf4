from __future__ import annotations

import argparse
import io
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.tools import needs_tool, require_tool
from yolact_plugins.command_line import CommandParser
from yolact_plugins.text import unprintable
from yolact_runtime.errors import BundleError, UsageError
from yolact_runtime.terminal import (
    Terminal,
    add_common_options,
    check_json_destination,
    named_as_options,
    run_command,
    show_results,
    write_json,
)


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def _parser() -> CommandParser:
    parser = CommandParser("tool", "A tool.")
    parser.add_argument("word", nargs="?")
    add_common_options(parser)
    return parser


@pytest.fixture(autouse=True)
def _no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands configure logging for their process; not for the tests'."""
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)


# --- talk -------------------------------------------------------------------------------------------------------------


def test_talk_goes_to_stderr_and_quiet_leaves_warnings_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        terminal = Terminal(quiet)
        terminal.say("talk")
        terminal.heading("heading")
        terminal.warn("careful")
        terminal.error("broken")
        captured = capsys.readouterr()
        assert captured.out == ""
        talk = "" if quiet else "talk\nheading\n"
        assert captured.err == talk + "warning: careful\nerror: broken\n"


def test_colours_only_on_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = _Tty(), _Tty()
    Terminal(stream=coloured).error("x")
    monkeypatch.setenv("NO_COLOR", "")
    Terminal(stream=plain).error("x")
    piped = io.StringIO()
    Terminal(stream=piped).error("x")
    assert "\033[31merror: \033[0mx" in coloured.getvalue()
    assert "\033[31m" not in plain.getvalue()
    assert piped.getvalue() == "error: x\n"


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("stream", [io.StringIO, _Tty])
@pytest.mark.parametrize("total", [None, 3])
def test_progress_yields_every_item(quiet: bool, stream: type[io.StringIO], total: int | None) -> None:
    terminal = Terminal(quiet, stream())
    assert list(terminal.progress(iter("abc"), "work", total)) == ["a", "b", "c"]
    assert list(terminal.progress([], "nothing", 0)) == []


def test_progress_draws_on_a_terminal_and_cleans_up() -> None:
    stream = _Tty()
    list(Terminal(stream=stream).progress(range(2), "work", 2))
    assert "work [########################] 2/2" in stream.getvalue()
    assert stream.getvalue().endswith("\r\033[K")
    piped = io.StringIO()
    list(Terminal(stream=piped).progress(range(2), "work", 2))
    assert piped.getvalue() == ""


def test_a_log_gets_the_state_of_the_work_when_nothing_else_came_for_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    piped = io.StringIO()
    terminal = Terminal(stream=piped)

    def after(seconds: float, tell: Any, *words: Any) -> str:
        now[0] += seconds
        before = len(piped.getvalue())
        tell(*words)
        return piped.getvalue()[before:]

    assert after(29, terminal.status, "one") == ""
    assert after(2, terminal.status, "two") == "two\n"
    assert after(29, terminal.say, "line") == "line\n"
    assert after(29, terminal.status, "three") == ""
    slow = (now.__setitem__(0, now[0] + 31) for _ in range(2))
    assert after(0, list, terminal.progress(slow, "work", 2)) == (
        "work [############............] 1/2  0.0/s  31 s left\nwork [########################] 2/2  0.0/s  0 s left\n"
    )
    assert after(31, Terminal(quiet=True, stream=piped).status, "four") == ""


def test_progress_cleans_up_after_an_error() -> None:
    stream = _Tty()

    def items() -> Any:
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        list(Terminal(stream=stream).progress(items(), "work"))
    assert stream.getvalue().endswith("\r\033[K")


@pytest.mark.parametrize("interactive", [True, False])
def test_work_goes_on_where_messages_cannot_be_written(interactive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log on a full disk, or the terminal of a connection that is lost."""

    class Lost(io.StringIO):
        def isatty(self) -> bool:
            return interactive

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error", text)

    now = iter(range(0, 10**6, 60))  # so that a line is due each time in a log
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    terminal = Terminal(stream=Lost())
    for tell in (terminal.say, terminal.heading, terminal.status, terminal.warn, terminal.error):
        tell("text")
    assert list(terminal.progress("abc", "work", 3)) == ["a", "b", "c"]


# --- running a command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (BundleError("no model"), 1, "error: no model\n"),
        (UsageError("words"), 2, "error: words\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (MemoryError("8 GB"), 6, "error: out of memory (8 GB); try smaller inputs, or a machine with more\n"),
        (
            OSError(28, "No space left on device", "o/out.json"),
            1,
            "error: o/out.json: No space left on device; free some space (df -h o), or name a place on another disk\n",
        ),
    ],
)
def test_errors_become_one_message_and_a_status(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(options: argparse.Namespace, terminal: Terminal) -> int:
        raise error

    assert run_command(_parser(), command, []) == status
    captured = capsys.readouterr()
    assert captured.err.endswith(message)
    assert captured.out == ""


def test_a_programming_error_is_not_hidden() -> None:
    def command(options: argparse.Namespace, terminal: Terminal) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(_parser(), command, [])


def test_the_command_gets_its_options_and_gives_the_status() -> None:
    def command(options: argparse.Namespace, terminal: Terminal) -> int:
        assert (options.word, terminal.quiet) == ("x", True)
        return 7

    assert run_command(_parser(), command, ["x", "-q"]) == 7


@pytest.mark.parametrize("words", [["--nonsense"], ["a", "b"]])
def test_bad_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(_parser(), lambda options, terminal: 0, words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.endswith("; see tool --help\n")
    assert said.count("\n") == 1


# --- files ------------------------------------------------------------------------------------------------------------


def test_json_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json({"class_name": "猫", "file": "a b"}, str(path))
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert json.loads(path.read_bytes()) == {"class_name": "猫", "file": "a b"}


def test_json_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"a": [1, 2]}, "-")
    assert capsys.readouterr().out == '{"a":[1,2]}\n'


def test_json_of_a_file_name_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # What Python makes of a name with the byte 0xE9 outside UTF-8. JSON can hold it, and the name comes back.
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    write_json({"file": name}, str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"file": name}
    write_json({"file": name}, "-")
    assert json.loads(capsys.readouterr().out) == {"file": name}


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")}, str(tmp_path / "a.json"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"), [("photo.jpg", b"\xff\xd8"), ("model.onnx", b"\x08"), ("manifest.json", b"{}")]
)
def test_json_does_not_overwrite_other_peoples_files(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match="left alone"):
        check_json_destination(str(path))
    assert path.read_bytes() == content


def test_json_destinations_that_are_fine(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("[]")
    (tmp_path / "empty").touch()
    for destination in (
        None,
        "-",
        tmp_path / "old.json",
        tmp_path / "empty",
        tmp_path / "new.json",
        "/dev/null",
    ):
        check_json_destination(destination if destination is None else str(destination))


def test_json_destinations_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{")
    for destination in ("", str(tmp_path), str(tmp_path / "file" / "a.json"), str(tmp_path / "file" / "b" / "a.json")):
        with pytest.raises(UsageError, match="--json"):
            check_json_destination(destination)


def test_no_folder_is_made_for_json(tmp_path: Path) -> None:
    missing = tmp_path / "my folder" / "deep"
    with pytest.raises(UsageError, match=r"there is no folder .*mkdir -p '.*my folder/deep'"):
        check_json_destination(str(missing / "a.json"))
    # Where the command makes the folder, for pictures, the file may lie in it.
    check_json_destination(str(missing / "a.json"), to_come=missing)
    with pytest.raises(UsageError, match="there is no folder"):
        check_json_destination(str(missing / "a.json"), to_come=tmp_path / "other")
    assert list(tmp_path.iterdir()) == []


def test_json_lines_replace_their_own_kind_only(tmp_path: Path) -> None:
    def check(name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        check_json_destination(str(tmp_path / name), "--jsonl", (b'{"schema":"yolact-results/',))

    check("a.jsonl", b"")
    check("a.txt", b'{"schema":"yolact-results/1","source":')
    for name, content in (("a.jsonl", b'{"label": 1}'), ("a.json", b'{"model":"x"}'), ("a.jpg", b"\xff")):
        with pytest.raises(UsageError, match=r"--jsonl would overwrite .*, which is left alone; .* ending in \.jsonl"):
            check(name, content)


def test_json_leaves_a_pipe_a_pipe(tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    target.touch()
    link = tmp_path / "link.json"
    link.symlink_to(target)
    write_json({"a": 1}, str(link))
    assert link.is_symlink()
    assert target.read_text() == '{"a":1}\n'


def test_a_termination_unwinds_the_program_so_that_it_can_tidy_up(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    tidied: list[bool] = []

    def command(options: argparse.Namespace, terminal: Terminal) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            tidied.append(True)
        return 0

    assert run_command(_parser(), command, []) == 143
    assert tidied == [True]
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "error: terminated\n"


# --- names from outside -----------------------------------------------------------------------------------------------


@given(st.text(), st.sampled_from(["say", "heading", "warn", "error", "status"]))
@examples(150)
def test_no_name_reaches_a_terminal_as_a_command_or_as_a_line_of_its_own(name: str, how: str) -> None:
    for stream in (_Tty(), io.StringIO()):
        terminal = Terminal(stream=stream)
        getattr(terminal, how)(name)
        sent = stream.getvalue()
        for sequence in ("\r\033[K", "\033[1m", "\033[31m", "\033[33m", "\033[0m"):
            sent = sent.replace(sequence, "")
        lines = sent.removesuffix("\n").split("\n")
        assert all(unprintable(line) is None for line in lines)
        assert all(line.startswith(" ") or not line for line in lines[1:])


def test_the_label_of_progress_is_shown_as_what_it_is() -> None:
    stream = _Tty()
    list(Terminal(stream=stream).progress(range(2), "a\033[2Jb", 2))
    assert "\033[2J" not in stream.getvalue()
    assert "a\\x1b[2Jb [" in stream.getvalue()


def test_log_lines_are_neutralised_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def log(_: object, __: object) -> int:
        logging.getLogger("x").warning("cannot read %s", "a\033[2J\nerror: b")
        return 0

    assert run_command(_parser(), log, []) == 0
    assert capsys.readouterr().err == "WARNING x: cannot read a\\x1b[2J\n  error: b\n"


def test_an_option_that_is_overridden_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    parser = CommandParser("tool", "")
    parser.add_argument("--seed")
    add_common_options(parser)
    for quiet, told in (([], "--seed was given more than once; its last value counts\n"), (["-q"], "")):
        assert run_command(parser, lambda options, _: int(options.seed), ["--seed", "1", "--seed", "7", *quiet]) == 7
        assert capsys.readouterr().err == told


@pytest.mark.parametrize("words", [[], ["-v"], ["--help"], ["--version"], ["--help-all"], ["--coffee"]])
def test_a_program_that_calls_a_command_is_left_as_it_was(words: list[str], tmp_path: Path) -> None:
    """No SystemExit, and logging, handlers of signals and the settings of streams are what they were."""
    code = (
        "import logging, signal, sys; from yolact_runtime.terminal import *\n"
        "from yolact_plugins.command_line import CommandParser\n"
        "def state():\n"
        "    root = logging.getLogger(); streams = [sys.stdin, sys.stdout, sys.stderr]\n"
        "    return (list(root.handlers), root.level, [*map(signal.getsignal, (2, 15))],\n"
        "            streams, [stream.errors for stream in streams])\n"
        "def work(*_):\n"
        "    logging.getLogger('x').warning('seen'); print('\\udc80'); return 3\n"
        "parser = CommandParser('tool', ''); add_common_options(parser); before = state()\n"
        f"status = run_command(parser, work, {words!r})\n"
        "assert state() == before, (before, state())\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    status, told = {"--coffee": (2, "error: unknown option --coffee; see tool --help\n")}.get("".join(words), (0, ""))
    if words in ([], ["-v"]):
        status, told = 3, "WARNING x: seen\n"
        assert done.stdout == "\\udc80\n"
    assert (done.returncode, done.stderr) == (status, told)


@needs_tool("bash")
@pytest.mark.parametrize("option", ["--help", "--help-all", "--version"])
@pytest.mark.parametrize(
    ("redirected", "status", "told"),
    [
        (">&-", 1, "error: cannot write stdout: Bad file descriptor\n"),
        (">/dev/full", 1, "error: cannot write stdout: No space left on device\n"),
        ("| true", 1, ""),
    ],
)
def test_help_that_cannot_be_written(option: str, redirected: str, status: int, told: str) -> None:
    code = (
        "import sys; from yolact_runtime.terminal import *; from yolact_plugins.command_line import CommandParser\n"
        "p = CommandParser('tool', ''); add_common_options(p)\n"
        # The reader of the pipe is gone before anything is written.
        "import select; poll = select.poll(); poll.register(1, 0); 'PIPE' in sys.argv and poll.poll()\n"
        f"sys.exit(run_command(p, lambda *_: 0, [{option!r}]))"
    )
    words = [sys.executable, "-c", code, *(["PIPE"] if "|" in redirected else [])]
    shell = f"set -o pipefail; {shlex.join(words)} {redirected}"
    done = subprocess.run([require_tool("bash"), "-c", shell], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, told)


def test_results_for_people_are_neutralised(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(["a\033]0;owned\a", "b\nerror: c"])
    assert capsys.readouterr().out == "a\\x1b]0;owned\\x07\nb\\nerror: c\n"


def test_errors_of_fields_are_named_as_the_options_that_set_them() -> None:
    with pytest.raises(UsageError, match=r"^--score must lie between 0 and 1$"), named_as_options({"score": "--score"}):
        raise UsageError("score must lie between 0 and 1")
    with pytest.raises(UsageError, match=r"^--score: none is there$"), named_as_options({"score": "--score"}):
        raise UsageError("score: none is there")
    for message in ("scores must differ", "score and name", "a num_threads.json is there"):
        names = {"score": "--score", "num_threads": "--threads"}
        with pytest.raises(UsageError, match=rf"^{message}$"), named_as_options(names):
            raise UsageError(message)
    with pytest.raises(UsageError, match=r"^--a 1, --threads: 2$"), named_as_options({"num_threads": "--threads"}):
        raise UsageError("--a 1, num_threads: 2")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_behind_stdout_is_named() -> None:
    code = "import sys; from yolact_plugins.command_line import CommandParser; from yolact_runtime.terminal import *; "
    code += "p = CommandParser('tool', 'A tool.'); "
    code += "add_common_options(p); sys.exit(run_command(p, lambda *_: show_results(['x']) or 0, []))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"error: cannot write stdout: No space left on device\n")


def _parser_of_files() -> CommandParser:
    parser = CommandParser("made-up", "A tool.")
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("inputs", nargs="*", metavar="INPUT")
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--calib", nargs="+")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path)
    for written in ("--json", "--jsonl", "--html", "--markdown"):
        parser.add_argument(written)
    add_common_options(parser)
    return parser


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["m.onnx", "--json", "m.onnx"], "--json would overwrite m.onnx, which is also MODEL"),
        (["m.onnx", "a.jpg", "--json", "./a.jpg"], "--json would overwrite ./a.jpg, which is also INPUT"),
        (["m.onnx", "--annotations", "l.json", "--json", "sub/../l.json"], "which is also --annotations"),
        (["m.onnx", "--annotations", "l.json", "--json", "link.json"], "which is also --annotations"),
        (
            ["m.onnx", "--calib", "sub", "a.jpg", "--html", "a.jpg"],
            "--html would overwrite a.jpg, which is also --calib",
        ),
        (["m.onnx", "--json", "new", "--html", "new"], "--json and --html cannot both write new; name a file for each"),
        (["m.onnx", "--json", "new.pth", "-o", "./new.pth"], "--json and --output cannot both write new.pth"),
        (
            ["m.onnx", "--jsonl", "l.json", "--markdown", "link.json"],
            "--jsonl and --markdown cannot both write l.json",
        ),
        (["m.onnx", "--annotations", "l.json", "--json", "new.json"], None),
        (["m.onnx", "--json", "auto"], None),
        (["m.onnx", "--json", "-", "--jsonl", "-", "--calib", "-"], None),
        (["m.onnx", "--json", "/dev/null", "--html", "/dev/null"], None),
        (["m.onnx", "--json", "circle", "--calib", "circle"], None),
        (["m.onnx", "x" * 5000, "--json", "l.json"], None),
    ],
)
def test_no_command_writes_over_a_file_that_is_named_for_something_else(
    words: list[str],
    what: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``--annotations labels.json --json labels.json`` replaced the labels by figures."""
    monkeypatch.chdir(tmp_path)
    for name in ("m.onnx", "a.jpg", "l.json"):
        Path(name).write_text("{}")
    Path("sub").mkdir()
    Path("link.json").symlink_to("l.json")
    Path("circle").symlink_to("circle")
    status = run_command(_parser_of_files(), lambda *_: 0, words)
    said = capsys.readouterr().err
    assert (status, "error" in said) == ((0, False) if what is None else (2, True))
    assert what is None or what in said
