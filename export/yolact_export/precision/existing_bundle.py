"""Networks of other precisions, added to a bundle from its own float32 network, without a checkpoint or PyTorch.

The network is the one that an export verified, so the results are those of that export. The bundle is replaced in one
step at the end; everything that is not rewritten stays unchanged.
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
# Maximum number of golden frames drawn while other processes add networks.
_MAX_DRAWINGS = 3
_NETWORK, _MASK_IOU = network_name("fp32"), "mask_iou.fp32.onnx"


@dataclass(frozen=True, eq=False)
class ExtendedBundle:
    """Bundle with its new networks.

    Attributes:
        manifest: Manifest as it was written.
        precisions: New networks, and the float32 one.
        report: Findings about them, a JSON object.
        removed: Files that were derived from networks that no longer exist.
    """

    manifest: Manifest
    precisions: PrecisionResult
    report: Mapping[str, Any]
    removed: tuple[str, ...]


class ExistingBundle:
    """Bundle whose float32 network is the one that its manifest describes.

    Args:
        path: Folder of the bundle.

    Raises:
        BundleError: There is no float32 network, it or the mask-IoU network is damaged, or the report is not JSON.
        ManifestError: The manifest is invalid, or of another release.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # "." and links are not names that a finished folder could take.
        self._place = path.resolve()
        self.manifest = read_manifest(path)
        network = self.manifest.artefacts.get(_NETWORK)
        if network is None or network.role != NETWORK_ROLE:
            there = sorted({a.precision for a in self.manifest.artefacts.values() if a.role == NETWORK_ROLE})
            raise BundleError(
                f"{path} has no {_NETWORK}, from which other precisions are derived (its networks: "
                f"{', '.join(there) or 'none'}); export the checkpoint again: yolact-export CHECKPOINT.pth --int8 "
                f"--calib DIR"
            )
        self._sources = {_NETWORK: network}
        if self.manifest.mask_rescoring:
            if _MASK_IOU not in self.manifest.artefacts:
                raise BundleError(f"{path} is a YOLACT++ bundle without {_MASK_IOU}; export the checkpoint again")
            self._sources[_MASK_IOU] = self.manifest.artefacts[_MASK_IOU]
        # The golden frame will cover all networks.
        if path.is_mount():
            raise BundleError(
                f"{path} is a mount point, and a bundle is replaced in one step: mount the folder that it lies in"
            )
        self._check(path, {**_networks_of(self.manifest), **self._sources})
        self._report = _read_report(path / REPORT_NAME)

    def require_sound(self, num_threads: int = 0) -> None:
        """Compare the float32 network with the manifest, and with the golden frame if the bundle has one.

        Networks derived from it are judged by the manifest, so a modified manifest would affect all of them.

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
        """Create networks and add them to the bundle, all at once at the end.

        An earlier network of a new precision is replaced; one of a rejected precision stays, unless it is identical to
        the rejected network. Engines of removed networks are removed, and so is a signature.
        it is the very network that was rejected. Engines of networks that are gone are removed, and so is a signature.

        Args:
            add_networks: Function that creates them in a folder with the float32 network, and also returns their part
                of the report.
            bit_depth: Significant bits of the images that were used, for the manifest; None does not change it.
            finish: Function that receives the manifest of the replaced bundle, and the folder that takes its place,
                complete except for a signature.
            reporter: Reporter that receives a line for each removed file.

        Raises:
            BundleError: Another process replaced the float32 network. The bundle is unchanged, as after any error.
        """
        with ExitStack() as held, staged_folder(self._place) as folder:
            for name, artefact in self._sources.items():
                self._bring(name, artefact, folder)
            result, report = add_networks(folder, replace(self.manifest, precision="fp32", artefacts={}))
            # From here until the new bundle is in its place no other process changes this one.
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
            reporter.say(f"{name} is removed: the network that it was derived from no longer exists")
        return ExtendedBundle(manifest, result, report, gone)

    def _draw_golden(self, folder: Path, result: PrecisionResult, reporter: Reporter) -> tuple[Artefact, Manifest]:
        """Draw a golden frame for every network that the bundle will have; also return the bundle's current manifest.

        Other processes may have built engines or added networks during the search. On a file system without locks they
        may do so while the frame is drawn, too.
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
        raise BundleError(f"{self.path} was changed repeatedly by other processes; nothing was written: run this again")

    def _require_same(self, now: Manifest) -> None:
        """Check that the manifest by which networks were created still describes the bundle."""
        if any(now.artefacts.get(name) != artefact for name, artefact in self._sources.items()):
            found = "another float32 network"
        elif replace(now, artefacts={}) != replace(self.manifest, artefacts={}):
            found = "another manifest"
        else:
            return
        raise BundleError(f"{self.path} got {found} from another process; nothing was written: run this again")

    def _bring(self, name: str, artefact: Artefact, folder: Path) -> None:
        """Copy a network. A link would still be the same file, which its owner may change after the comparison."""
        shutil.copy2(artefact_path(self.path, name), folder / name)
        self._check(folder, {name: artefact})

    def earlier_rows(self, result: PrecisionResult) -> list[dict[str, Any]]:
        """Return the rows of earlier reports on networks that stay, each with the measure by which it was judged."""
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
        """Return the precision parts of the report, the newest first."""
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
                    f"{self.path / name} is not the file that the manifest describes, so it is not used; copy "
                    f"the folder again, or export the checkpoint again"
                )


def _networks_of(manifest: Manifest) -> dict[str, Artefact]:
    return {name: artefact for name, artefact in manifest.artefacts.items() if artefact.role == NETWORK_ROLE}


def _superseded(manifest: Manifest, result: PrecisionResult) -> list[str]:
    """List precisions whose earlier network is replaced, or is identical to a rejected one; in the result's order."""
    gone = []
    for variant in result.variants[1:]:
        earlier = manifest.artefacts.get(network_name(variant.precision))
        if variant.passed or (earlier is not None and earlier.sha256 == file_sha256(variant.path)):
            gone.append(variant.precision)
    return gone


def _with_networks(manifest: Manifest, result: PrecisionResult) -> tuple[Manifest, tuple[str, ...]]:
    """Return the manifest with new networks, and the names of files derived from removed networks."""
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
    """Return the names of rejected files of earlier attempts at the same precisions."""
    names = (network_name(variant.precision) for variant in result.variants[1:])
    return {name.removesuffix(".onnx") + REJECTED_SUFFIX for name in names}


def _read_report(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        document = read_json(path, allow_nan=True)  # content of other programs is kept unchanged
    except TextError as error:
        raise BundleError(f"cannot read {path}, which would be replaced: {error}; move it away") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path} is not a JSON object and would be replaced; move it away")
    earlier = document.get("earlier_precisions", [])
    parts = [document.get("precision"), *earlier] if isinstance(earlier, list) else [earlier]
    if not all(part is None or _is_part(part) for part in parts):
        raise BundleError(f"{path} is not a report of yolact-export: its precisions are invalid; move it away")
    return document


def _is_part(part: object) -> bool:
    """Return whether a value is a report's part about precisions, as far as this module reads it."""
    if not isinstance(part, dict) or not isinstance(part.get("guard"), dict | None):
        return False
    rows = part.get("variants", [])
    return isinstance(rows, list) and all(
        isinstance(row, dict) and all(isinstance(row.get(name), str | None) for name in ("precision", "verdict"))
        for row in rows
    )
