"""Signature of a bundle that is written or changed: checked before any work, and made anew after it."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from yolact_export.errors import UsageError
from yolact_plugins.compile.manifest_entry import is_signed, without_signature
from yolact_runtime.errors import SignatureError
from yolact_runtime.model.bundle import SIGNATURE_NAME, open_bundle, read_manifest
from yolact_runtime.model.bundle_signature import require_own_signature, sign_bundle, verify_bundle
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.signing_keys import REQUIRE_VARIABLE, key_paths, read_private_key
from yolact_runtime.reporter import Reporter

__all__ = ["KEY_VARIABLE", "BundleSeal", "SigningOptions", "open_new_seal", "open_seal", "without_reminder"]

KEY_VARIABLE = "YOLACT_SIGNING_KEY"
"""Environment variable that names the private key of bundles that are written or changed."""
_REMINDER = open_bundle.__module__
"""Logger that reminds the caller to verify the signature of a bundle."""


@dataclass(frozen=True)
class SigningOptions:
    """Keys that a bundle is signed and verified with.

    Attributes:
        key: File of the private key to sign with (Ed25519, PEM); None takes the one that ``YOLACT_SIGNING_KEY`` names,
            or leaves the bundle unsigned.
        verify_keys: Files of public keys, one of which must have signed an existing bundle; empty takes those that
            ``YOLACT_REQUIRE_SIGNATURE`` names.
        drop_signature: If True, remove the signature of an existing bundle without verifying it.
    """

    key: Path | str | None = None
    verify_keys: tuple[Path | str, ...] = ()
    drop_signature: bool = False

    def private_key(self) -> Path | None:
        """Return the private key to sign with, from the options or the environment; None leaves the bundle unsigned.

        Raises:
            SignatureError: The environment variable is empty.
        """
        if self.key is not None:
            return Path(self.key)
        named = os.environ.get(KEY_VARIABLE)
        if named is None or self.drop_signature:
            return None
        if not named:
            raise SignatureError(
                f"{KEY_VARIABLE} is set and empty: let it name a private key (Ed25519, PEM), or unset it to sign "
                f"nothing"
            )
        return Path(named)


class BundleSeal:
    """The signature of a bundle that is changed: removed by the first change, and made anew after each change.

    The signature covers the bundle as it was when the work began, and the changes of this process. A bundle that
    another process changed meanwhile is not signed.

    Args:
        bundle: The folder.
        key: Private key; None leaves it unsigned.
        vouched: Manifest of the bundle when the work began; None for a new bundle.
        reporter: Reporter of the signature's state.
    """

    def __init__(self, bundle: Path, key: Path | None, vouched: Manifest | None, reporter: Reporter) -> None:
        self._bundle = bundle
        self._key = key
        self._vouched = vouched
        self._reporter = reporter
        self._was_signed = is_signed(bundle)

    @property
    def vouched(self) -> Manifest | None:
        """Manifest that signed work must start from; None if nothing will be signed."""
        return None if self._key is None else self._vouched

    def changed(self, before: Manifest, after: Manifest) -> None:
        """Sign the bundle after a change; see :data:`yolact_export.engine.bundle.Seal`.

        Raises:
            SignatureError: Another process changed it too; it is not signed.
        """
        self._require_known(before)
        if self._key is not None:
            sign_bundle(self._bundle, self._key, after)
        self._vouched = after

    def finish(self, before: Manifest, folder: Path) -> None:
        """Sign a folder that takes the bundle's place; see :data:`yolact_export.precision.existing_bundle.Finish`.

        Raises:
            SignatureError: Another process changed the bundle meanwhile; nothing is signed.
        """
        self._require_known(before)
        self.finish_new(folder)

    def finish_new(self, folder: Path) -> None:
        """Sign a folder that is about to become the bundle; it holds nothing of an earlier bundle."""
        self._vouched = read_manifest(folder)
        if self._key is not None:
            sign_bundle(folder, self._key, self._vouched)

    def sign(self) -> None:
        """Sign the bundle in its current state.

        Raises:
            BundleError: A file is not what the manifest says.
            SignatureError: Another process changed the bundle meanwhile; nothing is signed.
        """
        if self._key is not None:
            sign_bundle(self._bundle, self._key, self._vouched)

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Report at the end of the work, even after an error, the state of the signature and what to type next."""
        is_done = False
        try:
            with without_reminder():
                yield
            is_done = True
        finally:
            if not is_signed(self._bundle) and (self._was_signed or self._key is not None):
                self._reporter.warn(
                    f"{self._bundle} is not signed now: sign it with yolact-export {_words(self._bundle)} --sign KEY"
                )
            elif is_done and self._key is not None:
                self._reporter.say(f"signed: {self._bundle / SIGNATURE_NAME}")

    def _require_known(self, manifest: Manifest) -> None:
        if self._key is not None and manifest != self._vouched:
            raise SignatureError(
                f"{self._bundle} was changed by another process during this work, and is not signed, "
                f"because the signature would cover that change. If you know what it was: yolact-export "
                f"{_words(self._bundle)} --sign KEY"
            )


