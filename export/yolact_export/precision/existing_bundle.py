"""Networks of other precisions, added to a bundle from its own float32 network: no checkpoint, no torch.

The network is the one that an export verified, so what is made of it is what the export would have made. The bundle is
replaced in one step at the end; whatever in it was not made anew stays as it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolact_export.bundle_writer import REJECTED_SUFFIX, REPORT_NAME, carry_over, put_manifest
from yolact_export.golden import write_golden
from yolact_export.precision.precision import PrecisionResult, network_name
from yolact_plugins.compile.manifest_entry import SIGNATURE_NAMES
from yolact_plugins.files import write_atomically
from yolact_plugins.locks import locked_folder
from yolact_plugins.staging import staged_folder
from yolact_plugins.text import read_json
from yolact_runtime.errors import BundleError, NoGoldenFrameError, TextError
from yolact_runtime.golden import GOLDEN_NAME
from yolact_runtime.model.bundle import (
    ENGINE_ROLE,
    MANIFEST_NAME,
    NETWORK_ROLE,
    artefact_path,
    file_sha256,
    read_manifest,
)
from yolact_runtime.model.manifest import Artefact, Manifest
from yolact_runtime.reporter import SILENT, Reporter
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["ExistingBundle", "ExtendedBundle"]

Finish = Callable[[Manifest, Path], None]
# Of a golden frame, while others add networks.
_MAX_DRAWINGS = 3
_NETWORK, _MASK_IOU = network_name("fp32"), "mask_iou.fp32.onnx"


@dataclass(frozen=True, eq=False)
class ExtendedBundle:
    """A bundle with its new networks.

    Attributes:
        manifest: As written.
        precisions: The networks that were made, and the float32 one.
        report: What was found about them.
        removed: Files that were made of networks which are no longer there.
    """

    manifest: Manifest
    precisions: PrecisionResult
    report: Mapping[str, Any]
    removed: tuple[str, ...]


class ExistingBundle:
    """A bundle whose float32 network is the one that its manifest describes.

    Args:
        path: The folder.

    Raises:
        BundleError: There is no float32 network, it or the mask-IoU network is damaged, or the report is no JSON.
        ManifestError: The manifest cannot be understood, or is of another release.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # "." and links have no name of their own that a finished folder could take.
        self._place = path.resolve()
        self.manifest = read_manifest(path)
        network = self.manifest.artefacts.get(_NETWORK)
        if network is None or network.role != NETWORK_ROLE:
            there = sorted({a.precision for a in self.manifest.artefacts.values() if a.role == NETWORK_ROLE})
            raise BundleError(
                f"{path} has no {_NETWORK}, of which other precisions are made (its networks: "
                f"{', '.join(there) or 'none'}); export the checkpoint again: yolact-export CHECKPOINT.pth --int8 "
                f"--calib DIR"
            )
        self._sources = {_NETWORK: network}
        if self.manifest.mask_rescoring:
            if _MASK_IOU not in self.manifest.artefacts:
                raise BundleError(f"{path} is a YOLACT++ bundle without {_MASK_IOU}; export the checkpoint again")
            self._sources[_MASK_IOU] = self.manifest.artefacts[_MASK_IOU]
        # The golden frame will speak for all of them.
        if path.is_mount():
            raise BundleError(
                f"{path} is a mount point, and a bundle is replaced in one step: mount the folder that it lies in"
            )
        self._check(path, {**_networks_of(self.manifest), **self._sources})
        self._report = _read_report(path / REPORT_NAME)

    def require_sound(self, num_threads: int = 0) -> None:
        """Compare the float32 network with the manifest, and with the golden frame where the bundle has one.

        What is made of a network is judged by the manifest, so a manifest that was changed would spread.

        Raises:
            SelfTestError: They differ.
            BackendError: The network does not run.
        """
        options = SegmenterOptions(num_threads=num_threads)
        with Segmenter.open(self.path, "onnxruntime-cpu", options, "fp32") as segmenter:
            try:
                segmenter.self_test()
            except NoGoldenFrameError:
                segmenter.compare_manifests()

    def extend(
        self,
        add_networks: Callable[[Path, Manifest], tuple[PrecisionResult, dict[str, Any]]],
        bit_depth: int | None = None,
        finish: Finish = lambda *_: None,
        reporter: Reporter = SILENT,
    ) -> ExtendedBundle:
        """Make networks and put them into the bundle, all at once at the end.

        An earlier network of a precision that was made is replaced; one of a precision that was rejected stays, unless
        it is the very network that was rejected. Engines of networks that are gone are removed, and so is a signature.

        Args:
            add_networks: Makes them in a folder with the float32 network; also returns their part of the report.
            bit_depth: What the images had that were used, for the manifest to state; None leaves what it states.
            finish: Receives the manifest of the bundle that is replaced, and the folder that takes its place, complete
                but for a signature.
            reporter: Gets a line for whatever is removed.

        Raises:
            BundleError: The float32 network was exchanged meanwhile. The bundle is as it was, as after any error.
        """
        with ExitStack() as held, staged_folder(self._place) as folder:
            for name, artefact in self._sources.items():
                self._bring(name, artefact, folder)
            result, report = add_networks(folder, replace(self.manifest, precision="fp32", artefacts={}))
            # From here until the new bundle is in its place nobody else changes this one.
            held.enter_context(locked_folder(self._place))
            golden, now = self._draw_golden(folder, result, reporter)
            manifest, gone = _with_networks(now, result)
            others = {name: artefact for name, artefact in manifest.artefacts.items() if name != GOLDEN_NAME}
            manifest = replace(manifest, artefacts={**others, GOLDEN_NAME: golden})
            if bit_depth is not None:
                manifest = replace(manifest, input=replace(manifest.input, bit_depth=bit_depth))
            carry_over(self._place, folder, {MANIFEST_NAME, *SIGNATURE_NAMES, *gone, *_old_rejects(result)})
            put_manifest(folder, manifest)
            document = {**self._report, **self._earlier_documents(result), "precision": report}
            write_atomically(folder / REPORT_NAME, (json.dumps(document, indent=2) + "\n").encode())
            finish(now, folder)
        for name in gone:
            reporter.say(f"{name} is removed: the network that it was made of is no longer there")
        return ExtendedBundle(manifest, result, report, gone)

    def _draw_golden(self, folder: Path, result: PrecisionResult, reporter: Reporter) -> tuple[Artefact, Manifest]:
        """A golden frame that knows every network which the bundle will have; and the bundle's manifest as it is now.

        Others may have built engines or added networks while the search ran. On a file system without locks they may
        do so while the frame is drawn, too.
        """
        now = read_manifest(self.path)
        for _ in range(_MAX_DRAWINGS):
            self._require_same(now)
            manifest, _ = _with_networks(now, result)
            made = {network_name(variant.precision) for variant in result.variants if variant.passed}
            for name in {*_networks_of(manifest)} - made:
                (folder / name).unlink(missing_ok=True)
                self._bring(name, manifest.artefacts[name], folder)
            golden = write_golden(folder, manifest, reporter).artefacts[GOLDEN_NAME]
            before, now = now, read_manifest(self.path)
            if _networks_of(before) == _networks_of(now):
                return golden, now
        raise BundleError(f"{self.path} got other networks again and again; it is left as it is: start again")

    def _require_same(self, now: Manifest) -> None:
        """The manifest that networks were made by speaks of the bundle that gets them."""
        if any(now.artefacts.get(name) != artefact for name, artefact in self._sources.items()):
            found = "another float32 network"
        elif replace(now, artefacts={}) != replace(self.manifest, artefacts={}):
            found = "another manifest"
        else:
            return
        raise BundleError(f"{self.path} got {found} while this one was looked at; it is left as it is: start again")

    def _bring(self, name: str, artefact: Artefact, folder: Path) -> None:
        """Copy a network. A link would be the same file still, which its owner may change once it was compared."""
        shutil.copy2(artefact_path(self.path, name), folder / name)
        self._check(folder, {name: artefact})

    def earlier_rows(self, result: PrecisionResult) -> list[dict[str, Any]]:
        """Rows of earlier reports on networks that stay beside new ones, each with what it was judged by."""
        replaced = {"fp32", *_superseded(self.manifest, result)}
        listed = {a.precision for a in self.manifest.artefacts.values() if a.role == NETWORK_ROLE} - replaced
        rows: dict[str, dict[str, Any]] = {}
        for document in self._earlier():
            measure = (document.get("guard") or {}).get("measure")
            for row in document.get("variants") or ():
                if row.get("precision") in listed and row.get("verdict") != "rejected":
                    rows.setdefault(row["precision"], {**row, "measure": measure})
        return list(rows.values())

    def _earlier(self) -> list[dict[str, Any]]:
        """Precision parts of the report as it is, the newest first."""
        return [part for part in (self._report.get("precision"), *self._report.get("earlier_precisions", ())) if part]

    def _earlier_documents(self, result: PrecisionResult) -> dict[str, Any]:
        stay = {row["precision"] for row in self.earlier_rows(result)}
        kept = [
            document
            for document in self._earlier()
            if stay & {row.get("precision") for row in document.get("variants") or ()}
        ]
        return {"earlier_precisions": kept}

    def _check(self, folder: Path, artefacts: Mapping[str, Artefact]) -> None:
        for name, artefact in artefacts.items():
            if file_sha256(artefact_path(folder, name)) != artefact.sha256:
                raise BundleError(
                    f"{self.path / name} is not the file that the manifest describes, and nothing is made of it; copy "
                    f"the folder again, or export the checkpoint again"
                )


