"""Stage ``growth``: free memory of the GPU and resident memory of the process, before and after ten thousand frames."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np

from yolact_benchmarks.machine.memory import resident_bytes
from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_benchmarks.measure.scenes import make_outputs
from yolact_benchmarks.studies.gpu.frames import frame_options, scaled_manifest
from yolact_benchmarks.studies.gpu.stage_options import open_device, stage_parser
from yolact_runtime.segmenter import Segmenter

__all__ = ["main"]

GPU_LIMIT_BYTES, HOST_LIMIT_BYTES = 8 << 20, 32 << 20
_WARM_UP, _ROWS = 20, 5


def main(arguments: list[str] | None = None) -> int:
    """Run the frames, write rows, and return the exit status: 1 if memory grew."""
    parser = stage_parser("growth", __doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    options = parser.parse_args(arguments)
    scale, frames = options.scale, options.scale.of(options.frames)
    manifest = scaled_manifest(scale)
    outputs = make_outputs(scale.of(20), 0.025, 1, manifest)
    frame = np.zeros((scale.of(720, 24), scale.of(1280, 32), 3), np.uint8)
    with open_device() as device:
        network = ReplayNetwork(device, manifest, outputs)
        options_ = dataclasses.replace(frame_options(scale), frames_in_flight=2)
        with Segmenter(manifest, network, None, options_) as segmenter:
            for _ in range(scale.of(_WARM_UP, 4)):
                segmenter(frame)
            before = device.memory_bytes()[0], resident_bytes()
            for done, _ in enumerate(segmenter.stream(frame for _ in range(frames)), 1):
                if done % max(frames // _ROWS, 1) == 0 or done == frames:
                    now = device.memory_bytes()[0], resident_bytes()
                    lost, grown = before[0] - now[0], now[1] - before[1]
                    options.rows.write(frames=done, gpu_bytes_lost=lost, host_bytes_grown=grown)
    if lost > GPU_LIMIT_BYTES or grown > HOST_LIMIT_BYTES:
        print(f"memory grew over {frames} frames: {lost} bytes on the GPU, {grown} bytes on the host", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
