"""Output of the project's commands: results on stdout; messages, progress and errors on stderr; exit statuses."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO, TypeVar

from yolact_plugins.command_line import CommandParser, Options, TextRequested
from yolact_plugins.command_line.process import escaped_stdout, log_on_stderr
from yolact_plugins.command_line.standard_streams import (
    abandon_stdout,
    finish_streams,
    open_closed_streams,
    write_stdout,
)
from yolact_plugins.file_errors import describe, naming
from yolact_plugins.files import check_words, real_path, write_atomically
from yolact_plugins.plain_text import GuardedStream, guarded_stderr, printable_line, printable_lines
from yolact_runtime.errors import UsageError, YolactError
from yolact_runtime.reporter import Heartbeat, show_progress
from yolact_runtime.stop_signals import Terminated, raise_stops

__all__ = [
    "Terminal",
    "add_common_options",
    "check_json_destination",
    "named_as_options",
    "run_command",
    "show_results",
    "write_json",
]

Item = TypeVar("Item")
# Options of files that a command writes.
_WRITTEN = ("json", "jsonl", "html", "markdown")
_INTERRUPTED, _TERMINATED, _OUT_OF_MEMORY = 130, 143, 6


class Terminal:
    """The reporter of the commands, which writes messages for the user to stderr.

    On a terminal the state of the work is one line that redraws itself. Elsewhere, in a log or a pipe, it is written as
    a line when there has been none for half a minute.

    Args:
        quiet: Whether to write only warnings and errors.
        stream: Stream to write to; None means ``sys.stderr``.

    Attributes:
        quiet: Whether only warnings and errors are written.
        interactive: Whether a user watches: the stream is a terminal.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        if stream is None:
            # Text written here is escaped here, and has colours.
            stream = sys.stderr.unguarded if isinstance(sys.stderr, GuardedStream) else sys.stderr
        self._stream = stream
        self.interactive = self._stream.isatty()
        self._colour = self.interactive and "NO_COLOR" not in os.environ
        self._heartbeat = Heartbeat()

    def say(self, text: str = "") -> None:
        """Write one line, unless quiet."""
        if not self.quiet:
            self._line(text)

    def heading(self, text: str) -> None:
        """Write a line that starts a section, unless quiet."""
        if not self.quiet:
            self._line(text, code="1")

    def warn(self, text: str) -> None:
        """Write a warning; shown even when quiet."""
        self._line(text, self._paint("warning: ", "33"))

    def error(self, text: str) -> None:
        """Write an error; shown even when quiet."""
        self._line(text, self._paint("error: ", "31"))

    def status(self, text: str) -> None:
        """Show a line that the next one replaces; in a log, write it if one is due. Nothing when quiet."""
        if self.quiet:
            return
        if self.interactive:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r\033[K" + printable_line(text)[:width])
        elif text and self._heartbeat.is_due:
            self._line(text)

    def progress(self, items: Iterable[Item], label: str, total: int | None = None) -> Generator[Item, None, None]:
        """Yield `items` and show the progress as :meth:`status` does.

        Close it if ending `items` is work: after an exception in a loop Python does it, and drops signals meanwhile.
        """
        try:
            yield from show_progress(items, label, total, self.status)
        finally:
            if self.interactive and not self.quiet:
                self._write("\r\033[K")

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def _line(self, text: str, prefix: str = "", code: str = "") -> None:
        self._heartbeat.reset()
        shown = printable_lines(text)
        cleared = "\r\033[K" if self.interactive else ""
        self._write(cleared + prefix + (self._paint(shown, code) if code else shown) + "\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            # A log on a full disk, or a terminal whose connection is lost: nothing can be reported, and results go
            # elsewhere.
            return


def show_results(lines: Iterable[str]) -> None:
    """Write readable results to stdout, a line each, escaped by :func:`yolact_plugins.plain_text.printable_line`."""
    write_stdout("".join(printable_line(line) + "\n" for line in lines))


def add_common_options(parser: CommandParser) -> None:
    """Add ``--quiet`` and ``--verbose``, the same in every command."""
    parser.general.add_argument("-q", "--quiet", action="store_true", help="print results, warnings and errors only")
    parser.general.add_argument("-v", "--verbose", action="store_true", help="print details too")


def run_command(
    parser: CommandParser,
    command: Callable[[argparse.Namespace, Terminal], int],
    arguments: list[str] | None,
) -> int:
    """Parse the words of a command line, run `command`, and turn errors into one message and an exit status.

    A program may call it, too: no SystemExit is raised, and logging, signal handlers and the settings of the standard
    streams are afterwards what they were.

    Args:
        parser: Parser with :func:`add_common_options`.
        command: Function that does the work and returns the exit status. Its options have the typed words as
            ``command_line``.
        arguments: The words after the command's name; None takes those of this process.
    """
    open_closed_streams()
    with guarded_stderr(), escaped_stdout():
        status = _run(parser, command, arguments)
        finish_streams()
        return status


def _run(
    parser: CommandParser,
    command: Callable[[argparse.Namespace, Terminal], int],
    arguments: list[str] | None,
) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    try:
        check_words(words)
        options = parser.parse_args(words)
    except TextRequested as request:
        return _status(partial(_write_text, request.text), Terminal())
    except YolactError as error:
        # For a single word, before it is known whether to be quiet.
        Terminal().error(str(error))
        return error.exit_status
    options.command_line = shlex.join([*parser.prog.split(), *words])
    terminal = Terminal(options.quiet)
    with log_on_stderr(logging.INFO if options.verbose else logging.WARNING):
        return _status(partial(_checked, parser, command, options, terminal), terminal)


def _write_text(text: str) -> int:
    write_stdout(text)
    return 0


def _checked(
    parser: CommandParser,
    command: Callable[[argparse.Namespace, Terminal], int],
    options: Options,
    terminal: Terminal,
) -> int:
    """Run the command, unless an option has no effect, or a file that it would write is also named as something else.

    Raises:
        UsageError: The message says which option or word it is. Messages of the command that name the field of an
            options dataclass name the option that sets it.
    """
    for name in options.overridden:
        terminal.say(f"{name} was given more than once; its last value counts")
    with named_as_options(parser.option_of_field(options.typed)):
        _refuse_overwriting(parser, options)
        parser.require_effects(options)
        return command(options, terminal)


def _refuse_overwriting(parser: CommandParser, options: Options) -> None:
    named = [
        (action.dest, action.option_strings[-1] if action.option_strings else str(action.metavar), Path(word))
        for action in parser.actions
        for word in _words(getattr(options, action.dest, None))
    ]
    for place, written in enumerate(_WRITTEN):
        for destination in _words(getattr(options, written, None)):
            for field, name, path in named:
                # Of two files to be written, the first one reports it.
                is_output = field in (*_WRITTEN[place + 1 :], "output")
                if field not in _WRITTEN[: place + 1] and _is_same_file(Path(destination), path, is_output):
                    if is_output:
                        raise UsageError(
                            f"--{written} and {name} cannot both write {destination}; name a file for each"
                        )
                    raise UsageError(
                        f"--{written} would overwrite {destination}, which is also {name}; name another file"
                    )


def _words(value: object) -> list[str | Path]:
    """Return the values of an option that may be paths."""
    values = value if isinstance(value, list | tuple) else [value]
    return [item for item in values if isinstance(item, str | Path) and str(item) not in ("", "-")]


def _is_same_file(destination: Path, other: Path, is_output: bool) -> bool:
    """Return whether both are the same regular file; a missing one counts if both are to be written."""
    try:
        if destination.exists() and other.exists():
            return destination.is_file() and destination.samefile(other)
        return is_output and destination.resolve() == other.resolve()
    except (OSError, ValueError, RuntimeError):  # no path at all, or a circle of links
        return False


def _status(work: Callable[[], int], terminal: Terminal) -> int:
    try:
        with raise_stops():
            status = work()
            write_stdout()
            return status
    except YolactError as error:
        terminal.error(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        terminal.error("interrupted")
        return _INTERRUPTED
    except Terminated:
        terminal.error("terminated")
        return _TERMINATED
    except MemoryError as error:
        terminal.error(f"out of memory ({error}); try smaller inputs, or a machine with more")
        return _OUT_OF_MEMORY
    except BrokenPipeError:
        # The reader of the output has closed the pipe (as `head` does).
        abandon_stdout()
        return 1
    except OSError as error:
        terminal.error(describe(error))
        return 1


def write_json(document: object, destination: str) -> None:
    """Write JSON, in ASCII, to a path whose folder exists, or to stdout for ``-``.

    Escapes carry what a terminal's encoding or UTF-8 cannot, such as file names that are not text.
    """
    text = json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n"
    if destination == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    path = Path(destination)
    with naming(path):
        if path.exists() and not path.is_file():
            # A device or a pipe stays what it is, and so does a link.
            path.write_bytes(text.encode())
        else:
            write_atomically(real_path(path), text.encode())


def check_json_destination(
    destination: str | None, option: str = "--json", starts: tuple[bytes, ...] = (b"{",), to_come: Path | None = None
) -> None:
    """Reject a ``--json`` that would destroy another file or cannot be written, before any work is done.

    ``--json photo.jpg other.jpg`` is an easy mistake of a user who takes the option for a switch.

    Args:
        destination: Value of the option; None if it is not given.
        option: Name of the option.
        starts: Beginnings of files that may be replaced; an empty file always may be, and with ``--json`` any
            ``.json``.
        to_come: Folder that the command creates, which may contain the file.

    Raises:
        UsageError: The path is empty, a folder, in a folder that is missing or not writable, another file, or part of a
            bundle.
    """
    if destination is None or destination == "-":
        return
    path = Path(destination)
    if not destination or path.is_dir():
        raise UsageError(f'{option} takes a file to write, or - for stdout; found "{destination}"')
    part_of_bundle = path.name in {"manifest.json", "report.json"} and (path.parent / "manifest.json").exists()
    if part_of_bundle or (path.is_file() and not _may_be_replaced(path, option, starts)):
        ending = option.replace("--", ".")
        raise UsageError(f"{option} would overwrite {path}, which is left alone; name another file ending in {ending}")
    folder = path.absolute().parent
    if not folder.exists() and to_come is not None and folder == to_come.absolute():
        folder = next(parent for parent in folder.parents if parent.exists())
    elif not folder.exists() and next(parent for parent in folder.parents if parent.exists()).is_dir():
        raise UsageError(
            f"{option} cannot write {path}: there is no folder {path.parent}. Correct the path, or make the folder: "
            f"mkdir -p {shlex.quote(str(path.parent))}"
        )
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"{option} cannot write {path}: {folder} is not a folder that takes files; name another place")


def _may_be_replaced(path: Path, option: str, starts: tuple[bytes, ...]) -> bool:
    """Return whether a file is an earlier result, or was created by the user for this one."""
    with path.open("rb") as file:
        beginning = file.read(max(map(len, starts)))
    return not beginning or beginning.startswith(starts) or (option == "--json" and path.suffix.lower() == ".json")


@contextmanager
def named_as_options(options: Mapping[str, str]) -> Iterator[None]:
    """Let usage errors that name fields of an options dataclass name the options that set them.

    A field is found by its name where that has an underscore in it; any other name, such as ``seed``, is also a word,
    and only means the field where a message begins with "seed must" or "seed:".

    Args:
        options: Names of options by field.
    """
    try:
        yield
    except UsageError as error:
        named = _name_options(str(error), options)
        if named == str(error):
            raise
        raise UsageError(named) from error


def _name_options(message: str, options: Mapping[str, str]) -> str:
    first, _, rest = message.partition(" ")
    if (name := first.removesuffix(":")) in options and (name != first or rest.startswith("must ")):
        message = f"{options[name]}{first[len(name) :]} {rest}"
    fields = "|".join(sorted(field for field in options if "_" in field))
    if not fields:
        return message
    return re.sub(rf"(?<![\w./-])({fields})(?![\w/-]|\.\w)", lambda field: options[field[0]], message)
