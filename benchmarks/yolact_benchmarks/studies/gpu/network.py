"""Stage ``network``: whole frames with the project's own model in PyTorch as their network; a row for each frame size.

It runs on every GPU, also on those that no engine supports. It times the network alone as a CUDA graph, and whole
frames.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolact_benchmarks.measure.gpu_stages import time_calls, time_replays
from yolact_benchmarks.studies.gpu.frames import SIZES, frame_options
from yolact_benchmarks.studies.gpu.stage_options import NOT_MEASURED, Scale, open_device, stage_parser
from yolact_calibration.shapes.scene import SceneOptions, make_scene
from yolact_plugins.driver.gpu import find_gpu
from yolact_plugins.errors import CudaUnavailableError
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from yolact_benchmarks.studies.gpu.torch_network import TorchNetwork
    from yolact_runtime.model.manifest import Manifest

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Measure the checkpoints, write rows, and return the exit status; PyTorch without CUDA is not measured."""
    parser = stage_parser("network", __doc__)
    parser.add_argument("checkpoint", type=Path, nargs="*")
    parser.add_argument(
        "--made-up", type=Path, metavar="FILE", help="also measure YOLACT R-50 with made-up weights, written to FILE"
    )
    parser.add_argument("--compile", action="store_true", help="use torch.compile, which takes minutes")
    options = parser.parse_args(arguments)
    if why_not := _why_not():
        options.rows.write(not_measured=why_not)
        return NOT_MEASURED
    import torch

    torch.backends.cudnn.benchmark = True
    checkpoints = list(options.checkpoint)
    if options.made_up is not None:
        script = Path(__file__).parents[4] / "examples" / "made_up_checkpoint.py"
        subprocess.run([sys.executable, str(script), "yolact_resnet50", str(options.made_up)], check=True)
        checkpoints.append(options.made_up)
    for checkpoint in checkpoints:
        for row in _measure(checkpoint, options.compile, options.scale):
            options.rows.write(checkpoint=checkpoint.name, torch=torch.__version__, compiled=options.compile, **row)
    return 0


def _why_not() -> str:
    """Return the reason why PyTorch cannot run on a GPU here; empty if it can."""
    try:
        find_gpu()
        import torch
    except (CudaUnavailableError, ImportError) as error:
        return str(error)
    return "" if torch.cuda.is_available() else f"PyTorch {torch.__version__} has no CUDA here"


def _measure(checkpoint: Path, compiled: bool, scale: Scale) -> Any:
    import torch

    from yolact_benchmarks.studies.gpu.torch_network import TorchNetwork, manifest_of
    from yolact_export.checkpoint.checkpoint import load_checkpoint

    started = time.perf_counter()
    loaded = load_checkpoint(checkpoint)
    manifest = manifest_of(loaded)
    model: Any = torch.compile(loaded.model) if compiled else loaded.model
    with open_device() as device:
        network = TorchNetwork(device, model, manifest.input.height, manifest.input.width)
        for height, width in SIZES:
            row = _whole_frame(network, manifest, scale.of(height, 64), scale.of(width, 64), scale)
            yield {**row, "ready_s": time.perf_counter() - started}


def _whole_frame(network: TorchNetwork, manifest: Manifest, height: int, width: int, scale: Scale) -> dict[str, Any]:
    frame = make_scene(3, SceneOptions(height, width)).image
    options = frame_options(scale, frame_size=(height, width))
    with Segmenter(manifest, network, None, options) as segmenter:
        path = segmenter.frame_path
        assert isinstance(path, DevicePath)
        call = float(np.median(time_calls(lambda: segmenter(frame), scale.of(100))))
        slot = path.start(frame)
        found = slot.finish()
        row = {"height": height, "width": width, "found": found, "graph": path.uses_graphs, "call_us": call}
        if path.uses_graphs:
            row["network_us"] = time_replays(slot.stream, slot.enqueue_inference, scale.of(50))
            row["whole_us"] = time_replays(slot.stream, slot.enqueue_all, scale.of(50))
        path.give_back(slot)
    return row


if __name__ == "__main__":
    sys.exit(main())
