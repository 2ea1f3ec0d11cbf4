"""All campaigns by name, and the number of tries of each."""

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
    """Yield the number of tries of each given campaign, according to the shares, at least one."""
    chosen = [CAMPAIGNS[name] for name in names]
    shares = sum(campaign.share for campaign in chosen)
    for campaign in chosen:
        yield campaign.name, max(round(total * campaign.share / shares), 1)
