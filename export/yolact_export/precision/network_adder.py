"""Networks in other precisions for a bundle's folder, with the report and the page on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolact_calibration.precision.network_maker import PrecisionRequest
from yolact_calibration.report.precision_report import draw_precision_report
from yolact_calibration.report.provenance import provenance
from yolact_export.bundle_writer import REPORT_PAGE_NAME
from yolact_export.precision.document import measure_latencies, precision_document
from yolact_export.precision.precision import PrecisionResult, add_precisions
from yolact_plugins.files import write_atomically
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["network_adder"]


def network_adder(
    request: PrecisionRequest,
    command: str,
    earlier_rows: Callable[[PrecisionResult], Sequence[Mapping[str, Any]]] = lambda _: (),
    reporter: Reporter = SILENT,
) -> Callable[[Path, Manifest], tuple[PrecisionResult, dict[str, Any]]]:
    """Return a function that adds the networks to a folder with the float32 one, and writes their report page.

    Args:
        request: The networks and images.
        command: The call or command line, for the report.
        earlier_rows: Function from the new networks to the rows of an earlier report on networks that stay.
        reporter: Receives progress.
    """

    def add(folder: Path, manifest: Manifest) -> tuple[PrecisionResult, dict[str, Any]]:
        result = add_precisions(folder, manifest, request, reporter)
        latency_ms = measure_latencies(result, manifest, request.num_threads)
        document = precision_document(result, request, manifest, latency_ms)
        document["made"] = provenance(command, _page_files(manifest))
        if earlier := list(earlier_rows(result)):
            document["earlier"] = earlier
        write_atomically(folder / REPORT_PAGE_NAME, draw_precision_report(document).encode())
        # The pictures are in the page; as JSON they would only be in the way.
        without = [
            {key: value for key, value in row.items() if key not in {"reference", "candidate"}}
            for row in document["worst_images"]
        ]
        return result, {**document, "worst_images": without}

    return add


def _page_files(manifest: Manifest) -> list[dict[str, str]]:
    """Return the source that the page names: the checkpoint of all networks, or the model if none is known."""
    found = manifest.provenance
    name, digest = found.get("checkpoint", manifest.name), found.get("checkpoint_sha256", "")
    return [{"role": "Checkpoint" if "checkpoint" in found else "Model", "name": name, "sha256": digest}]
