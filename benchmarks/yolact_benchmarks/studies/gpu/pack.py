"""Packed files for a machine that has a GPU but no network: two halves, each small enough beside the tracked tree.

The first half has what the test suites need besides pytest, and the beginning of TensorRT-RTX. The second half has the
rest of TensorRT-RTX, and bundles with their engines. Files of the first half are still on the machine when the second
arrives.
"""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_benchmarks.studies.gpu.parts import RTX_PARTS, SUITE_PARTS, compress_wheels, split_parts, write_parts
from yolact_plugins.files import write_atomically
from yolact_runtime.errors import UsageError
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["PACKED_BUNDLES", "PackRequest", "commit_of", "copy_bundle", "make_pack", "travelling_bytes"]

PACKED_BUNDLES, COMMIT_NAME = "second/bundles", "commit"
_SUITE_PACKAGES = ("hypothesis", "sortedcontainers", "pytest-xdist", "execnet")
_RTX_LIBRARIES = ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings")
_RTX_SOURCES = ("tensorrt-rtx", "tensorrt-rtx-cu13")
_GLIBC = (17, 24, 27, 28, 31, 34, 35)
# Bytes left free in each half, for the overhead that a transfer adds to each file.
_MARGIN_BYTES = 1 << 19
_MODELS = {"shapes": ("fp16",), "balloons": ("fp16", "int8")}
# A ResNet with its engine, and a network with depthwise convolutions whose engines are built on the other machine; in
# order of value.
_CARRIED = (("shapes", "engine", "fp16"), ("balloons", "network", "int8"), ("balloons", "network", "fp16"))
_EXPORT = ("--no-guard", "--target", "rtx", "--quiet")
_PICTURES = 32
_ROLES = frozenset({"network", "engine"})


@dataclass(frozen=True)
class PackRequest:
    """Contents and limits of a pack.

    Attributes:
        root: Root of the checkout.
        output: Folder for the pack, whose halves are replaced.
        limit_bytes: Limit of the tracked tree together with one half, bytes.
        python: Python version of the other machine, such as ``"3.12"``.
        with_rtx: Whether to pack TensorRT-RTX, and a bundle with its engines.
        bundles: Additional bundles that exist already.
    """

    root: Path
    output: Path
    limit_bytes: int
    python: str = "3.12"
    with_rtx: bool = True
    bundles: tuple[Path, ...] = ()


def make_pack(request: PackRequest, reporter: Reporter = SILENT) -> dict[str, int]:
    """Make both halves and return their sizes.

    Returns:
        Bytes of the tree, and of the tree with each half, by name.

    Raises:
        UsageError: A half is larger than the limit; the pack was written anyway and can be inspected.
        CalledProcessError: pip or the export failed; their error messages are on stderr.
    """
    halves = [request.output / half for half in ("first", "second")]
    for half in halves:
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
    (halves[0] / COMMIT_NAME).write_text(commit_of(request.root), encoding="utf-8")
    for bundle in request.bundles:
        copy_bundle(bundle, request.output / PACKED_BUNDLES / bundle.name)
    with tempfile.TemporaryDirectory() as folder:
        reporter.say("test suites: packages that a machine with pytest may lack")
        suites = [f"{name}=={importlib.metadata.version(name)}" for name in _SUITE_PACKAGES]
        wheels = _download(suites, request.python, Path(folder) / "suites")
        write_parts(halves[:1], SUITE_PARTS, [compress_wheels(wheels)])
        if request.with_rtx:
            content = _compressed_rtx(request, Path(folder) / "rtx", reporter)
            first, second = (_room(request, half) for half in halves)
            _pack_bundles(request, Path(folder), first + second - len(content), reporter)
            write_parts(halves, RTX_PARTS, split_parts(content, [first, second]))
    return _check_sizes(request, halves)


def _room(request: PackRequest, half: Path) -> int:
    """Return the number of bytes that still fit into a half."""
    return request.limit_bytes - travelling_bytes(request.root) - _folder_bytes(half) - _MARGIN_BYTES


def _compressed_rtx(request: PackRequest, folder: Path, reporter: Reporter) -> bytes:
    """Return TensorRT-RTX, compressed; the result is kept beside the halves, because compression takes minutes."""
    try:
        version = importlib.metadata.version("tensorrt-rtx")
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            "TensorRT-RTX for CUDA 13, which is to be packed, is not installed here: make CUDA=13 gpu-pack, or --no-rtx"
        ) from error
    kept = request.output / f"tensorrt-rtx-{version}-python-{request.python}.tar.xz"
    if not kept.exists():
        reporter.say("TensorRT-RTX: some five minutes of compression, once")
        write_atomically(kept, compress_wheels(_rtx_wheels(version, request.python, folder)))
    return kept.read_bytes()