def _networks_of(manifest: Manifest) -> dict[str, Artefact]:
    return {name: artefact for name, artefact in manifest.artefacts.items() if artefact.role == NETWORK_ROLE}


def _superseded(manifest: Manifest, result: PrecisionResult) -> list[str]:
    """Precisions whose earlier network goes, made anew or rejected as it is; in the order of the result."""
    gone = []
    for variant in result.variants[1:]:
        earlier = manifest.artefacts.get(network_name(variant.precision))
        if variant.passed or (earlier is not None and earlier.sha256 == file_sha256(variant.path)):
            gone.append(variant.precision)
    return gone


def _with_networks(manifest: Manifest, result: PrecisionResult) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest with new networks, and names of files that were made of networks which are gone."""
    artefacts = dict(manifest.artefacts)
    changed = set()
    for precision in _superseded(manifest, result):
        variant = next(variant for variant in result.variants if variant.precision == precision)
        name, sha256 = network_name(precision), file_sha256(variant.path)
        if not variant.passed:
            del artefacts[name]
            changed.add(precision)
            continue
        if name not in artefacts or artefacts[name].sha256 != sha256:
            changed.add(precision)
        size = variant.path.stat().st_size
        artefacts[name] = Artefact(NETWORK_ROLE, precision, sha256, size, dtypes=variant.dtypes)
    stale = tuple(name for name, a in artefacts.items() if a.role == ENGINE_ROLE and a.precision in changed)
    gone = (*stale, *(name for name in manifest.artefacts if name not in artefacts))
    return replace(manifest, artefacts={n: a for n, a in artefacts.items() if n not in gone}), gone


def _old_rejects(result: PrecisionResult) -> set[str]:
    """Rejected files of earlier attempts at the same precisions."""
    names = (network_name(variant.precision) for variant in result.variants[1:])
    return {name.removesuffix(".onnx") + REJECTED_SUFFIX for name in names}


def _read_report(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        document = read_json(path, allow_nan=True)  # what others wrote is carried over as it is
    except TextError as error:
        raise BundleError(f"cannot read {path}, which would be replaced: {error}; move it away") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path} holds no JSON object and would be replaced; move it away")
    earlier = document.get("earlier_precisions", [])
    parts = [document.get("precision"), *earlier] if isinstance(earlier, list) else [earlier]
    if not all(part is None or _is_part(part) for part in parts):
        raise BundleError(f"{path} is not a report of yolact-export in what it says of precisions; move it away")
    return document


def _is_part(part: object) -> bool:
    """What a report says of precisions, as far as it is read here."""
    if not isinstance(part, dict) or not isinstance(part.get("guard"), dict | None):
        return False
    rows = part.get("variants", [])
    return isinstance(rows, list) and all(
        isinstance(row, dict) and all(isinstance(row.get(name), str | None) for name in ("precision", "verdict"))
        for row in rows
    )
