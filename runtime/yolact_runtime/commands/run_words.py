"""Further checks of the words of ``yolact-run``: swapped or out of range."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.errors import UsageError
from yolact_runtime.model.bundle import MANIFEST_NAME, PLAN_SUFFIXES
from yolact_runtime.option_numbers import MAX_INSTANCES, check_most, shown_number
from yolact_runtime.terminal import check_json_destination

__all__ = ["INPUTS", "SELF_TEST", "check_words", "job_of", "typed_output"]

INPUTS, SELF_TEST = "inputs", "self-test"
"""Jobs of the command."""

_MODEL_SUFFIXES = PLAN_SUFFIXES | {".onnx"}


def typed_output(text: str) -> Path:
    """Parse the folder for pictures; a ``type`` for ``argparse``.

    Raises:
        UsageError: The text is ``-``.
    """
    if text == "-":
        raise UsageError(
            "-o takes a folder for pictures, which do not go to stdout; results do: --json -, or --jsonl -. A folder "
            "of that name is -o ./-"
        )
    return Path(text)


def job_of(options: argparse.Namespace) -> str:
    """Return the job that a command line asks for.

    Raises:
        UsageError: It asks for none.
    """
    if options.inputs:
        return INPUTS
    if options.self_test:
        return SELF_TEST
    # Which may have taken the only picture.
    for option, value in (("--json", options.json), ("--jsonl", options.jsonl)):
        check_json_destination(value, option)
    raise UsageError("name an INPUT: an image, a video, a folder or a glob; or --self-test")


def check_words(options: argparse.Namespace) -> None:
    """Reject mistakes before any work is done.

    Raises:
        UsageError: The message says what to type instead.
    """
    _check_order(options)
    if options.top_k is not None and options.top_k < 1:
        raise UsageError(f"--top-k must be 1 or more, found {shown_number(options.top_k)}")
    check_most("--top-k", options.top_k, MAX_INSTANCES)
    check_bit_depth(options.bit_depth, "--bit-depth")
    if options.output and options.output.exists() and not options.output.is_dir():
        raise UsageError(f"-o wants a folder for the pictures: {options.output} is not a folder")
    # A self-test that fails writes its document before any folder is made.
    to_come = None if options.self_test else options.output
    check_json_destination(options.json, to_come=to_come)
    check_json_destination(options.jsonl, "--jsonl", (b'{"schema":"yolact-results/',), to_come)
    if options.json == options.jsonl == "-":
        raise UsageError("--json and --jsonl cannot both write to stdout; name a file for one of them")


def _check_order(options: argparse.Namespace) -> None:
    words = [str(options.model), *options.inputs]
    model = next((word for word in words if _is_model(Path(word))), None)
    if model is not None and model != words[0]:
        others = list(words)
        others.remove(model)
        shown = [model, *others[:2], *(["…"] if len(others) > 2 else [])]
        command = " ".join(word if word == "…" else shlex.quote(word) for word in shown)
        raise UsageError(f"the model comes first, then the inputs, and {words[0]} is not a model: yolact-run {command}")


def _is_model(path: Path) -> bool:
    named = path.suffix in _MODEL_SUFFIXES or path.name == MANIFEST_NAME
    return (path / MANIFEST_NAME).is_file() or (named and path.is_file())
