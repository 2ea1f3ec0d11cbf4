"""Command lines: parsers whose options state when they have an effect, short help and errors, shell completion."""

from yolact_plugins.command_line.actions import TextRequested
from yolact_plugins.command_line.help_text import Example
from yolact_plugins.command_line.parser import CommandParser, OptionGroup, Options
from yolact_plugins.command_line.rules import Rule, in_jobs, is_given, needs

__all__ = [
    "CommandParser",
    "Example",
    "OptionGroup",
    "Options",
    "Rule",
    "TextRequested",
    "in_jobs",
    "is_given",
    "needs",
]
