"""Pairs of keys for signed bundles, and the invariant of a signed bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from support.signing_keys import write_keys
from yolact_runtime.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, SIGNATURE_RECORD_NAME
from yolact_runtime.model.manifest_signature import SignatureFiles
from yolact_runtime.model.signing_keys import fingerprint, read_public_key

__all__ = ["Keys", "make_keys", "signature_fits", "signature_names", "watched_signature"]


class Keys(NamedTuple):
    """A pair of keys in PEM files."""

    private: Path
    public: Path

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the public key."""
        return fingerprint(read_public_key(self.public))


def make_keys(folder: Path, name: str) -> Keys:
    """Make a new pair, in a folder of its own."""
    return Keys(*write_keys(folder / name))


def signature_names(bundle: Path) -> set[str]:
    """Return which of the two files of a signature exist."""
    return {name for name in (SIGNATURE_NAME, SIGNATURE_RECORD_NAME) if (bundle / name).exists()}


def signature_fits(bundle: Path, keys: Keys) -> bool:
    """Return whether a bundle's signature by a key matches its present manifest; False if it is not signed."""
    if not (bundle / SIGNATURE_NAME).exists():
        return False
    record = bundle / SIGNATURE_RECORD_NAME
    content = record.read_bytes() if record.exists() else None
    files = SignatureFiles(bundle, (bundle / SIGNATURE_NAME).read_bytes(), content)
    return files.fits(read_public_key(keys.public), (bundle / MANIFEST_NAME).read_bytes())


@contextmanager
def watched_signature(monkeypatch: pytest.MonkeyPatch, bundle: Path, *signers: Keys) -> Iterator[list[str]]:
    """Check a bundle before and after every step that changes a folder, because a process may be killed at any of them.

    Yields:
        List with ``"signed"`` or ``"unsigned"`` for each check. A signature that matches none of the signers fails the
        test.
    """
    looks: list[str] = []

    def look() -> None:
        if bundle.exists() and (bundle / SIGNATURE_NAME).exists():
            assert any(signature_fits(bundle, keys) for keys in signers), "a signature that does not fit"
            looks.append("signed")
        else:
            looks.append("unsigned")

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "unlink"):

            def step(self: Path, *args: object, _real: object = getattr(Path, name), **options: object) -> object:
                look()
                done = _real(self, *args, **options)  # type: ignore[operator]
                look()
                return done

            patch.setattr(Path, name, step)
        yield looks
