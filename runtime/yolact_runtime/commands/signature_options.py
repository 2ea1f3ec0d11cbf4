"""Whom a command trusts: the options about signatures and lone engines, and what a record says of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_plugins.compile.manifest_entry import is_signed
from yolact_runtime.errors import BundleError, ManifestError, SignatureError, UsageError
from yolact_runtime.model.bundle import PLAN_SUFFIXES, read_manifest
from yolact_runtime.model.signing_keys import REQUIRE_VARIABLE, key_paths

if TYPE_CHECKING:
    from yolact_runtime.segmenter import Segmenter

__all__ = ["add_trust_options", "add_verify_key_option", "check_trust", "signature_document", "signature_words"]


def add_verify_key_option(parser: argparse._ActionsContainer) -> None:
    """The option of every command that opens a bundle."""
    parser.add_argument(
        "--verify-key",
        type=Path,
        action="append",
        metavar="KEY",
        help="refuse a bundle that this public key (Ed25519, PEM) did not sign; given again: one of them has to fit "
        f"(default: the keys that {REQUIRE_VARIABLE} names; without any, no signature is verified)",
    )


def add_trust_options(parser: argparse._ActionsContainer) -> None:
    """``--verify-key``, and the option of commands that run an engine without its bundle."""
    add_verify_key_option(parser)
    parser.add_argument(
        "--trust-engine",
        action="store_true",
        help="run a .plan that lies outside its bundle, by the manifest it carries; an engine is executable code, "
        "and you vouch for it",
    )


def check_trust(options: argparse.Namespace) -> None:
    """Refuse options about signatures that cannot be meant, before anything is opened.

    Args:
        options: With ``model``, and both options.

    Raises:
        UsageError: The options contradict each other, or the model.
        SignatureError: This machine runs only what is signed, or the variable that says so is of no use.
    """
    model: Path = options.model
    if not options.trust_engine:
        key_paths(options.verify_key)
        return
    if model.suffix not in PLAN_SUFFIXES or model.is_dir():
        raise UsageError(f"--trust-engine is for an engine, a .plan without its bundle; {model} is none: leave it out")
    if options.verify_key:
        raise UsageError(
            "--trust-engine and --verify-key contradict each other: a lone engine has no signature. Name the bundle "
            "folder it was built in to have it verified"
        )
    if keys := key_paths(None):
        raise SignatureError(
            f"--trust-engine: {REQUIRE_VARIABLE} says that this machine runs only what is signed "
            f"({', '.join(map(str, keys))}), and a lone engine has no signature. Name the bundle folder it was built in"
        )


def signature_document(model: Path, segmenter: Segmenter, trusted: bool = False) -> dict[str, str]:
    """What a record says of the signature of a model that is open, as it was when it was opened.

    Args:
        model: As it was opened: a folder, or a file in one.
        segmenter: That opened it.
        trusted: It is an engine that the caller vouched for.

    Returns:
        ``"signature"``: ``"verified"``, with the key's ``"key_fingerprint"``; ``"signed, not checked"``; ``"none"``; or
        ``"trusted"`` of an engine without a bundle.
    """
    if segmenter.verified_by is not None:
        return {"signature": "verified", "key_fingerprint": segmenter.verified_by}
    folder = model if model.is_dir() else model.parent
    if trusted and not _lists(folder, model.name):
        return {"signature": "trusted"}
    return {"signature": "signed, not checked" if is_signed(folder) else "none"}


def signature_words(document: Mapping[str, str]) -> str:
    """What is said beside a model's name, with the comma before it; nothing where no signature was looked at.

    Args:
        document: Of :func:`signature_document`.
    """
    signature = document["signature"]
    if signature == "verified":
        return f", signature verified ({document['key_fingerprint'][:23]}…)"
    return f", {signature}" if signature == "trusted" else ""


def _lists(folder: Path, name: str) -> bool:
    """Whether a folder is a bundle with such a file: then it is not its user who vouches for it."""
    try:
        return name in read_manifest(folder).artefacts
    except (BundleError, ManifestError):
        return False
