"""A frame of 100 objects and a frame of a single large object, kernel by kernel, for the profiler ``ncu``."""

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
    """Run each scene once and return the exit status.

    A second frame would be launched as a graph, in which the profiler does not distinguish kernels.
    """
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