def commit_of(root: Path, pack: Path | None = None) -> str:
    """Return the commit of a checkout by git, or if git cannot tell, the commit that the pack was made from."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        said = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        carried = None if pack is None else pack / "first" / COMMIT_NAME
        said = carried.read_text(encoding="utf-8") if carried is not None and carried.exists() else ""
    return said.strip() or "unknown"


def travelling_bytes(root: Path) -> int:
    """Return the size of the checkout's files that are transferred, in bytes.

    These are tracked files, and untracked files that git does not ignore.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    paths = [root / name for name in listed.decode().split("\0") if name]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _check_sizes(request: PackRequest, halves: Sequence[Path]) -> dict[str, int]:
    tree = travelling_bytes(request.root)
    sizes = {"tree": tree, **{half.name: tree + _folder_bytes(half) for half in halves}}
    for name, size in sizes.items():
        if tree > request.limit_bytes:
            limit = f"{request.limit_bytes / 2**20:.0f} MiB may be transferred"
            raise UsageError(f"the tracked tree alone is {tree / 2**20:.1f} MiB, and {limit}")
        if size > request.limit_bytes:
            raise UsageError(
                f"{name} is {size / 2**20:.1f} MiB with the tracked tree of {tree / 2**20:.1f} MiB, and "
                f"{request.limit_bytes / 2**20:.0f} MiB may be transferred: name fewer bundles, raise --limit-mib, or "
                f"leave TensorRT-RTX out (--no-rtx)"
            )
    return sizes


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _download(packages: Sequence[str], python: str, into: Path) -> list[Path]:
    """Download wheels for the other machine, without their dependencies."""
    platforms = [word for glibc in _GLIBC for word in ("--platform", f"manylinux_2_{glibc}_x86_64")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", python, *platforms, "--dest", str(into), *packages]
    subprocess.run(command, check=True)
    return sorted(into.glob("*.whl"))


def _rtx_wheels(version: str, python: str, into: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(into)]
    # The package itself is a source distribution that names its parts.
    subprocess.run([*command, *(f"{name}=={version}" for name in _RTX_SOURCES)], check=True)
    return _download([f"{name}=={version}" for name in _RTX_LIBRARIES], python, into)


def _pack_bundles(request: PackRequest, folder: Path, room: int, reporter: Reporter) -> None:
    """Pack networks to time, as far as they fit.

    The bundle balloons is calibrated on images of shapes, so its detections mean nothing.
    """
    reporter.say("pictures for calibration")
    pictures = folder / "pictures"
    words = ["--count", str(_PICTURES), "--output", str(pictures), "--quiet"]
    subprocess.run([sys.executable, "-m", "yolact_calibration.shapes", *words], check=True)
    for name, precisions in _MODELS.items():
        bundle = folder / f"{name}.bundle"
        reporter.say(f"{bundle.name}: {' and '.join(precisions)}")
        words = [str(request.root / "examples" / "models" / f"{name}.pth"), "--output", str(bundle), *_EXPORT]
        words += [*(f"--{precision}" for precision in precisions), "--calib", str(pictures / "images")]
        subprocess.run([sys.executable, "-m", "yolact_export.commands.cli", *words], check=True)
    for name, role, precision in _CARRIED:
        target = request.output / PACKED_BUNDLES / f"{name}.{precision}.bundle"
        copy_bundle(folder / f"{name}.bundle", target, {"network", role}, {precision})
        room -= _folder_bytes(target)
        if room < 0:
            reporter.say(f"left out, for lack of space: {target.name}, {_folder_bytes(target) / 2**20:.1f} MiB")
            room += _folder_bytes(target)
            shutil.rmtree(target)


def copy_bundle(bundle: Path, target: Path, roles: Container[str] = _ROLES, precisions: set[str] | None = None) -> None:
    """Copy some files of a bundle; the new manifest only lists these, so that the bundle is valid.

    Args:
        bundle: Bundle to copy; it is not changed.
        target: Folder to create.
        roles: Roles of the files to copy.
        precisions: Precisions of the files to copy; None takes those of its engines.

    Raises:
        UsageError: No file is left.
    """
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    artefacts: dict[str, dict[str, Any]] = manifest["artefacts"]
    chosen = precisions or {entry["precision"] for entry in artefacts.values() if entry["role"] == "engine"}
    kept = {name: entry for name, entry in artefacts.items() if entry["role"] in roles and entry["precision"] in chosen}
    if not kept:
        words = f"yolact-export {shlex.quote(str(bundle))} --engine --target rtx"
        raise UsageError(f"{bundle} has no engine; build one first: {words}")
    target.mkdir(parents=True)
    for name in kept:
        shutil.copy(bundle / name, target / name)
    document = json.dumps({**manifest, "artefacts": kept}, indent=2)
    write_atomically(target / "manifest.json", document.encode())
