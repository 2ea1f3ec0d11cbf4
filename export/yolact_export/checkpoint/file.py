"""The file of a checkpoint: bytes to named tensors, without running any code that the file may carry."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from yolact_calibration.training.torch_file import check_torch_file
from yolact_export.checkpoint.note import CheckpointNote, read_note
from yolact_export.errors import CheckpointError

__all__ = ["CheckpointFile", "read_checkpoint_file", "read_pickle"]

_WRAPPERS = ("state_dict", "model", "model_state_dict")
# DataParallel and torch.compile put these before every key.
_PREFIXES = ("module.", "_orig_mod.")
_OLDEST_TORCH = (2, 10)
_NO_CHECKSUMS = (
    "no checksums in the file (the format of torch < 1.6, or saved without them): damage on the way would not be "
    "noticed; compare its sha256 with the original's"
)


@dataclasses.dataclass(frozen=True)
class CheckpointFile:
    """What a file holds.

    Attributes:
        path: Where it was read from.
        sha256: Of the whole file, hexadecimal.
        tensors: By key, without the prefixes of training wrappers. On the CPU; backed by the file itself where its
            format allows it, so the file must not be rewritten while they are in use.
        findings: What had to be unwrapped, a line each.
        note: What the file says of itself, if it is one of ours.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, torch.Tensor]
    findings: tuple[str, ...]
    note: CheckpointNote | None = None


def read_checkpoint_file(path: Path) -> CheckpointFile:
    """Read the tensors of a ``.pth`` file; a dict that wraps a state dict is unwrapped.

    Raises:
        CheckpointError: The file is missing, damaged, carries code, or holds no state dict; or torch is too old to read
            files of unknown origin safely.
    """
    findings: list[str] = []
    content = read_pickle(path, findings)
    note = read_note(content, str(path))
    tensors = _without_prefixes(_state_dict(content, path, findings), findings)
    return CheckpointFile(path, _sha256(path), tensors, tuple(findings), note)


def read_pickle(path: Path, findings: list[str]) -> Any:
    """Whatever ``torch.load`` finds in a file, restricted to tensors and plain containers.

    Args:
        path: The file. Where it holds the CRC-32 of its records they are compared, which ``torch.load`` does not do.
        findings: Receives a line where it holds none.

    Raises:
        CheckpointError: As for :func:`read_checkpoint_file`.
    """
    _require_safe_torch()
    head = _head(path)
    check = check_torch_file(path)
    if check.damage and not check.names:
        raise CheckpointError(_explain_unreadable(path, head, ValueError(check.damage)))
    if check.damage:
        raise CheckpointError(
            f"{path}: damaged: {check.damage}. Nearly right tensors would give a nearly right model, so nothing is "
            f"loaded. Copy or download the file again"
        )
    if not check.has_checksums:
        findings.append(_NO_CHECKSUMS)
    # A zip file can be mapped into memory; the format of torch < 1.6, which the published files have, cannot.
    mapped = bool(check.names) and not check.is_compressed
    try:
        with warnings.catch_warnings():
            # What torch thinks of a damaged file goes into our own message.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch.load has no error of its own: a damaged file surfaces as nearly anything
        raise CheckpointError(_explain_unreadable(path, head, error)) from error


def _require_safe_torch() -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _OLDEST_TORCH:
        raise CheckpointError(
            f"torch {torch.__version__} is installed; reading a checkpoint needs torch 2.10 or newer, because older "
            f"ones can be made to run code that a file carries (CVE-2025-32434, CVE-2026-24747): "
            f'pip install --upgrade "yolact-deploy[export]"'
        )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty; download or copy it again")
    return head


def _explain_unreadable(path: Path, head: bytes, error: Exception) -> str:
    if head.startswith(b"version https://git-lfs"):
        return f"{path}: a Git LFS pointer, not the checkpoint itself: run `git lfs pull`, or download the file"
    if head.lstrip().startswith(b"<"):
        return f"{path}: a web page, not a checkpoint; the download needs another link"
    if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"{path}: holds Python objects ({code[1]}), not only tensors; loading them would run code from the file, "
            f"which is refused. Where the file was made, save the tensors alone: torch.save(model.state_dict(), path)"
        )
    return (
        f"{path}: not a PyTorch checkpoint, or a truncated one ({path.stat().st_size} bytes){_reason(error)}. "
        f"Compare its size and sha256 with the original and copy it again"
    )


def _reason(error: Exception) -> str:
    """What torch found, without its advice: weights_only=False would run whatever code a file carries."""
    said = re.sub(r"(?s)^Weights only load failed.*?WeightsUnpickler error:|Please file an issue.*$", "", str(error))
    line = next((line.strip(" .") for line in said.strip().splitlines() if re.search(r"[a-z]{3}", line)), "")
    return f": {line}" if line and "weights_only" not in line else ""


def _state_dict(content: Any, path: Path, findings: list[str]) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; a state dict (key -> tensor) is needed")
    for wrapper in _WRAPPERS:
        if isinstance(inner := content.get(wrapper), Mapping):
            others = sorted(str(key) for key in content if key != wrapper)
            ignored = f"; ignored beside it: {', '.join(others[:10])}" if others else ""
            findings.append(f'state dict taken from the entry "{wrapper}"{ignored}')
            content = inner
            break
    strangers = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strangers or not content:
        raise CheckpointError(
            f"{path}: no state dict (key -> tensor) found, neither bare nor under {', '.join(_WRAPPERS)}; "
            f"entries that are no tensors: {', '.join(strangers[:10]) or 'none, the dict is empty'}"
        )
    return {str(key): value for key, value in content.items()}


def _without_prefixes(tensors: dict[str, torch.Tensor], findings: list[str]) -> dict[str, torch.Tensor]:
    removed = ""
    while prefix := next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        removed += prefix
    if removed:
        findings.append(f'prefix "{removed}" removed from every key')
    return tensors


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
