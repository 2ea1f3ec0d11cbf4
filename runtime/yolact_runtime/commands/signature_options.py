"""Options about trust: signatures, single engines, and the entry about them in records."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_plugins.command_line import OptionGroup, Rule
from yolact_plugins.compile.manifest_entry import is_signed
from yolact_runtime.errors import BundleError, ManifestError, SignatureError, UsageError
from yolact_runtime.model.bundle import PLAN_SUFFIXES, read_manifest
from yolact_runtime.model.signing_keys import REQUIRE_VARIABLE, key_paths

if TYPE_CHECKING:
    from yolact_runtime.segmenter import Segmenter

__all__ = [
    "add_trust_options",
    "add_verify_key_option",
    "check_trust",
    "require_consistent_trust",
    "signature_document",
    "signature_words",
]


def add_verify_key_option(group: OptionGroup, rules: Sequence[Rule] = ()) -> None:
    """Add ``--verify-key``, an option of every command that opens a bundle.

    Args:
        group: Group of options to add to.
        rules: Conditions without which it has no effect.
    """
    group.add_argument(
        "--verify-key",
        type=Path,
        action="append",
        metavar="KEY",
        rules=rules,
        help="refuse a bundle that is not signed by this public key (Ed25519, PEM); repeat it to accept any of several "
        f"keys (default: the keys that {REQUIRE_VARIABLE} names; without one, no signature is verified)",
    )


def add_trust_options(group: OptionGroup) -> None:
    """Add ``--verify-key`` and ``--trust-engine``, options of commands that can run an engine without its bundle."""
    add_verify_key_option(group)
    group.add_argument(
        "--trust-engine",
        action="store_true",
        help="run a .plan file without its bundle, described by the manifest that it carries; an engine is executable "
        "code: do this only with files that you trust",
    )


def check_trust(options: argparse.Namespace) -> None:
    """Reject contradictory options about signatures, before anything is opened.

    Args:
        options: Options with ``model`` and both options about trust.

    Raises:
        UsageError: The options contradict each other, or the model.
        SignatureError: This machine runs only signed bundles, or the variable that requires this is invalid.
    """
    require_consistent_trust(options.model, options.verify_key, options.trust_engine)


def require_consistent_trust(model: Path, verify_keys: Sequence[Path] | None, trust_engine: bool) -> None:
    """Refuse a contradiction between a model, the keys that verify it, and the trust in an engine without a bundle.

    Args:
        model: Path of a bundle, a network or an engine.
        verify_keys: Paths of public keys; None or empty takes those that the environment names.
        trust_engine: If True, an engine without its bundle is run.

    Raises:
        UsageError: The arguments contradict each other.
        SignatureError: This machine runs signed models only, or the variable that says so is unusable.
    """
    if not trust_engine:
        key_paths(verify_keys or None)
        return
    if model.suffix not in PLAN_SUFFIXES or model.is_dir():
        raise UsageError(f"--trust-engine is for an engine, a .plan without its bundle; {model} is none: leave it out")
    if verify_keys:
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
    """Return the entry about the signature of an open model, as of its opening.

    Args:
        model: Path that was opened: a folder, or a file in one.
        segmenter: Segmenter that opened it.
        trusted: Whether it is an engine that the caller trusts.

    Returns:
        A dictionary with ``"signature"``: ``"verified"``, with the key's ``"key_fingerprint"``; ``"signed, not
        checked"``; ``"none"``; or ``"trusted"`` for an engine without a bundle.
    """
    if segmenter.verified_by is not None:
        return {"signature": "verified", "key_fingerprint": segmenter.verified_by}
    folder = model if model.is_dir() else model.parent
    if trusted and not _lists(folder, model.name):
        return {"signature": "trusted"}
    return {"signature": "signed, not checked" if is_signed(folder) else "none"}


def signature_words(document: Mapping[str, str]) -> str:
    """Return the words after a model's name, with the comma before them; empty if no signature was checked.

    Args:
        document: Result of :func:`signature_document`.
    """
    signature = document["signature"]
    if signature == "verified":
        return f", signature verified ({document['key_fingerprint'][:23]}…)"
    return f", {signature}" if signature == "trusted" else ""


def _lists(folder: Path, name: str) -> bool:
    """Return whether a folder is a bundle with such a file, whose trust then does not depend on the user."""
    try:
        return name in read_manifest(folder).artefacts
    except (BundleError, ManifestError):
        return False
