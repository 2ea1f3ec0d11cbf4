"""The signature of a bundle that ``yolact-export`` writes or changes: looked at before any work, then made anew."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yolact_export.commands.jobs import of_bundle
from yolact_plugins.command_line import CommandParser
from yolact_plugins.compile.manifest_entry import is_signed, without_signature
from yolact_plugins.locks import locked_folder
from yolact_runtime.commands.signature_options import add_verify_key_option
from yolact_runtime.errors import SignatureError
from yolact_runtime.model.bundle import SIGNATURE_NAME, open_bundle, read_manifest
from yolact_runtime.model.bundle_signature import require_own_signature, sign_bundle, verify_bundle
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.signing_keys import REQUIRE_VARIABLE, fingerprint, key_paths, read_private_key
from yolact_runtime.terminal import Terminal, check_json_destination, write_json

__all__ = ["BundleSeal", "add_signing_options", "open_new_seal", "open_seal", "sign_existing", "without_reminder"]

_KEY_VARIABLE = "YOLACT_SIGNING_KEY"
_REMINDER = open_bundle.__module__
"""Logger that reminds whoever opens a signed bundle without a key."""


def add_signing_options(parser: CommandParser) -> None:
    """Add ``--sign``, ``--verify-key`` and ``--drop-signature``."""
    group = parser.add_argument_group("signatures")
    group.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        main=True,
        help=f"sign the bundle with this private key (Ed25519, PEM); on its own, only sign it (default: the key that "
        f"{_KEY_VARIABLE} names)",
    )
    unsigned = of_bundle("on a checkpoint, which has no signature", "name the bundle")
    add_verify_key_option(group, [unsigned])
    group.add_argument(
        "--drop-signature",
        action="store_true",
        help="remove the bundle's signature without verifying it; with --sign, sign it again afterwards",
    )


def signing_key(options: argparse.Namespace) -> Path | None:
    """The private key to sign with: of ``--sign``, or what ``YOLACT_SIGNING_KEY`` names; None leaves it unsigned.

    Raises:
        SignatureError: The variable is empty.
    """
    if options.sign is not None:
        return Path(options.sign)
    named = os.environ.get(_KEY_VARIABLE)
    if named is None or options.drop_signature:
        return None
    if not named:
        raise SignatureError(
            f"{_KEY_VARIABLE} is set and empty: let it name a private key (Ed25519, PEM), or unset it to sign nothing"
        )
    return Path(named)


class BundleSeal:
    """The signature of a bundle that is changed: taken away with what it vouched for, made anew of what was known.

    What is signed is what was there when the command began, and the command's own changes. What anybody else changed
    meanwhile is not signed: whoever signs it would vouch for it.

    Args:
        bundle: The folder.
        key: Private key; None leaves it unsigned.
        vouched: Its manifest when the command began; None where the command writes it.
        terminal: To talk on.
    """

    def __init__(self, bundle: Path, key: Path | None, vouched: Manifest | None, terminal: Terminal) -> None:
        self._bundle = bundle
        self._key = key
        self._vouched = vouched
        self._terminal = terminal
        self._was_signed = is_signed(bundle)

    @property
    def vouched(self) -> Manifest | None:
        """What was known of the bundle, by which alone work is done that will be signed; None where nothing will be."""
        return None if self._key is None else self._vouched

    def changed(self, before: Manifest, after: Manifest) -> None:
        """Sign the bundle after a change; see :data:`yolact_export.engine.bundle.Seal`.

        Raises:
            SignatureError: Somebody else changed it too; it is not signed.
        """
        self._require_known(before)
        if self._key is not None:
            sign_bundle(self._bundle, self._key, after)
        self._vouched = after

    def finish(self, before: Manifest, folder: Path) -> None:
        """Sign a folder that takes the bundle's place; see :data:`yolact_export.precision.existing_bundle.Finish`.

        Raises:
            SignatureError: Somebody else changed the bundle meanwhile; nothing is signed.
        """
        self._require_known(before)
        self.finish_new(folder)

    def finish_new(self, folder: Path) -> None:
        """Sign a folder that is about to become the bundle; nothing of an earlier one is in it."""
        self._vouched = read_manifest(folder)
        if self._key is not None:
            sign_bundle(folder, self._key, self._vouched)

    def sign(self) -> None:
        """Sign the bundle as it is.

        Raises:
            BundleError: A file is not what the manifest says.
            SignatureError: Somebody changed the bundle meanwhile; nothing is signed.
        """
        if self._key is not None:
            sign_bundle(self._bundle, self._key, self._vouched)

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Say at the end of the work, whatever it is, what the signature is now and what to type next."""
        is_done = False
        try:
            with without_reminder():
                yield
            is_done = True
        finally:
            if not is_signed(self._bundle) and (self._was_signed or self._key is not None):
                self._terminal.warn(
                    f"{self._bundle} is not signed now: sign it with yolact-export {_words(self._bundle)} --sign KEY"
                )
            elif is_done and self._key is not None:
                self._terminal.say(f"signed: {self._bundle / SIGNATURE_NAME}")

    def _require_known(self, manifest: Manifest) -> None:
        if self._key is not None and manifest != self._vouched:
            raise SignatureError(
                f"{self._bundle} was changed by somebody else while this command worked on it, and is not signed: that "
                f"change is not vouched for. If you know what it was: yolact-export {_words(self._bundle)} --sign KEY"
            )


