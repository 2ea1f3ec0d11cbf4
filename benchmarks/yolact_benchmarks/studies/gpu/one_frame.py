"""One frame of 100 objects and one of a single large object, kernel by kernel: what the profiler ``ncu`` looks at."""

from __future__ import annotations

import sys

import numpy as np

from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_benchmarks.measure.scenes import make_outputs
from yolact_benchmarks.studies.gpu.frames import frame_options, scaled_manifest
from yolact_benchmarks.studies.gpu.stage_options import open_device, stage_parser
from yolact_runtime.segmenter import Segmenter

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Each scene runs once: a second frame would be a graph, whose kernels are not told apart."""
    options = stage_parser("one_frame", __doc__).parse_args(arguments)
    scale = options.scale
    manifest = scaled_manifest(scale)
    shape = scale.of(1080, 24), scale.of(1920, 32), 3
    frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with open_device() as device:
        for count, area in ((scale.of(100), 0.025), (1, 0.45)):
            outputs = make_outputs(count, area, count, manifest)
            network = ReplayNetwork(device, manifest, outputs)
            with Segmenter(manifest, network, None, frame_options(scale)) as segmenter:
                print(f"{count} objects of {area}: {len(segmenter(frame))} found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
