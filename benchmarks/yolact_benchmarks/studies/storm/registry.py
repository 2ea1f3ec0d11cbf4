"""All campaigns by name, and how many tries each makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from yolact_benchmarks.studies.storm.attempt import Campaign
from yolact_benchmarks.studies.storm.campaigns import (
    checkpoints,
    concurrency,
    disks,
    kills,
    labels,
    manifests,
    numbers,
    onnx_files,
    options,
    pictures,
    plans,
    signatures,
    soak,
    videos,
)

__all__ = ["CAMPAIGNS", "num_tries"]

CAMPAIGNS: dict[str, Campaign] = {
    module.CAMPAIGN.name: module.CAMPAIGN
    for module in (
        checkpoints, manifests, onnx_files, pictures, videos, labels, options, plans, signatures, kills, disks,
        concurrency, soak, numbers,
    )
}  # fmt: skip


def num_tries(names: Iterable[str], total: int) -> Iterator[tuple[str, int]]:
    """How many tries each of some campaigns makes: by their shares, and one at least."""
    chosen = [CAMPAIGNS[name] for name in names]
    shares = sum(campaign.share for campaign in chosen)
    for campaign in chosen:
        yield campaign.name, max(round(total * campaign.share / shares), 1)
