"""Provenance of a page: when, by which command, with which versions, on which machine and from which files it came.

It is a JSON object, ``"made"``: ``"date"``, ``"command"``, ``"versions"`` (program -> version), ``"machine"`` (see
:func:`describe_machine`) and ``"files"`` (see :func:`file_entry`). Any part may be missing; what is not known is not
shown.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolact_calibration.report.html_page import definitions, finite, plain_text, section, text
from yolact_plugins import __version__
from yolact_plugins.files import counted
from yolact_runtime.model.bundle import MANIFEST_NAME, file_sha256

__all__ = [
    "describe_machine",
    "draw_byline",
    "draw_provenance",
    "file_entry",
    "installed_versions",
    "machine_text",
    "now_utc",
    "provenance",
]

# Name -> packages that bring it, of which at most one is installed.
_PACKAGES: Mapping[str, Sequence[str]] = {
    "numpy": ("numpy",),
    "torch": ("torch",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "cuda-bindings": ("cuda-bindings",),
    "torch-pruning": ("torch-pruning",),
    "onnxslim": ("onnxslim",),
    "onnxsim": ("onnxsim",),
    "faster-coco-eval": ("faster-coco-eval",),
    "pycocotools": ("pycocotools",),
}
_BOARD = Path("/proc/device-tree/model")
_CPU = Path("/proc/cpuinfo")
_GPUS = Path("/proc/driver/nvidia/gpus")


def provenance(command: str, files: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the provenance of a page that is made now, on this machine.

    Args:
        command: The command as typed; empty if a program called the library.
        files: Files that the page was made from, and files that were written; see :func:`file_entry`.
    """
    return {
        "date": now_utc(),
        "command": command,
        "versions": {"yolact-deploy": __version__, "python": platform.python_version(), **installed_versions()},
        "machine": describe_machine(),
        "files": [dict(one) for one in files],
    }


def now_utc() -> str:
    """Return the current minute as pages write it: ``2026-11-27 21:30 UTC``."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def installed_versions() -> dict[str, str]:
    """Return the versions of the installed packages that figures depend on, by name."""
    versions = {}
    for name, packages in _PACKAGES.items():
        for package in packages:
            try:
                versions[name] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
            break
    return versions


def describe_machine() -> dict[str, Any]:
    """Return what a figure depends on: ``"cpu"``, ``"cores"``, ``"system"``, ``"architecture"``, ``"gpus"``.

    The list of GPUs is empty without an NVIDIA driver; on a Jetson the CPU is named after the board.
    """
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "gpus": _gpu_names(),
    }


def machine_text(machine: Mapping[str, Any]) -> str:
    """Return a machine in one line, as plain text."""
    num_cores = finite(machine.get("cores"))
    cores = counted(int(num_cores), "core") if num_cores else ""
    system = " ".join(str(machine[key]) for key in ("system", "architecture") if machine.get(key))
    return ", ".join(str(part) for part in (machine.get("cpu"), cores, *(machine.get("gpus") or ()), system) if part)


def file_entry(role: str, path: Path, sha256: str = "") -> dict[str, str]:
    """Return an entry of ``"files"``: ``"role"``, ``"name"``, ``"sha256"``.

    Args:
        role: Role of the file for the page, such as ``"Checkpoint"``.
        path: The file; for a bundle its folder, whose manifest is hashed: it holds the digests of all its files.
        sha256: The digest, where it is known; by default the file is read.

    Raises:
        OSError: The file cannot be read.
    """
    name = path.name or str(path.resolve().name)
    if not sha256 and path.is_dir():
        return {"role": role, "name": f"{name}/{MANIFEST_NAME}", "sha256": file_sha256(path / MANIFEST_NAME)}
    return {"role": role, "name": name, "sha256": sha256 or file_sha256(path)}


def draw_byline(made: Mapping[str, Any]) -> str:
    """Return the line below a page's title: what it is about, when it was made and by which version; HTML."""
    version = (made.get("versions") or {}).get("yolact-deploy")
    names = [f"<code>{text(one.get('name'))}</code>" for one in (made.get("files") or ())[:1]]
    parts = [
        *names,
        text(made["date"]) if made.get("date") else "",
        f"yolact-deploy {text(version)}" if version else "",
    ]
    told = " · ".join(part for part in parts if part)
    return f'<p class="faint byline">{told}</p>' if told else ""


def draw_provenance(made: Mapping[str, Any], more: Sequence[tuple[str, str]] = ()) -> str:
    """Return the section at a page's end as HTML; empty if nothing is known.

    Args:
        made: Provenance as returned by :func:`provenance`.
        more: Further entries: names, plain text, and what they stand for, HTML.
    """
    versions = ", ".join(f"{name} {version}" for name, version in (made.get("versions") or {}).items() if version)
    machine = machine_text(made.get("machine") or {})
    entries = [("Date", text(made["date"]))] if made.get("date") else []
    entries += [("Command", f"<code>{text(made['command'])}</code>")] if made.get("command") else []
    for one in made.get("files") or ():
        digest = (
            f'<br><span class="faint">SHA-256 <code>{text(one["sha256"])}</code></span>' if one.get("sha256") else ""
        )
        entries.append((plain_text(one.get("role")), f"<code>{text(one.get('name'))}</code>{digest}"))
    entries += [("Versions", text(versions))] if versions else []
    entries += [("Machine", text(machine))] if machine else []
    entries += more
    return section("How this page was made", definitions(entries) if entries else "")


def _cpu_name() -> str:
    if _BOARD.exists():
        return _BOARD.read_bytes().decode("utf-8", "replace").strip("\0 \n")
    if _CPU.exists():
        for line in _CPU.read_bytes().decode("utf-8", "replace").splitlines():
            if line.lower().startswith("model name"):
                return re.sub(r"\((R|TM)\)|CPU|@.*", "", line.split(":", 1)[1]).strip()
    return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    """Return the names of NVIDIA GPUs as the kernel's driver lists them, without a call to CUDA."""
    told = [path.read_bytes().decode("utf-8", "replace") for path in sorted(_GPUS.glob("*/information"))]
    return [match[1].strip() for one in told if (match := re.search(r"^Model:(.*)$", one, re.MULTILINE))]
