"""Engines of an existing bundle, built from its own ONNX files, on a workstation or on the robot that will run them.

Only NumPy and TensorRT are needed; torch and onnx are not imported. The mask-IoU network of YOLACT++ gets no engine:
ONNX Runtime runs it, because the number of its masks changes from frame to frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from yolact_export.bundle_writer import REJECTED_ENGINE_SUFFIX, link_file, put_manifest
from yolact_export.engine.build import BuiltEngine, check_model
from yolact_export.engine.layers import Convolution, find_convolutions
from yolact_export.engine.onnx_outline import OnnxOutline, read_outline
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.process import build_in_process
from yolact_export.engine.self_test import try_engine
from yolact_export.engine.timing_cache import default_folder
from yolact_export.errors import EngineBuildError, UsageError
from yolact_plugins.compile.manifest_entry import without_signature
from yolact_plugins.files import human_size, write_atomically
from yolact_plugins.leftovers import FILE, hidden_path, remove_leftovers_in
from yolact_plugins.locks import locked_folder
from yolact_plugins.staging import require_writable
from yolact_runtime.backends.engine_file import engine_file_name
from yolact_runtime.errors import BundleError, YolactError
from yolact_runtime.model.bundle import (
    ENGINE_ROLE,
    NETWORK_ROLE,
    artefact_path,
    read_manifest,
)
from yolact_runtime.model.manifest import METADATA_KEY, Artefact, Manifest, NetworkDtypes
from yolact_runtime.model.onnx_metadata import metadata_of
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["ENGINE_PRECISIONS", "Seal", "WrittenEngine", "build_engines", "engine_precisions"]

ENGINE_PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions whose ONNX file TensorRT accepts. ``"int8-cpu"`` is quantised by other rules, for ONNX Runtime."""
Seal = Callable[[Manifest, Manifest], None]
"""Function called with the manifest before and after every change to a bundle, which signs it if requested."""


@dataclass(frozen=True)
class WrittenEngine:
    """Engine in its bundle.

    Attributes:
        path: Path of the plan.
        precision: Precision of the ONNX file that it was built from.
        artefact: Entry of the engine in the manifest.
        built: Result of the build, with an empty plan: the bytes are in the file.
        convolutions: Engine layer of each ONNX convolution, by name.
        num_convolutions: Number of convolutions in the ONNX file.
    """

    path: Path
    precision: str
    artefact: Artefact
    built: BuiltEngine
    convolutions: dict[str, Convolution]
    num_convolutions: int

    def arithmetic(self) -> dict[str, int]:
        """Count the convolutions by the type that they compute in, such as ``{"Int8": 86}``."""
        counts: dict[str, int] = {}
        for convolution in self.convolutions.values():
            counts[convolution.arithmetic] = counts.get(convolution.arithmetic, 0) + 1
        return counts

    def document(self) -> dict[str, object]:
        """Return a JSON object that describes the engine."""
        return {
            "file": self.path.name,
            "precision": self.precision,
            "size_bytes": self.artefact.size_bytes,
            "sha256": self.artefact.sha256,
            "build": dict(self.artefact.build),
            "num_convolutions": self.num_convolutions,
            "convolutions": {
                name: {"arithmetic": found.arithmetic, "output": found.output, "fused": list(found.fused)}
                for name, found in self.convolutions.items()
            },
        }


@dataclass(frozen=True)
class _Source:
    """ONNX file to build from."""

    path: Path
    precision: str
    artefact: Artefact


def engine_precisions(bundle: Path, manifest: Manifest | None = None) -> tuple[str, ...]:
    """Return the precisions of a bundle from which engines can be built.

    Args:
        bundle: Folder of the bundle.
        manifest: Manifest of the bundle; None reads it.

    Raises:
        BundleError, ManifestError: The folder is not a bundle.
    """
    listed = (manifest or read_manifest(bundle)).artefacts
    there = {artefact.precision for name, artefact in listed.items() if _is_network(name, artefact)}
    return tuple(precision for precision in ENGINE_PRECISIONS if precision in there)


