"""Files of observations: histograms, and the digests of the frames that they contain."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.histogram import NUM_BINS, Histogram
from yolact_calibration.quantisation.observer import Observation
from yolact_plugins.files import write_atomically
from yolact_plugins.text import decode_json

__all__ = ["read_observation", "write_observation"]

Array = npt.NDArray[Any]


def write_observation(path: Path, key: str, seen: Observation) -> None:
    """Replace the whole file atomically, so that a killed process leaves the earlier one.

    Args:
        path: Path of the file, in an existing folder.
        key: Identifier of the observation, which reading compares.
        seen: Observation to write; not modified.

    Raises:
        OSError: The file cannot be written.
    """
    histograms = seen.histograms.values()
    bins = [np.flatnonzero(histogram.counts) for histogram in histograms]
    document = {"key": key, "names": list(seen.histograms), "digests": sorted(seen.digests)}
    content = io.BytesIO()
    # Only occupied bins: a tenth of all.
    np.savez(
        content,
        document=np.frombuffer(json.dumps(document).encode(), np.uint8),
        lengths=np.array([len(found) for found in bins], np.int64),
        bins=np.concatenate([np.zeros(0, np.int64), *bins]).astype(np.uint16),
        counts=np.concatenate([np.zeros(0, np.int64), *(h.counts[b] for h, b in zip(histograms, bins, strict=True))]),
        ends=np.array([(histogram.low, histogram.high) for histogram in histograms], np.float64).reshape(-1, 2),
    )
    write_atomically(path, content.getvalue())


def read_observation(path: Path, key: str) -> Observation | None:
    """Read an observation; return None if there is no such file.

    Raises:
        CalibrationError: The file is damaged, or contains another observation.
    """
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            document = decode_json(bytes(file["document"]), "its document")
            arrays = [file[name] for name in ("lengths", "bins", "counts", "ends")]
        if document["key"] != key:
            raise ValueError("it holds another calibration")  # noqa: TRY301 - one message for all errors
        return Observation(_histograms(document["names"], *arrays), set(document["digests"]))
    except Exception as error:  # numpy.load raises nearly anything for a damaged file
        raise CalibrationError(f"{path} is damaged ({error})") from error


def _histograms(names: list[str], lengths: Array, bins: Array, counts: Array, ends: Array) -> dict[str, Histogram]:
    starts = np.cumsum(lengths) - lengths
    found = {}
    for name, start, length, (low, high) in zip(names, starts, lengths, ends, strict=True):
        part = slice(start, start + length)
        dense = np.zeros(NUM_BINS, np.int64)
        dense[bins[part]] = counts[part]
        found[name] = Histogram(dense, float(low), float(high))
    return found