@contextmanager
def without_reminder() -> Iterator[None]:
    """Nobody is reminded to have the signature checked while this command, which looked at it, opens the bundle."""

    def keep(record: logging.LogRecord) -> bool:
        return "the signature was not checked" not in record.getMessage()

    logger = logging.getLogger(_REMINDER)
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def open_seal(options: argparse.Namespace, bundle: Path, terminal: Terminal) -> BundleSeal:
    """Look at the signature of a bundle that is about to be changed or signed, before anything is done.

    With ``--verify-key`` one of these keys has to fit, or else of ``--sign KEY`` that key: whoever signs what was
    changed since it was signed would vouch for that change.

    Raises:
        SignatureError: The signature does not fit, or would be lost.
        BundleError, ManifestError: It is no bundle, or with ``--verify-key`` a file is not what the manifest says.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    key = signing_key(options)
    keys = () if options.drop_signature and not options.verify_key else key_paths(options.verify_key)
    if keys:
        manifest = _verified(options, bundle, keys)
        terminal.say(f"the signature of {bundle} is verified ({', '.join(map(str, keys))})")
    if key is None:
        _require_unsigned(options, bundle)
    elif keys or options.drop_signature:
        read_private_key(key)
    else:
        manifest = require_own_signature(bundle, key)
    if not keys and (key is None or options.drop_signature):
        manifest = _manifest(options, bundle)
    return BundleSeal(bundle, key, manifest, terminal)


def open_new_seal(options: argparse.Namespace, bundle: Path, terminal: Terminal) -> BundleSeal:
    """Before an export writes a bundle: a signed one there is replaced by a signed one, and the key can be used.

    What is there is replaced as a whole, so its signature is not looked at.

    Raises:
        SignatureError: A signed bundle would be replaced by one that is not, or the key cannot be read.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    key = signing_key(options)
    if key is None:
        if is_signed(bundle) and not options.drop_signature:
            raise SignatureError(
                f"{bundle} is signed, and would be replaced by a bundle that is not; nothing is changed. Sign the new "
                f"one with --sign KEY (or {_KEY_VARIABLE}=KEY), add --drop-signature, or choose another folder with -o"
            )
    else:
        # A key that cannot be used is better found now than after the work.
        read_private_key(key)
    return BundleSeal(bundle, key, None, terminal)


def sign_existing(options: argparse.Namespace, terminal: Terminal) -> int:
    """``yolact-export BUNDLE --sign KEY``: nothing is built, every file is checked.

    Returns:
        The exit status.
    """
    check_json_destination(options.json)
    bundle: Path = options.checkpoint
    seal = open_seal(options, bundle, terminal)
    # A builder that puts an engine in meanwhile would be left with a signature that does not fit.
    with seal.reported(), locked_folder(bundle), without_signature(bundle):
        seal.sign()
    if options.json:
        key = signing_key(options)
        assert key is not None
        signer = fingerprint(read_private_key(key).public_key())
        write_json({"bundle": str(bundle), "signature": "signed", "key_fingerprint": signer}, options.json)
    return 0


def _verified(options: argparse.Namespace, bundle: Path, keys: tuple[Path, ...]) -> Manifest:
    try:
        return verify_bundle(bundle, keys)
    except SignatureError as error:
        if options.verify_key:
            raise
        raise SignatureError(
            f"{error}. {REQUIRE_VARIABLE} asks for it; --drop-signature works on what is there all the same"
        ) from error


def _manifest(options: argparse.Namespace, bundle: Path) -> Manifest:
    """What is there, whoever signed it."""
    try:
        return read_manifest(bundle)
    except SignatureError:
        if not options.drop_signature:
            raise
        # It fits nothing any more, and nothing would read this bundle while it is there.
        with without_signature(bundle):
            return read_manifest(bundle)


def _require_unsigned(options: argparse.Namespace, bundle: Path) -> None:
    if options.drop_signature or not is_signed(bundle):
        return
    raise SignatureError(
        f"{bundle} is signed, and its signature would not fit what is to be done; nothing is changed. Sign the result "
        f"with --sign KEY (or {_KEY_VARIABLE}=KEY), with --verify-key PUBLIC_KEY too where another key signed what is "
        f"there; or add --drop-signature, and the bundle is not signed any more"
    )


def _words(bundle: Path) -> str:
    return shlex.quote(str(bundle))