def build_engines(
    bundle: Path,
    precisions: Sequence[str] | None = None,
    options: EngineOptions | None = None,
    seal: Seal = lambda *_: None,
    vouched: Manifest | None = None,
    reporter: Reporter = SILENT,
) -> list[WrittenEngine]:
    """Build engines into a bundle, beside its ONNX files; earlier ones of the same name are replaced.

    Each engine is in the manifest as soon as it is finished, so an interruption keeps the earlier ones. It is tested
    once on the bundle's golden frame, if this machine has a suitable GPU. A signature is removed before anything that
    it covers is changed, and `seal` signs the bundle again for each engine.

    The bundle is locked while a plan and its entry are written, so concurrent builds and exports do not lose each
    other's changes. Readers do not wait: a reader between the two writes sees the earlier manifest, and if it lists an
    earlier engine of that name, refuses that engine because its hash does not match.

    Args:
        bundle: Folder of the bundle.
        precisions: Precisions from :data:`ENGINE_PRECISIONS`; None for all that the bundle has.
        options: Options of the builds.
        seal: Function that signs the bundle; see :data:`Seal`.
        vouched: Manifest that a signer checked before, whose networks are built from; otherwise a manifest that was
            swapped in for a moment could be used and signed. None reads it.
        reporter: Reporter that receives a line for each step, and shows the progress of the build.

    Raises:
        BundleError, ManifestError: The bundle is incomplete, or does not match its manifest.
        SignatureError: `seal` failed; the bundle is not signed.
        UsageError: No engine can be built with a precision.
        EngineBuildError, EngineMemoryError: A build failed; earlier engines are in the bundle.
        SelfTestError: An engine does not compute the results of its network on this machine; it is kept as
            ``*.rejected``.
        OSError: The bundle is not writable, which is detected before anything is built.
    """
    options = options or EngineOptions()
    with locked_folder(bundle):
        remove_leftovers_in(bundle)
    manifest = vouched or read_manifest(bundle)
    sources = [_source(bundle, manifest, name) for name in _checked_precisions(bundle, manifest, precisions)]
    require_writable(*(bundle / engine_file_name(source.precision, options.target) for source in sources))
    return [_build_one(bundle, source, options, seal, reporter) for source in sources]


def _checked_precisions(bundle: Path, manifest: Manifest, precisions: Sequence[str] | None) -> tuple[str, ...]:
    there = engine_precisions(bundle, manifest)
    for precision in precisions or ():
        if precision not in ENGINE_PRECISIONS:
            raise UsageError(
                f'engines cannot be built with precision "{precision}"; TensorRT accepts {", ".join(ENGINE_PRECISIONS)}'
                + (" (int8-cpu is for ONNX Runtime)" if precision == "int8-cpu" else "")
            )
    wanted = tuple(dict.fromkeys(precisions)) if precisions is not None else there
    if not wanted:
        raise BundleError(
            f"{bundle} has no network that TensorRT accepts ({', '.join(ENGINE_PRECISIONS)}); export it again"
        )
    missing = [precision for precision in wanted if precision not in there]
    if missing:
        raise BundleError(
            f"{bundle} has no network of precision {', '.join(missing)} (it has {', '.join(there) or 'none'}); export "
            f"the checkpoint again with that precision"
        )
    return wanted


def _is_network(name: str, artefact: Artefact) -> bool:
    return artefact.role == NETWORK_ROLE and name.endswith(".onnx")


def _source(bundle: Path, manifest: Manifest, precision: str) -> _Source:
    artefacts = manifest.artefacts
    name = next(name for name, a in artefacts.items() if _is_network(name, a) and a.precision == precision)
    return _Source(artefact_path(bundle, name), precision, artefacts[name])


def _build_one(
    bundle: Path,
    source: _Source,
    options: EngineOptions,
    seal: Seal,
    reporter: Reporter,
) -> WrittenEngine:
    model, manifest_json = _read_model(source)
    outline = read_outline(model)
    check_model(outline, options)
    name = engine_file_name(source.precision, options.target)
    reporter.say(f"building {name} from {source.path.name} ({human_size(len(model))})")
    caches = default_folder() if options.target == "tensorrt" else None
    built = build_in_process(model, manifest_json, options, caches, reporter)
    del model
    path = bundle / name
    # Strongly typed: the types of an engine's inputs and outputs are those of its network.
    artefact = Artefact(
        ENGINE_ROLE,
        source.precision,
        hashlib.sha256(built.plan).hexdigest(),
        len(built.plan),
        built.facts,
        source.artefact.dtypes,
    )
    _put_engine(bundle, name, artefact, built.plan, seal)
    try:
        try_engine(bundle, name, source.precision, options.target, reporter)
    except YolactError:
        _reject(bundle, name, artefact, seal, reporter)
        raise
    written = _written(path, source, artefact, replace(built, plan=b""), outline)
    kinds = ", ".join(f"{count} {kind}" for kind, count in written.arithmetic().items())
    reporter.say(f"{name}: {human_size(artefact.size_bytes)}; convolutions: {kinds or 'not listed'}")
    return written


