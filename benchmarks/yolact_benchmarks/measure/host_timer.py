"""Times of frames and of their stages for a segmenter whose network leaves its outputs in host memory.

The whole frame is timed through :class:`yolact_runtime.segmenter.Segmenter` itself. Its backend is wrapped to note when
the network begins and ends: what comes before is preprocessing, what comes after is post-processing. The shares of the
post-processing stages come from a second pass over the same outputs, after the frame, because the segmenter itself does
not time them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.measure.planted import PlantedBackend, planted_outputs
from yolact_benchmarks.measure.stages import CANDIDATES, MASK_IOU, MASKS, NETWORK, NMS, PREPROCESS, FrameTimes, Stage
from yolact_runtime.backends import Backend, create_backend
from yolact_runtime.cpu.mask_assembly import assemble_masks
from yolact_runtime.cpu.nms import find_candidates, select
from yolact_runtime.cpu.postprocess import Postprocessor, decode
from yolact_runtime.model.bundle import Bundle
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["HostModel", "HostTimer"]

Array = npt.NDArray[np.floating]
_SPLIT = (CANDIDATES.name, NMS.name, MASKS.name)


class _Tap:
    """A backend that notes when it ran and what it returned. Closing it leaves the backend open."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self._backend = backend
        self.begun = self.ended = 0.0
        self.outputs: Mapping[str, Array] = {}

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, Array]:
        self.begun = time.perf_counter()
        self.outputs = self._backend.infer(tensor)
        self.ended = time.perf_counter()
        return self.outputs

    def close(self) -> None:
        """Do nothing: the backend belongs to the model."""


class HostTimer:
    """A :class:`~yolact_benchmarks.measure.stages.FrameTimer` for frames on the CPU; see the module.

    Args:
        bundle: Bundle that was opened.
        network: Backend of the bundle's network, or a stand-in.
        mask_iou: Backend of the mask-IoU network of YOLACT++, or None.
        options: Options of the segmenter.
    """

    def __init__(self, bundle: Bundle, network: Backend, mask_iou: Backend | None, options: SegmenterOptions) -> None:
        self._network = _Tap(network)
        self._mask_iou = None if mask_iou is None else _Tap(mask_iou)
        self.segmenter = Segmenter(bundle.manifest, self._network, self._mask_iou, options)
        self._postprocess = Postprocessor.of(bundle.manifest, options.nms_settings(bundle.manifest))
        self._crop_margin = options.crop_margin
        rescoring = () if mask_iou is None else (MASK_IOU,)
        self.stages: tuple[Stage, ...] = (PREPROCESS, NETWORK, CANDIDATES, NMS, MASKS, *rescoring)

    def time(self, frame: npt.NDArray[np.uint8]) -> FrameTimes:
        """Run one frame and return its times."""
        if self._mask_iou is not None:
            self._mask_iou.begun = self._mask_iou.ended = 0.0
        begun = time.perf_counter()
        instances = self.segmenter(frame)
        ended = time.perf_counter()
        stage = {
            PREPROCESS.name: self._network.begun - begun,
            NETWORK.name: self._network.ended - self._network.begun,
        }
        after = ended - self._network.ended
        if self._mask_iou is not None:
            stage[MASK_IOU.name] = self._mask_iou.ended - self._mask_iou.begun
            after -= stage[MASK_IOU.name]
        shares = self._shares(frame.shape[0], frame.shape[1])
        stage |= {name: after * share for name, share in shares.items()}
        in_order = {one.name: stage[one.name] * 1e3 for one in self.stages}
        return FrameTimes((ended - begun) * 1e3, in_order, len(instances))

    def _shares(self, height: int, width: int) -> dict[str, float]:
        """Return the share of each stage in the time of a second pass over the same outputs."""
        post, outputs = self._postprocess, self._network.outputs
        manifest, settings = post.manifest, post.settings
        times = [time.perf_counter()]
        candidates = find_candidates(outputs["class_logit"][0], settings.score_threshold)
        regression = outputs["box_regression"][0][candidates.prior].astype(np.float32)
        xyxy = decode(regression, post.priors[candidates.prior], manifest.priors.variances)
        times.append(time.perf_counter())
        selection = select(candidates, xyxy, settings, (manifest.input.height, manifest.input.width))
        times.append(time.perf_counter())
        chosen = candidates.prior[selection.candidate]
        coefficient = outputs["mask_coefficient"][0][chosen].astype(np.float32)
        prototype = outputs["prototype"][0].astype(np.float32, copy=False)
        assemble_masks(prototype, coefficient, xyxy[selection.candidate], height, width, self._crop_margin)
        times.append(time.perf_counter())
        return dict(zip(_SPLIT, np.diff(times) / (times[-1] - times[0]), strict=True))


class HostModel:
    """An open model that makes timers for given numbers of instances; the timers share its networks.

    A context manager; its timers end with it.

    Args:
        bundle: Bundle that holds the network's file.
        backend: Key of :data:`yolact_runtime.backends.BACKENDS`.
        options: Options of the segmenters.
        network: Backend to use in place of the bundle's network, closed with the model; None opens the bundle's
            network.
    """

    def __init__(self, bundle: Bundle, backend: str, options: SegmenterOptions, network: Backend | None = None) -> None:
        self.bundle = bundle
        self._options = options
        self._network = network or create_backend(backend, bundle.network, options.num_threads)
        rescores = bundle.mask_iou is not None and options.mask_rescoring
        self._mask_iou = (
            create_backend(backend, bundle.mask_iou, options.num_threads) if rescores and bundle.mask_iou else None
        )

    def timer(self, num_instances: int | None = None) -> HostTimer:
        """Create a timer.

        Args:
            num_instances: Number of instances in every frame; None keeps what the network finds. See
                :mod:`yolact_benchmarks.measure.planted`.

        Raises:
            UsageError: The model cannot return this many instances.
        """
        network = self._network
        if num_instances is not None:
            spec = self.bundle.manifest.input
            like = network.infer(np.zeros((1, 3, spec.height, spec.width), np.float32))
            network = PlantedBackend(network, planted_outputs(self.bundle.manifest, like, num_instances))
        return HostTimer(self.bundle, network, self._mask_iou, self._options)

    def close(self) -> None:
        """Close the networks. May be called again."""
        self._network.close()
        if self._mask_iou is not None:
            self._mask_iou.close()

    def __enter__(self) -> HostModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
