"""Recognition of files that are not checkpoints, by their first bytes or the names in them, with advice."""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["HEAD_SIZE", "describe_file", "describe_folder", "describe_zip"]

HEAD_SIZE = 512
"""Number of bytes from the beginning of a file that determine its format."""

_SAVE = "save the weights where the model was made: torch.save(model.state_dict(), path)"
_UNPACK = "unpack it and give the file in it"
_NOT_WEIGHTS = "give the .pth file that the training wrote"
_RETRAIN = "YOLACT's weights are read from PyTorch files only; give the .pth file of the training"
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write them", _RETRAIN),
    (b"\x1f\x8b", "compressed with gzip", f"{_UNPACK}: gzip -dk FILE, or tar xzf FILE"),
    (b"\xfd7zXZ\x00", "compressed with xz", f"{_UNPACK}: xz -dk FILE, or tar xJf FILE"),
    (b"BZh", "compressed with bzip2", f"{_UNPACK}: bzip2 -dk FILE, or tar xjf FILE"),
    (b"(\xb5/\xfd", "compressed with zstd", f"{_UNPACK}: zstd -d FILE"),
    (b"\x04\x22M\x18", "compressed with lz4", f"{_UNPACK}: lz4 -d FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", f"{_UNPACK}: 7z x FILE"),
    (b"Rar!\x1a\x07", "a RAR archive", f"{_UNPACK}: unrar x FILE"),
    (b"PK\x05\x06", "an empty zip file", "download or copy it again"),
    (b"\x93NUMPY", "a NumPy array", _NOT_WEIGHTS),
    (b"GGUF", "a GGUF file of a language model", _NOT_WEIGHTS),
    (b"ftrt", "a TensorRT engine", "yolact-export reads the .pth file that it was exported from"),
    (b"ptrt", "a TensorRT engine", "yolact-export reads the .pth file that it was exported from"),
    (b"\x89PNG", "a picture", _NOT_WEIGHTS),
    (b"\xff\xd8\xff", "a picture", _NOT_WEIGHTS),
    (b"%PDF", "a PDF document", _NOT_WEIGHTS),
    (b"\x7fELF", "a program", _NOT_WEIGHTS),
    (b"SQLite format 3", "a database", _NOT_WEIGHTS),
)
# Number at the beginning of files of torch < 1.6, in the protocols of pickle.
_TORCH_PICKLES = (b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", b"L119547037146038801333356L")


def describe_file(path: Path, head: bytes) -> str:
    """Describe a file and what to do; return an empty string if only its end seems to be missing.

    Args:
        path: Path of the file.
        head: First :data:`HEAD_SIZE` bytes of the file.
    """
    for magic, what, advice in _MAGIC:
        if head.startswith(magic):
            return f"{what}; {advice.replace('FILE', shlex.quote(str(path)))}"
    if head[257:262] == b"ustar":
        return f"a tar archive{_tar_names(path)}; {_UNPACK}: tar xf {shlex.quote(str(path))}"
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite model; {_RETRAIN}"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return (
            "a safetensors file; convert it: python -c 'import sys, torch, safetensors.torch as s; "
            f"torch.save(s.load_file(sys.argv[1]), sys.argv[2])' {shlex.quote(str(path))} "
            f"{shlex.quote(str(path.with_suffix('.pth')))}"
        )
    if _is_onnx(path, head):
        return "an ONNX model, the result of an export; yolact-export reads the .pth file that it was exported from"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05" and not any(number in head for number in _TORCH_PICKLES):
        return f"a Python pickle that torch.save did not write; loading it would run code from the file; {_SAVE}"
    if not any(head):
        return "a file that begins with zeros only, such as an unfinished download; download or copy it again"
    return ""


def describe_zip(path: Path, names: Sequence[str]) -> str:
    """Describe a zip file that is not a checkpoint and what to do; return an empty string for a checkpoint."""
    leaves = {name.partition("/")[2] or name for name in names}
    quoted = shlex.quote(str(path))
    if {"constants.pkl"} <= leaves or any(leaf.startswith("code/") for leaf in leaves):
        return (
            "a TorchScript archive (torch.jit.save), which is a program; if you trust it, extract the weights: "
            f'python -c \'import sys, torch; torch.save(torch.jit.load(sys.argv[1], "cpu").state_dict(), '
            f"sys.argv[2])' {quoted} {shlex.quote(str(path.with_name(f'{path.stem}.weights.pth')))}"
        )
    if any(leaf.startswith(("archive_format", "models/", "serialized_exported_program")) for leaf in leaves):
        return f"a program of torch.export; {_SAVE}"
    if "data.pkl" in names:
        return (
            "a checkpoint that was unpacked and packed again without its folder; unpack it into a folder and pack the "
            "folder: zip -0 -r model.pth model/"
        )
    if "data.pkl" in leaves:
        return ""
    if names and all(name.endswith(".npy") for name in names):
        return f"a NumPy archive (.npz); {_NOT_WEIGHTS}"
    if any(name.endswith(".weights.h5") for name in names):
        return f"a Keras model; {_RETRAIN}"
    if any(name.endswith("manifest.json") for name in names):
        return f"a packed bundle; unpack it, and run it: yolact-run FOLDER IMAGE; {_NOT_WEIGHTS} to export again"
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    inner = next((name for name in names if name.endswith((".pth", ".pt", ".ckpt"))), "the checkpoint in it")
    return f"a zip file with {shown or 'nothing in it'}; unpack it: unzip {quoted}, and give {shlex.quote(inner)}"


def describe_folder(path: Path) -> str:
    """Describe a folder in place of a checkpoint, and what to do."""
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        return f"a folder that cannot be read: {error.strerror}"
    if "manifest.json" in names:
        return "a bundle, which is the result of an export; give the .pth file that it was exported from"
    if "data.pkl" in names:
        return (
            "the folder of an unpacked checkpoint (file managers unpack .pth files, which are zip files); pack it "
            f"again, from the folder above: zip -0 -r {shlex.quote(f'{path.name}.pth')} {shlex.quote(path.name)}"
        )
    if "saved_model.pb" in names:
        return f"a TensorFlow model; {_RETRAIN}"
    if any(name.endswith(".distcp") for name in names):
        return (
            "a distributed checkpoint; convert it to one file: python -m torch.distributed.checkpoint.format_utils "
            f"dcp_to_torch {shlex.quote(str(path))} model.pth"
        )
    files = [name for name in names if name.endswith((".pth", ".pt", ".ckpt"))]
    if files:
        return f"a folder; give one file in it, such as {shlex.quote(str(path / files[0]))}"
    return "a folder without a .pth file; give the checkpoint itself"


def _tar_names(path: Path) -> str:
    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return ""
    return "" if first is None else f" that begins with {first.name}"


def _is_onnx(path: Path, head: bytes) -> bool:
    # The first field of a model is its version, then its producer, domain or graph.
    version, field = (head[1], head[2]) if len(head) > 2 else (0, 0)
    return head[:1] == b"\x08" and 3 <= version <= 30 and (path.suffix == ".onnx" or field in (0x12, 0x1A, 0x22, 0x3A))