def _written(
    path: Path, source: _Source, artefact: Artefact, built: BuiltEngine, outline: OnnxOutline
) -> WrittenEngine:
    names = outline.named("Conv")
    return WrittenEngine(path, source.precision, artefact, built, find_convolutions(built.layers, names), len(names))


def _read_model(source: _Source) -> tuple[bytes, str]:
    """Read the model and the manifest inside it, after comparing the file with the bundle's manifest."""
    try:
        model = source.path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {source.path}: {error.strerror or error}") from error
    if hashlib.sha256(model).hexdigest() != source.artefact.sha256:
        raise BundleError(
            f"{source.path} is not the file the manifest describes; copy the folder again, or export again"
        )
    # From these bytes, not from the file, which may have been replaced: the engine will contain this manifest.
    metadata = metadata_of(model, source.path)
    if METADATA_KEY not in metadata:
        raise EngineBuildError(f"{source.path} has no manifest to store in the engine; export the checkpoint again")
    inside = Manifest.from_json(metadata[METADATA_KEY], str(source.path)).dtypes
    listed = source.artefact.dtypes or NetworkDtypes()
    if inside != listed:
        # The bundle would list one type and the engine state the other, so the runtime would refuse it.
        raise BundleError(
            f"{source.path}: its input and outputs are {listed.input} and {listed.outputs} in the bundle's manifest, "
            f"{inside.input} and {inside.outputs} in the network itself; copy the folder again, or export again"
        )
    return model, metadata[METADATA_KEY]


def _put_engine(bundle: Path, name: str, artefact: Artefact, plan: bytes, seal: Seal) -> None:
    """Write an engine, list it in the manifest, and have the bundle signed."""
    path = bundle / name
    with locked_folder(bundle):
        with without_signature(bundle), _as_before_on_failure(path):
            write_atomically(path, plan)
            # Read now, because another process may have changed it during the build.
            before = read_manifest(bundle)
            after = _write_artefacts(bundle, before, {**before.artefacts, name: artefact})
        seal(before, after)


@contextmanager
def _as_before_on_failure(path: Path) -> Iterator[None]:
    """Restore the earlier file, or none, if the block fails: readers would refuse a plan that is not listed."""
    # Not named as a leftover of the plan, which writing the plan would remove; after a kill the next builder removes
    # it.
    kept = hidden_path(path.with_name(f"{path.stem}.before{path.suffix}"), FILE)
    was_there = path.exists()
    if was_there:
        link_file(path, kept)
    try:
        yield
    except BaseException:
        if was_there:
            kept.replace(path)
        else:
            path.unlink(missing_ok=True)
        raise
    finally:
        kept.unlink(missing_ok=True)


def _reject(bundle: Path, name: str, artefact: Artefact, seal: Seal, reporter: Reporter) -> None:
    """Remove an engine from the manifest; the file is kept beside it for inspection."""
    rejected = bundle / (name.removesuffix(".plan") + REJECTED_ENGINE_SUFFIX)
    with locked_folder(bundle):
        before = read_manifest(bundle)
        if before.artefacts.get(name) != artefact:
            # Another process has built it again in the meantime, and is responsible for that one.
            return
        with without_signature(bundle):
            others = {other: listed for other, listed in before.artefacts.items() if other != name}
            after = _write_artefacts(bundle, before, others)
            (bundle / name).replace(rejected)
        seal(before, after)
    reporter.say(f"{name} is not used; it is kept as {rejected.name}")


def _write_artefacts(bundle: Path, manifest: Manifest, artefacts: Mapping[str, Artefact]) -> Manifest:
    changed = replace(manifest, artefacts=artefacts)
    put_manifest(bundle, changed)
    return changed
