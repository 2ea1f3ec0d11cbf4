"""TensorRT engines (plans) on the machine that runs them: search, verification, comparison with this machine, loading.

An engine is executable code and fits one kind of machine. Therefore TensorRT only gets a file that the bundle's
manifest lists, that only its owner can write, and that was built for this kind of machine.

Facts of a build (``Artefact.build``), all strings: ``target`` (``tensorrt`` or ``rtx``), ``library`` and
``library_version``, ``os`` and ``arch``, ``compute_capabilities`` (``"8.7"``, ``"8.6, 8.9"``; with "and later" at the
end, all that are newer than the last), ``gpu``, ``version_compatible`` and ``hardware_compatible`` (``yes`` or ``no``),
``onnx_sha256`` of the source, and the options of the build.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolact_plugins.files import real_path
from yolact_plugins.trusted_files import check_trusted, read_regular, read_trusted
from yolact_runtime.backends.cuda_driver import Gpu, find_gpu
from yolact_runtime.backends.tensorrt_library import TensorRtLibrary, covers, load_tensorrt, version_numbers
from yolact_runtime.errors import (
    BackendError,
    BackendUnavailableError,
    BundleError,
    EngineMismatchError,
    MissingDependencyError,
    UntrustedFileError,
)
from yolact_runtime.model.bundle import ENGINE_ROLE, artefact_path, file_sha256, read_manifest
from yolact_runtime.model.bundle_folder import BundleFolder
from yolact_runtime.model.engine_name import manifest_from_name
from yolact_runtime.model.manifest import Artefact, Manifest

__all__ = [
    "EngineFile",
    "LoadedEngine",
    "check_engine",
    "engine_file_name",
    "engine_in",
    "find_engine",
    "load_engine",
    "machine_facts",
    "read_engine",
    "trusted_engine",
]

_log = logging.getLogger(__name__)
# Capabilities that TensorRT-RTX engines recorded if no GPU was named. Some GPUs in this range are unsupported.
_VAGUE = "8.0 and later"
_SUFFIXES = {"tensorrt": ".plan", "rtx": ".rtx.plan"}


@dataclass(frozen=True)
class EngineFile:
    """An engine of a bundle, or a trusted one outside of any bundle.

    Attributes:
        path: Path of the plan.
        manifest: Manifest of the bundle, with the engine's precision and dtypes; None for an engine outside of a
            bundle, which contains its own.
        artefact: Hash, size and build facts of the engine.
        signed: Whether a verified signature covers the hash, or the caller trusts the file; write permissions are then
            not checked.
    """

    path: Path
    manifest: Manifest | None
    artefact: Artefact
    signed: bool = False

    @property
    def suffix(self) -> str:
        """Suffix of the path: ``".plan"`` or ``".engine"``."""
        return self.path.suffix

    @property
    def target(self) -> str:
        """Build target: ``"tensorrt"`` or ``"rtx"``."""
        return self.artefact.build.get("target", "tensorrt")


@dataclass(frozen=True)
class LoadedEngine:
    """A deserialised engine. The runtime must live as long as the engine, so both are kept here.

    Attributes:
        library: The TensorRT package of the engine.
        engine: The ``ICudaEngine`` object.
        runtime: The ``Runtime`` object.
        manifest: Manifest that describes inputs and outputs; read from the engine if it contains one.
        sha256: SHA-256 of the plan.
    """

    library: TensorRtLibrary
    engine: Any
    runtime: Any
    manifest: Manifest
    sha256: str


def engine_file_name(precision: str, target: str) -> str:
    """Return the file name of an engine: ``model.int8.plan`` or ``model.int8.rtx.plan``."""
    return f"model.{precision}{_SUFFIXES[target]}"


def machine_facts() -> dict[str, str]:
    """Return the facts of the machine that an engine records besides TensorRT and the GPU."""
    return {"os": platform.system().lower(), "arch": platform.machine()}


def find_engine(path: Path, precision: str, target: str = "tensorrt") -> EngineFile:
    """Find an engine of a bundle without reading it; see :func:`read_engine`.

    Args:
        path: The bundle folder, or a plan inside one, whose name determines precision and target.
        precision: Precision of the engine, such as ``"int8"``.
        target: Build target: ``"tensorrt"`` or ``"rtx"``.

    Raises:
        BundleError: There is no such engine.
        ManifestError: The manifest is invalid.
    """
    folder, name = (path, engine_file_name(precision, target)) if path.is_dir() else (path.parent, path.name)
    return _listed_engine(folder, read_manifest(folder), name, target)


def engine_in(folder: BundleFolder, name: str, target: str) -> EngineFile:
    """Return an engine of an open bundle.

    Args:
        folder: The open bundle.
        name: File name of the plan.
        target: Build target for the message: ``"tensorrt"`` or ``"rtx"``.

    Raises:
        BundleError: There is no such engine.
    """
    file = _listed_engine(folder.path, folder.manifest, name, target)
    return replace(file, signed=folder.verified_by is not None)


def trusted_engine(path: Path) -> EngineFile:
    """Return a plan that is in no bundle, or not listed by one; it contains its own manifest.

    Only the caller's trust covers it, and it is executable code. The machine that it was built for is unknown; TensorRT
    checks that.

    Raises:
        BundleError: The file cannot be read.
    """
    try:
        artefact = Artefact(ENGINE_ROLE, "", file_sha256(path), path.stat().st_size, {"target": _target_of(path)})
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    return EngineFile(path, None, artefact, signed=True)


def _target_of(plan: Path) -> str:
    return "rtx" if plan.name.endswith(_SUFFIXES["rtx"]) else "tensorrt"


def _listed_engine(folder: Path, manifest: Manifest, name: str, target: str) -> EngineFile:
    artefact = manifest.artefacts.get(name)
    if artefact is None or artefact.role != ENGINE_ROLE:
        there = ", ".join(key for key, item in manifest.artefacts.items() if item.role == ENGINE_ROLE) or "none"
        raise BundleError(
            f"{folder} lists no engine {name} (engines: {there}); build it on this machine: {_rebuild(folder, target)}"
        )
    return EngineFile(artefact_path(folder, name), artefact.described_by(manifest), artefact)


def read_engine(file: EngineFile, signed: bool = False) -> bytes:
    """Read and verify a plan. The returned bytes are those that were checked, so the file cannot be swapped in between.

    Args:
        file: The engine to read.
        signed: Whether the signature of the manifest was verified, so that its hash suffices and file owners are not
            checked.

    Raises:
        BundleError: Others own or may write the file or its folder, the file cannot be read, or its hash is not the one
            in the manifest.
    """
    try:
        plan = read_regular(file.path) if signed else read_trusted(file.path, file.path.parent, "an engine is")
    except UntrustedFileError as error:
        raise BundleError(
            f"{error}. Or sign the bundle and verify it with --verify-key KEY: then the hash suffices"
        ) from error
    except OSError as error:
        raise BundleError(f"cannot read {file.path}: {error.strerror or error}") from error
    found = hashlib.sha256(plan).hexdigest()
    if found != file.artefact.sha256:
        raise BundleError(
            f"{file.path} is not the engine that the manifest lists: sha256 {found[:12]}…, expected "
            f"{file.artefact.sha256[:12]}…. It is not loaded, because engines are executable code. Copy the folder "
            f"again, or build it again: {_rebuild(file.path.parent, file.target)}"
        )
    return plan


def check_engine(file: EngineFile, library: TensorRtLibrary, gpu: Gpu) -> None:
    """Compare what an engine was built for with this machine.

    Args:
        file: The engine to check.
        library: The installed TensorRT package of the engine's target.
        gpu: GPU of this machine.

    Raises:
        EngineMismatchError: The engine was built for another kind of machine.
    """
    build = file.artefact.build
    reason = _difference(build, library, gpu)
    if reason is not None:
        raise EngineMismatchError(f"{file.path} was built for {_place(build)}; {reason}. {_advice(file, library, gpu)}")
    if build.get("gpu", gpu.name) != gpu.name and build.get("hardware_compatible") != "yes":
        _log.warning(
            "%s was built on %s; this is %s, where other kernels may be faster", file.path, build["gpu"], gpu.name
        )


def load_engine(file: EngineFile, lean_runtime: Path | None = None) -> LoadedEngine:
    """Verify an engine, compare it with this machine, and deserialise it.

    Host code that a plan may contain is never run (``engine_host_code_allowed`` stays False).

    Args:
        file: The engine to load.
        lean_runtime: Path of the lean runtime library of the TensorRT release that built a version-compatible engine;
            None for all other engines. Use your system's own package: the library and its folder, without links, must
            belong to root or this user and be writable by nobody else.

    Raises:
        BundleError: The file does not match the manifest.
        BackendUnavailableError: TensorRT, the driver or a GPU is missing.
        EngineMismatchError: The engine was built for another machine.
        BackendError: TensorRT rejects the engine; the message includes its log.
    """
    plan = read_engine(file, file.signed)
    lean_path = None if lean_runtime is None else _checked_library(lean_runtime)
    try:
        library = load_tensorrt(file.target)
    except MissingDependencyError as error:
        raise BackendUnavailableError(str(error)) from error
    # Checked before any TensorRT object is created: without a driver, some releases end the process.
    gpu = find_gpu()
    check_engine(file, library, gpu)
    with library.collect() as log:
        runtime = library.module.Runtime(library.logger)
        if lean_path is not None:
            runtime = runtime.load_runtime(lean_path)
        if runtime is None:
            raise BackendError(f"TensorRT cannot load the lean runtime {lean_runtime}{log.tail()}")
        runtime.engine_host_code_allowed = False
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(f"TensorRT {library.version} rejects {file.path} on {gpu.name}{log.tail()}")
    return LoadedEngine(library, engine, runtime, _manifest_of(engine, file), hashlib.sha256(plan).hexdigest())


def _checked_library(path: Path) -> str:
    """Return the path without links of a library that TensorRT loads by name; packages link to it by version."""
    real = real_path(path)
    try:
        check_trusted(real, real.parent, "the lean runtime is")
    except UntrustedFileError as error:
        raise BackendError(str(error)) from error
    except OSError as error:
        raise BackendError(f"cannot read the lean runtime {path}: {error.strerror or error}") from error
    return str(real)


def _manifest_of(engine: Any, file: EngineFile) -> Manifest:
    try:
        return manifest_from_name(str(engine.name), str(file.path))
    except BundleError:
        if file.manifest is None:
            raise
        # The plan has no room for a manifest; that of the bundle belongs to the same export.
        return file.manifest


def _difference(build: Mapping[str, str], library: TensorRtLibrary, gpu: Gpu) -> str | None:
    """Explain why an engine does not fit this machine; return None if it does."""
    here, version = machine_facts(), library.version
    if any(build.get(key, value) != value for key, value in here.items()):
        return f"this machine is {here['os']} on {here['arch']}"
    name, built = build.get("library", "TensorRT"), build.get("library_version", version)
    if build.get("version_compatible") == "yes":
        if version_numbers(version) < version_numbers(built):
            return f"{name} {version} is installed here, which is older"
    elif built != version:
        return f"{name} {version} is installed here, and engines fit one version only"
    listed = build.get("compute_capabilities", gpu.compute_capability)
    if library.target == "rtx" and listed == _VAGUE:
        # The engine is of the same release, so it was built for the capabilities that this release names.
        listed = library.default_capabilities
    if not covers(listed, gpu.compute_capability):
        return f"this machine has {gpu.name} (compute capability {gpu.compute_capability})"
    return None


def _advice(file: EngineFile, library: TensorRtLibrary, gpu: Gpu) -> str:
    """Return the command to type if an engine does not fit."""
    folder, here = file.path.parent, gpu.compute_capability
    if library.target != "rtx" or covers(library.default_capabilities, here):
        return f"Build it on this machine: {_rebuild(folder, file.target)}"
    if here in library.compute_capabilities:
        return f"Build it for this GPU: {_rebuild(folder, file.target)} --compute-capability {here}"
    return (
        f"TensorRT-RTX {library.version} builds for {', '.join(library.compute_capabilities)} only. This GPU needs "
        f"full TensorRT; build on this machine: {_rebuild(folder, 'tensorrt')} --target tensorrt"
    )


def _place(build: Mapping[str, str]) -> str:
    """Format a build's facts: ``tensorrt 10.3.0, Orin (compute capability 8.7), linux on aarch64``."""
    parts = [f"{build.get('library', 'an unknown library')} {build.get('library_version', '')}".rstrip()]
    capabilities = f"compute capability {build.get('compute_capabilities', 'unknown')}"
    parts.append(f"{build['gpu']} ({capabilities})" if "gpu" in build else capabilities)
    parts.append(f"{build.get('os', 'an unknown system')} on {build.get('arch', 'an unknown processor')}")
    return ", ".join(parts)


def _rebuild(folder: Path, target: str) -> str:
    return f"yolact-export {shlex.quote(str(folder))} --engine" + (
        "" if target == "tensorrt" else f" --target {target}"
    )
