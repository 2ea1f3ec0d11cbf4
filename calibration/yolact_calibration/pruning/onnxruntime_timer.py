"""Times of single convolutions on ONNX Runtime's CPU provider.

Each layer becomes a graph of its own, a convolution with its ReLU. ONNX Runtime keeps the feature maps of successive
convolutions in a blocked layout; a single convolution pays for the conversion to that layout and back. The profiler's
time of the convolution alone is therefore used, not the time of the whole run.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import MissingDependencyError, PruningError
from yolact_calibration.pruning.layer_shape import LayerShape
from yolact_plugins.staging import scratch_folder
from yolact_runtime.backends.onnxruntime_session import SessionSettings, end_profile, open_cpu_session

__all__ = ["OnnxRuntimeTimer"]

# Versions in graphs of yolact_export; DeformConv was added later.
_OPSET, _OPSET_DEFORM_CONV, _IR_VERSION = 17, 19, 9
# Memory limit of layers that are timed together: usually all widths of one layer.
_BYTES_AT_ONCE = 500_000_000


class OnnxRuntimeTimer:
    """Implementation of :class:`~yolact_calibration.pruning.latency.LayerTimer`.

    Args:
        num_threads: Number of threads of a run, as on the robot.
        repeats: Number of timed runs of each layer, of which the fastest counts: disturbances only make a run longer.
        warm_up: Number of runs before.

    Raises:
        MissingDependencyError: onnx or ONNX Runtime is not installed.
    """

    def __init__(self, num_threads: int = 1, repeats: int = 7, warm_up: int = 2) -> None:
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError("onnx and onnxruntime", "Measuring layers", "train") from error
        if num_threads < 1 or repeats < 1 or warm_up < 0:
            raise PruningError(
                f"num_threads and repeats must be at least 1 and warm_up 0; found {num_threads}, {repeats}, {warm_up}"
            )
        self._onnx: Any = onnx
        self._ort: Any = onnxruntime
        self.num_threads = num_threads
        self.repeats = repeats
        self.warm_up = warm_up

    @property
    def backend(self) -> str:
        """Name of the library, version, processor and threads."""
        threads = f"{self.num_threads} thread{'s' if self.num_threads > 1 else ''}"
        return f"ONNX Runtime {self._ort.__version__} CPU, {_processor()}, {threads}"

    def times_ms(self, layers: Sequence[LayerShape]) -> list[float]:
        """Return the least milliseconds of each layer; interleaved runs expose all layers to the same noise."""
        times: list[float] = []
        for some in _portions(layers):
            times += self._time_some(some)
        return times

    def _time_some(self, layers: Sequence[LayerShape]) -> list[float]:
        with scratch_folder("layers") as folder:
            sessions = [self._session(layer, folder / str(index)) for index, layer in enumerate(layers)]
            feeds = [_feed(layer) for layer in layers]
            for _ in range(self.warm_up + self.repeats):
                for session, feed in zip(sessions, feeds, strict=True):
                    session.run(None, feed)
            return [self._least_ms(end_profile(session)) for session in sessions]

    def _session(self, layer: LayerShape, profile: Path) -> Any:
        settings = SessionSettings(self.num_threads, profile=profile)
        return open_cpu_session(self._graph(layer).SerializeToString(), settings)

    def _graph(self, layer: LayerShape) -> Any:
        helper, numpy_helper = self._onnx.helper, self._onnx.numpy_helper
        kernel = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
        generator = np.random.default_rng(0)
        constants = {
            "w": generator.normal(size=kernel).astype(np.float32) / np.sqrt(np.prod(kernel[1:])),
            "b": generator.normal(size=layer.out_channels).astype(np.float32),
        }
        names = ["x", "w", "offset", "b", "mask"] if layer.deformable else ["x", "w", "b"]
        kind = "DeformConv" if layer.deformable else "Conv"
        attributes: dict[str, Any] = {"strides": layer.stride, "pads": _pads(layer), "kernel_shape": layer.kernel_size}
        # A depthwise layer with one channel is an ordinary convolution.
        attributes["group"] = layer.groups
        nodes = [
            helper.make_node(kind, names, ["y"], **attributes),
            helper.make_node("Relu", ["y"], ["z"]),
        ]
        infos = [helper.make_tensor_value_info(name, 1, value.shape) for name, value in _feed(layer).items()]
        output = helper.make_tensor_value_info("z", 1, (1, layer.out_channels, *layer.out_size))
        initialisers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
        graph = helper.make_graph(nodes, "layer", infos, [output], initialisers)
        opset = _OPSET_DEFORM_CONV if layer.deformable else _OPSET
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION, producer_name="yolact-deploy"
        )

    def _least_ms(self, events: Iterable[dict[str, Any]]) -> float:
        """Return the least time of the nodes in a session's profile, without those that only change the layout."""
        durations: dict[str, list[float]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                durations.setdefault(event["args"]["op_name"], []).append(event["dur"] / 1e3)
        work = [times[self.warm_up :] for name, times in durations.items() if not name.startswith("Reorder")]
        if not work or any(len(times) != self.repeats for times in work):
            raise PruningError(
                f"ONNX Runtime {self._ort.__version__} profiled {sorted(durations)} and not one convolution for each "
                f"of {self.repeats} runs; measure with another version"
            )
        return sum(min(times) for times in work)


def _portions(layers: Sequence[LayerShape]) -> Iterator[list[LayerShape]]:
    """Yield the layers in order, in lists that fit into memory together."""
    portion: list[LayerShape] = []
    room = _BYTES_AT_ONCE
    for layer in layers:
        size = 4 * (
            2 * layer.in_channels * math.prod(layer.in_size) + 3 * layer.out_channels * math.prod(layer.out_size)
        )
        if portion and size > room:
            yield portion
            portion, room = [], _BYTES_AT_ONCE
        portion.append(layer)
        room -= size
    if portion:
        yield portion


def _feed(layer: LayerShape) -> dict[str, npt.NDArray[np.float32]]:
    """Create inputs without denormal values, which would be slow."""
    generator = np.random.default_rng(1)
    feed = {"x": generator.normal(size=(1, layer.in_channels, *layer.in_size)).astype(np.float32)}
    if layer.deformable:
        taps = layer.kernel_size[0] * layer.kernel_size[1]
        feed["offset"] = generator.normal(size=(1, 2 * taps, *layer.out_size)).astype(np.float32)
        feed["mask"] = generator.uniform(size=(1, taps, *layer.out_size)).astype(np.float32)
    return feed


def _pads(layer: LayerShape) -> tuple[int, int, int, int]:
    """Return the padding (top, left, bottom, right) for the two sizes. The side of the odd pixel does not matter."""
    pads = []
    for size, out, kernel, stride in zip(layer.in_size, layer.out_size, layer.kernel_size, layer.stride, strict=True):
        total = max((out - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = pads
    return top, left, bottom, right


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()
