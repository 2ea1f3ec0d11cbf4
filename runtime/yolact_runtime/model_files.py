"""Selection of the model file that each backend runs, and the bundle that it comes from."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolact_runtime.backends import ModelSource
from yolact_runtime.backends.engine_file import EngineFile, engine_file_name, engine_in, trusted_engine
from yolact_runtime.backends.tensorrt import TARGETS
from yolact_runtime.errors import BackendUnavailableError, BundleError, NoEngineError, SignatureError
from yolact_runtime.golden import GOLDEN_ROLE
from yolact_runtime.model.bundle import (
    CPU_PRECISIONS,
    CUDA_PRECISIONS,
    ENGINE_ROLE,
    MANIFEST_NAME,
    NETWORK_ROLE,
    PLAN_SUFFIXES,
    Bundle,
    bundle_in,
    mask_iou_of,
    open_file,
    open_folder,
    require_precision,
)
from yolact_runtime.model.bundle_folder import BundleFolder
from yolact_runtime.model.manifest import METADATA_KEY, Manifest
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.signing_keys import fingerprint, read_public_key

__all__ = ["ModelFiles", "Origin"]

_ENGINE_PRECISIONS = ("int8", "fp16", "fp32")
"""Precisions for a robot, best first: a bundle contains an INT8 network only if its accuracy was confirmed."""


@dataclass(frozen=True)
class Origin:
    """The bundle that a model was opened from, as it was at that time.

    Attributes:
        folder: The bundle's folder.
        manifest: The manifest, as it was read.
        verified_by: Fingerprint of the key whose signature fits; None if no signature was checked.
        embedded: Manifest inside the network's file, as JSON; None for an engine, or if there is none.
        golden: The verified file of the golden frame, or the error of reading it; None if the manifest lists none.
    """

    folder: Path
    manifest: Manifest
    verified_by: str | None = None
    embedded: str | None = None
    golden: ModelFile | BundleError | None = None


class ModelFiles:
    """The selection of a file of a model for each backend; the last choice is what is open.

    A bundle folder is opened once, at the first choice, and all files are read through it; a context manager closes it.
    """

    def __init__(
        self, path: Path | str | Bundle, precision: str | None, keys: Sequence[Path], trust_engine: bool
    ) -> None:
        self._given = path
        self._path = path.path if isinstance(path, Bundle) else Path(path)
        self._precision = precision
        self._keys = keys
        self._trust_engine = trust_engine
        self._opened: BundleFolder | None = None
        self._embedded: str | None = None
        self.manifest: Manifest | None = None
        self.file: Path | None = None
        self.mask_iou: ModelFile | None = None
        self.verified_by: str | None = None

    def __enter__(self) -> ModelFiles:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()

    def choose(self, backend: str) -> ModelSource:
        """Return the file for a backend.

        Raises:
            BackendUnavailableError: The model has no file for it.
            BundleError: The same as for :func:`open_model`.
        """
        if backend in TARGETS:
            return self._choose_engine(backend, TARGETS[backend])
        if self._path.suffix in PLAN_SUFFIXES and not self._path.is_dir():
            raise BackendUnavailableError(
                f"{backend}: {self._path} is an engine, which ONNX Runtime does not run; name its bundle folder or an "
                f".onnx file"
            )
        bundle = self._choose_network(CUDA_PRECISIONS if backend == "onnxruntime-cuda" else CPU_PRECISIONS)
        self.manifest, self.file, self.mask_iou = bundle.manifest, bundle.network.path, bundle.mask_iou
        self.verified_by = bundle.verified_by
        self._embedded = bundle.network.metadata().get(METADATA_KEY)
        return bundle.network

    def origin(self) -> Origin | None:
        """Return the bundle folder of the chosen file; None if it was opened without one."""
        if self._opened is None:
            return None
        opened = self._opened
        return Origin(opened.path, opened.manifest, opened.verified_by, self._embedded, self._golden(opened))

    def _golden(self, opened: BundleFolder) -> ModelFile | BundleError | None:
        """Read the golden frame now, because the folder may be another one when the self-test runs."""
        name = next((name for name, artefact in opened.manifest.artefacts.items() if artefact.role == GOLDEN_ROLE), "")
        if not name:
            return None
        try:
            return ModelFile(opened.path / name, opened.read(name))
        except BundleError as error:
            if self._keys:
                raise
            return error

    def _folder(self, path: Path) -> BundleFolder:
        if self._opened is None:
            self._opened = open_folder(path, self._keys)
            if self._precision is not None and path == self._path:
                artefacts = self._opened.manifest.artefacts
                require_precision(self._opened.path, artefacts, self._precision, {NETWORK_ROLE, ENGINE_ROLE})
        return self._opened

    def _choose_network(self, preferred: tuple[str, ...]) -> Bundle:
        if isinstance(self._given, Bundle):
            self._require_verified(self._given)
            if self._path.is_dir():
                self._folder(self._path)
            return self._given
        if self._path.suffix == ".onnx" and not self._path.is_dir():
            return open_file(self._path, self._keys)
        return bundle_in(self._folder(self._path), self._precision, preferred)

    def _require_verified(self, bundle: Bundle) -> None:
        if not self._keys or bundle.verified_by in {fingerprint(read_public_key(key)) for key in self._keys}:
            return
        raise SignatureError(
            f"{bundle.path} was opened without verifying a signature of {' or '.join(map(str, self._keys))}: "
            f"pass the key to open_bundle(…, verify_key=), or pass the path of the bundle here"
        )

    def _choose_engine(self, backend: str, target: str) -> ModelSource:
        path = self._path
        if path.suffix in PLAN_SUFFIXES and not path.is_dir():
            file = self._named_engine(path, target)
        elif path.is_file() and path.name != MANIFEST_NAME:
            raise NoEngineError(f"{backend}: engines are built into bundle folders, and {path} is not one")
        else:
            opened = self._folder(path)
            precision = self._engine_precision(backend, target, opened)
            file = engine_in(opened, engine_file_name(precision, target), target)
        if file.target != target:
            raise NoEngineError(f"{backend}: {file.path} was built for {file.target}")
        self.manifest, self.file, self._embedded = file.manifest, file.path, None
        self.verified_by = None if self._opened is None else self._opened.verified_by
        self.mask_iou = None if self._opened is None else mask_iou_of(self._opened)
        return file

    def _named_engine(self, plan: Path, target: str) -> EngineFile:
        """Return a plan that was named directly."""
        is_bundle = (plan.parent / MANIFEST_NAME).is_file()
        if is_bundle and (not self._trust_engine or plan.name in self._folder(plan.parent).manifest.artefacts):
            return engine_in(self._folder(plan.parent), plan.name, target)
        if self._trust_engine:
            self._leave_folder()
            return trusted_engine(plan)
        if self._keys:
            raise SignatureError(f"{plan} is not in a bundle, so no signature covers it: name its bundle folder")
        raise BundleError(
            f"{plan} is not in a bundle, so its origin cannot be verified, and engines are "
            f"executable code: name its bundle folder; or, if you built it and nobody else could write it, trust it "
            f"(--trust-engine, trust_engine=True)"
        )

    def _leave_folder(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _engine_precision(self, backend: str, target: str, opened: BundleFolder) -> str:
        there = [
            artefact.precision
            for artefact in opened.manifest.artefacts.values()
            if artefact.role == ENGINE_ROLE and artefact.build.get("target", "tensorrt") == target
        ]
        wanted: Sequence[str] = _ENGINE_PRECISIONS if self._precision is None else (self._precision,)
        for precision in wanted:
            if precision in there:
                return precision
        words = ["yolact-export", str(opened.path), "--engine"]
        words += [] if target == "tensorrt" else ["--target", target]
        wanted_one = f" in {self._precision}" if self._precision else ""
        raise NoEngineError(
            f"{backend}: {opened.path} has no engine for it{wanted_one}; build one on this machine: {shlex.join(words)}"
        )
