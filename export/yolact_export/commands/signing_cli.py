"""Signature options of ``yolact-export``: the signature is checked before any work, and made anew afterwards."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolact_export.commands.jobs import of_bundle
from yolact_export.seal import KEY_VARIABLE, SigningOptions, open_seal
from yolact_plugins.command_line import CommandParser
from yolact_plugins.compile.manifest_entry import without_signature
from yolact_plugins.locks import locked_folder
from yolact_runtime.commands.signature_options import add_verify_key_option
from yolact_runtime.model.signing_keys import fingerprint, read_private_key
from yolact_runtime.terminal import Terminal, check_json_destination, write_json

__all__ = ["add_signing_options", "sign_existing", "signing_options"]


def add_signing_options(parser: CommandParser) -> None:
    """Add ``--sign``, ``--verify-key`` and ``--drop-signature``."""
    group = parser.add_argument_group("signatures")
    group.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        main=True,
        help=f"sign the bundle with this private key (Ed25519, PEM); on its own, only sign it (default: the key that "
        f"{KEY_VARIABLE} names)",
    )
    unsigned = of_bundle("on a checkpoint, which has no signature", "name the bundle")
    add_verify_key_option(group, [unsigned])
    group.add_argument(
        "--drop-signature",
        action="store_true",
        help="remove the bundle's signature without verifying it; with --sign, sign it again afterwards",
    )


def signing_options(options: argparse.Namespace) -> SigningOptions:
    """Return the options of a command line."""
    return SigningOptions(options.sign, tuple(options.verify_key or ()), options.drop_signature)


def sign_existing(options: argparse.Namespace, terminal: Terminal) -> int:
    """Sign an existing bundle: nothing is built, and every file is checked against the manifest.

    Returns:
        The exit status.
    """
    check_json_destination(options.json)
    bundle: Path = options.checkpoint
    seal = open_seal(signing_options(options), bundle, terminal)
    # Otherwise an engine that another process adds meanwhile would leave a signature that does not match.
    with seal.reported(), locked_folder(bundle), without_signature(bundle):
        seal.sign()
    if options.json:
        key = signing_options(options).private_key()
        assert key is not None
        signer = fingerprint(read_private_key(key).public_key())
        write_json({"bundle": str(bundle), "signature": "signed", "key_fingerprint": signer}, options.json)
    return 0
