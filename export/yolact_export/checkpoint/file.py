"""Reading of a checkpoint file: bytes to named tensors, without running any code in the file."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from yolact_calibration.training.torch_file import TorchFileCheck, check_torch_file
from yolact_export.checkpoint.formats import HEAD_SIZE, describe_file, describe_folder, describe_zip
from yolact_export.checkpoint.note import CheckpointNote
from yolact_export.checkpoint.note_choice import choose_note
from yolact_export.checkpoint.numpy_scalars import NUMPY_SCALARS
from yolact_export.checkpoint.pickle_protocol import rewritten_for_torch
from yolact_export.checkpoint.storage_sizes import find_long_name, find_wrong_size
from yolact_export.checkpoint.weights import find_weights
from yolact_export.errors import CheckpointError
from yolact_plugins.files import library_path

__all__ = ["CheckpointFile", "read_checkpoint_file", "read_pickle"]

_OLDEST_TORCH = (2, 10)
_NO_CHECKSUMS = (
    "no checksums in the file (the format of torch < 1.6, or saved without them): damage would not be detected; "
    "compare its sha256 with the original's"
)
# The classes that torch allows in pickles are a setting of the process.
_LOADING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class CheckpointFile:
    """Content of a checkpoint file.

    Attributes:
        path: Path of the file.
        sha256: SHA-256 of the whole file, hexadecimal.
        tensors: Tensors by key, without the prefixes of training wrappers. On the CPU; backed by the file itself if its
            format allows it, so the file must not be rewritten while they are in use.
        findings: Lines about what had to be unwrapped.
        note: Note of these tensors, if this project wrote the file.
        weights: Name of the tensors within the file.
        other_notes: Names of other weights in the file that have a note, if these have none.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, torch.Tensor]
    findings: tuple[str, ...]
    note: CheckpointNote | None = None
    weights: str = ""
    other_notes: tuple[str, ...] = ()


def read_checkpoint_file(path: Path, weights: str | None = None, command: str = "yolact-export") -> CheckpointFile:
    """Read the tensors of a ``.pth`` file, however a training wrapped them.

    Args:
        path: Path of the file.
        weights: Name of the weights in a file with several models, or its unambiguous beginning or end.
        command: Name of the command with the option for `weights`, for messages.

    Raises:
        CheckpointError: The file is missing, damaged, contains code, or has no state dict, or several; or torch is too
            old to read untrusted files safely.
    """
    findings: list[str] = []
    content = read_pickle(path, findings)
    found, decisions = find_weights(content, str(path), weights, command)
    chosen = choose_note(content, found, str(path))
    findings += [*decisions, *chosen.findings]
    return CheckpointFile(
        path, _sha256(path), found.tensors, tuple(findings), chosen.note, found.name, chosen.elsewhere
    )


def read_pickle(path: Path, findings: list[str]) -> Any:
    """Load a file with ``torch.load``, restricted to tensors, plain containers and NumPy's numbers.

    Args:
        path: Path of the file. If it has CRC-32 checksums of its records, they are compared, which ``torch.load`` does
            not do.
        findings: List that receives a line if the file has no checksums.

    Raises:
        CheckpointError: The same as for :func:`read_checkpoint_file`.
    """
    _require_safe_torch()
    head = _head(path)
    check = _check(path, head)
    # A zip file can be mapped into memory; the format of torch < 1.6, which the published files have, cannot.
    mapped = bool(check.names) and not check.is_compressed
    rewritten = rewritten_for_torch(path, check)
    mapped = mapped and rewritten is None
    if wrong := find_wrong_size(path) if check.names else find_long_name(path):
        raise CheckpointError(_explain_damage(path, wrong))
    try:
        with (
            warnings.catch_warnings(),
            _LOADING,
            torch.serialization.safe_globals(list(NUMPY_SCALARS)),
            library_path(path) as name,
        ):
            # torch's opinion of a damaged file goes into this project's own message.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(
                name if rewritten is None else rewritten,
                map_location="cpu",
                weights_only=True,
                mmap=mapped,
            )
    except Exception as error:  # torch.load raises nearly anything for a damaged file
        raise CheckpointError(_explain_unreadable(path, head, error)) from error
    if not check.has_checksums:
        findings.append(_NO_CHECKSUMS)
    return content


def _check(path: Path, head: bytes) -> TorchFileCheck:
    check = check_torch_file(path)
    if check.damage and not check.names:
        raise CheckpointError(_explain_unreadable(path, head, ValueError(check.damage)))
    if check.damage:
        raise CheckpointError(_explain_damage(path, check.damage))
    if check.names and (what := describe_zip(path, check.names)):
        raise CheckpointError(f"{path}: not a PyTorch checkpoint but {what}")
    return check


def _explain_damage(path: Path, damage: str) -> str:
    return (
        f"{path}: damaged: {damage}. Slightly wrong tensors would give a slightly wrong model, so nothing is loaded. "
        f"Copy or download the file again"
    )


def _require_safe_torch() -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _OLDEST_TORCH:
        raise CheckpointError(
            f"torch {torch.__version__} is installed; reading a checkpoint needs torch 2.10 or newer, because older "
            f"releases can be tricked into running code of the file (CVE-2025-32434, CVE-2026-24747): "
            f'pip install --upgrade "yolact-deploy[export]"'
        )


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise CheckpointError(f"{path}: not a PyTorch checkpoint but {describe_folder(path)}")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_SIZE)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty; download or copy it again")
    return head


def _explain_unreadable(path: Path, head: bytes, error: Exception) -> str:
    if head.startswith(b"version https://git-lfs"):
        return f"{path}: a Git LFS pointer, not the checkpoint itself: run `git lfs pull`, or download the file"
    if head.lstrip().startswith(b"<"):
        return f"{path}: a web page, not a checkpoint; download the file with another link"
    if what := describe_file(path, head):
        return f"{path}: not a PyTorch checkpoint but {what}"
    if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"{path}: contains Python objects ({code[1]}), not only tensors; loading them would run code from the "
            f"file, so it is refused. Save the tensors alone where it was created: torch.save(model.state_dict(), path)"
        )
    return (
        f"{path}: not a PyTorch checkpoint, or a truncated one ({path.stat().st_size} bytes){_reason(error)}. "
        f"Compare its size and sha256 with the original and copy it again"
    )


def _reason(error: Exception) -> str:
    """Return torch's message without its advice: weights_only=False would run any code in the file."""
    said = re.sub(r"(?s)^Weights only load failed.*?WeightsUnpickler error:|Please file an issue.*$", "", str(error))
    line = next((line.strip(" .") for line in said.strip().splitlines() if re.search(r"[a-z]{3}", line)), "")
    return f": {line}" if line and "weights_only" not in line else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