@contextmanager
def without_reminder() -> Iterator[None]:
    """Suppress the reminder to verify a signature while the bundle, which was verified before, is opened."""

    def keep(record: logging.LogRecord) -> bool:
        return "the signature was not checked" not in record.getMessage()

    logger = logging.getLogger(_REMINDER)
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def open_seal(options: SigningOptions, bundle: Path, reporter: Reporter) -> BundleSeal:
    """Check the signature of a bundle that is about to be changed or signed, before any work is done.

    The signature must match one of the keys to verify with, or else the key to sign with: otherwise the new signature
    would cover changes that were made since the bundle was signed.

    Raises:
        SignatureError: The signature does not match, or would be lost.
        BundleError, ManifestError: The folder is not a bundle, or with keys to verify a file does not match the
            manifest.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    key = options.private_key()
    keys = () if options.drop_signature and not options.verify_keys else key_paths(options.verify_keys or None)
    if keys:
        manifest = _verified(options, bundle, keys)
        reporter.say(f"the signature of {bundle} is verified ({', '.join(map(str, keys))})")
    if key is None:
        _require_unsigned(options, bundle)
    elif keys or options.drop_signature:
        read_private_key(key)
    else:
        manifest = require_own_signature(bundle, key)
    if not keys and (key is None or options.drop_signature):
        manifest = _manifest(options, bundle)
    return BundleSeal(bundle, key, manifest, reporter)


def open_new_seal(options: SigningOptions, bundle: Path, reporter: Reporter) -> BundleSeal:
    """Check, before an export, that a signed bundle is replaced by a signed one and that the key is usable.

    An existing bundle is replaced as a whole, so its signature is not checked.

    Raises:
        UsageError: There are keys to verify with, but nothing to verify.
        SignatureError: A signed bundle would be replaced by an unsigned one, or the key cannot be read.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    if options.verify_keys:
        raise UsageError(
            "keys to verify with are for an existing bundle: a checkpoint has no signature; leave them out"
        )
    key = options.private_key()
    if key is None:
        if is_signed(bundle) and not options.drop_signature:
            raise SignatureError(
                f"{bundle} is signed, and would be replaced by a bundle that is not; nothing is changed. Sign the new "
                f"one with --sign KEY (or {KEY_VARIABLE}=KEY), add --drop-signature, or choose another folder with -o"
            )
    else:
        # An unusable key is better found now than after the work.
        read_private_key(key)
    return BundleSeal(bundle, key, None, reporter)


def _verified(options: SigningOptions, bundle: Path, keys: tuple[Path, ...]) -> Manifest:
    try:
        return verify_bundle(bundle, keys)
    except SignatureError as error:
        if options.verify_keys:
            raise
        raise SignatureError(
            f"{error}. {REQUIRE_VARIABLE} asks for it; --drop-signature works on the bundle without verifying it"
        ) from error


def _manifest(options: SigningOptions, bundle: Path) -> Manifest:
    """Read the manifest, whether its signature matches or not."""
    try:
        return read_manifest(bundle)
    except SignatureError:
        if not options.drop_signature:
            raise
        # The signature matches nothing any more, and no program would read the bundle while it exists.
        with without_signature(bundle):
            return read_manifest(bundle)


def _require_unsigned(options: SigningOptions, bundle: Path) -> None:
    if options.drop_signature or not is_signed(bundle):
        return
    raise SignatureError(
        f"{bundle} is signed, and the change would invalidate its signature; nothing is changed. Sign the result "
        f"with --sign KEY (or {KEY_VARIABLE}=KEY), with --verify-key PUBLIC_KEY too if another key signed the "
        f"bundle; or add --drop-signature to leave the bundle unsigned"
    )


def _words(bundle: Path) -> str:
    return shlex.quote(str(bundle))
