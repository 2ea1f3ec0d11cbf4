"""The kernel launches of one frame with packed arguments, in the order in which they run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.launch import LaunchConfig, ceil_div
from yolact_plugins.driver.module import Launch
from yolact_runtime.cpu.camera_frame import FrameLayout, PixelFormat
from yolact_runtime.cpu.nms import NmsMethod
from yolact_runtime.cuda.device_kernels import DeviceKernels
from yolact_runtime.cuda.frame_memory import FrameMemory
from yolact_runtime.cuda.frame_model import FrameModel
from yolact_runtime.cuda.mask_iou import mask_iou_launches

__all__ = ["FrameLaunches"]

_FORMATS = {
    PixelFormat.BGR: 0,
    PixelFormat.RGB: 1,
    PixelFormat.BGRA: 2,
    PixelFormat.NV12: 3,
    PixelFormat.YUYV: 4,
}
# Arguments of `preprocess` that change with a frame in foreign memory.
_FRAME, _CHROMA, _PITCH, _CHROMA_PITCH = range(4)
_UNLIMITED_WORDS = np.int64(1 << 62)
# Number of other outputs that a block of `candidates_score` checks; and of candidates whose overlaps are kept as bits.
_VALUES_OF_A_BLOCK, _COMPARED = 8192, 1024
# A warp for each strip of a usual frame, and as many writers as keep a bus busy: more would only look for work, which
# costs more than a small frame itself.
_BLOCKS_OF_RUNS, _BLOCKS_OF_RESULTS = 128, 32


class FrameLaunches:
    """Launches for frames of one layout, on the memory of one frame in flight.

    Args:
        kernels: The loaded kernels.
        model: The model that processes the frames.
        memory: Memory that fits the layout; launches contain its pointers.
        constants: Constants of the model on the device: ``prior (P, 4)``, and ``mask_iou_network`` if kernels compute
            it.
        layout: Size and format of the frames.

    Attributes:
        preprocess: Launch that turns a frame in the slot's own memory into the network input.
        preprocess_elsewhere: The same launch for a frame in foreign memory; see :meth:`point_at`.
        detect: Launches from network outputs to detections and the layout of their masks, in order.
        masks: Launches from detections to mask bits and runs, in order.
        rescoring: Launches from masks to their scores (YOLACT++), in order.
        download: The last launch, which copies all results of a frame to host memory.
    """

    def __init__(
        self,
        kernels: DeviceKernels,
        model: FrameModel,
        memory: FrameMemory,
        constants: Mapping[str, DeviceArray],
        layout: FrameLayout,
    ) -> None:
        self._kernels, self._model, self._memory, self._layout = kernels, model, memory, layout
        self._arrays = {**memory.arrays, **constants}
        self.preprocess = self._preprocess()
        self.preprocess_elsewhere = self._preprocess()
        cross = model.settings.method is NmsMethod.CROSS_CLASS
        self.detect = [*self._candidates(), *(self._cross_class() if cross else self._per_class())]
        self.masks = [*self._mask_bits(), *self._runs()]
        self.rescoring = self._rescoring() if model.rescore else []
        self.download = self._results()

    def point_at(self, pointers: tuple[int, ...], pitches: tuple[int, ...]) -> None:
        """Set where `preprocess_elsewhere` reads: planes on the GPU, and the bytes between their rows."""
        arguments = self.preprocess_elsewhere.arguments
        arguments.replace(_FRAME, np.uint64(pointers[0]))
        arguments.replace(_PITCH, np.int64(pitches[0]))
        arguments.replace(_CHROMA, np.uint64(pointers[-1]))
        arguments.replace(_CHROMA_PITCH, np.int64(pitches[-1]))

    def id_map(self, id_map: DeviceArray) -> Launch:
        """Return the launch that draws masks into an ``(H, W)`` int32 map, on demand."""
        height, width = self._layout.height, self._layout.width
        grid = (ceil_div(width, 256), ceil_div(height, 32))
        return self._launch(
            "mask_id_map", grid, 256, *self._held("arena window offset detection_count"), *self._size(), id_map
        )

    def dense(self, dense: DeviceArray) -> Launch:
        """Return the launch that expands masks to ``(n, H, W)`` uint8, on demand."""
        blocks = min(ceil_div(self._layout.width, 256) * ceil_div(self._layout.height, 32), 64)
        names = "arena window offset detection_count"
        return self._launch(
            "mask_dense", (blocks, max(dense.shape[0], 1)), 256, *self._held(names), *self._size(), dense
        )

    def _preprocess(self) -> Launch:
        spec, layout = self._model.manifest.input, self._layout
        tensor = self._model.tensors[self._model.input_name]
        frame, shapes = self._arrays["frame"], layout.plane_shapes
        planes = [np.uint64(frame.pointer), np.uint64(frame.pointer)]
        if len(shapes) == 2:
            planes[1] = np.uint64(frame.pointer + shapes[0][0] * shapes[0][1])
        pitches = np.int64(shapes[0][1]), np.int64(shapes[-1][1])
        numbers = [*spec.mean_bgr, *(1 / std for std in spec.std_bgr)]
        return self._launch(
            "preprocess_f16" if tensor.dtype == np.float16 else "preprocess_f32",
            (ceil_div(spec.width, 32), ceil_div(spec.height, 32)),
            (32, 4),
            *planes,
            *pitches,
            np.int32(_FORMATS[layout.format]),
            *self._size(),
            self._arrays[tensor.name],
            np.int32(spec.height),
            np.int32(spec.width),
            *map(np.float32, numbers),
            np.int32(spec.channel_order == "RGB"),
            *map(np.float32, layout.yuv),
            self._arrays["status"],
        )

    def _candidates(self) -> list[Launch]:
        model = self._model
        variances = map(np.float32, model.manifest.priors.variances)
        sizes = np.int32(model.num_priors), np.int32(model.num_classes + 1)
        prototypes, prototype_size = model.prototype_shape[0], math.prod(model.prototype_shape)
        # Blocks for rows of class logits, and enough further blocks to check the other outputs.
        others = prototype_size + model.num_priors * (prototypes + 4)
        blocks = max(ceil_div(model.num_priors, 64), 1) + max(ceil_div(others, _VALUES_OF_A_BLOCK), 1)
        score = self._launch(
            f"candidates_score_{model.suffix}",
            (blocks,),
            128,
            self._arrays["class_logit"],
            *sizes,
            np.float32(model.settings.score_threshold),
            *self._held("box_regression mask_coefficient prototype"),
            np.int32(prototypes),
            np.int64(prototype_size),
            *self._held("normaliser survivor status"),
        )
        gather = self._launch(
            f"candidates_gather_{model.suffix}",
            (max(ceil_div(model.num_priors, 256), 1),),
            256,
            *self._held("class_logit box_regression prior normaliser survivor"),
            *sizes,
            *variances,
            *self._held("candidate_count candidate_prior candidate_xyxy candidate_score"),
            np.int32(model.num_priors),
            self._arrays["status"],
        )
        return [score, gather]

    def _per_class(self) -> list[Launch]:
        model, settings = self._model, self._model.settings
        common = np.int32(model.num_priors), np.float32(settings.iou_threshold)
        words = max(ceil_div(min(model.num_priors, _COMPARED), 32), 1)
        overlap = self._launch(
            "fast_nms_overlap",
            (ceil_div(words * (words + 1), 8),),
            128,
            *self._held("candidate_xyxy candidate_count"),
            *common,
            *self._held("overlap kept_count"),
        )
        classes = self._launch(
            "fast_nms_class",
            (model.num_classes,),
            128,
            *self._held("candidate_score candidate_xyxy candidate_count overlap"),
            *common,
            np.float32(settings.min_confidence),
            np.int32(settings.top_k),
            *self._held("kept_key kept_count status"),
        )
        merge = self._launch(
            "fast_nms_merge",
            (1,),
            1024,
            *self._held("kept_key kept_count candidate_prior candidate_xyxy"),
            np.int32(settings.max_instances),
            *self._detections(),
            *self._layout_of_masks(""),
        )
        return [overlap, classes, merge]

    def _cross_class(self) -> list[Launch]:
        model, settings = self._model, self._model.settings
        sizes = np.int32(model.num_priors), np.int32(model.num_classes)
        held = self._held("candidate_score candidate_count")
        best = self._held("best_score best_class")
        grid = (ceil_div(model.num_priors, 256),)
        return [
            self._launch("fast_nms_best_class", grid, 256, *held, *sizes, *best),
            self._launch(
                "fast_nms_cross_class",
                (1,),
                1024,
                *best,
                *self._held("candidate_prior candidate_xyxy candidate_count"),
                *sizes,
                np.float32(settings.iou_threshold),
                np.float32(settings.min_confidence),
                np.int32(settings.top_k),
                *self._detections(),
                *self._layout_of_masks(""),
            ),
        ]

    def _detections(self) -> list[DeviceArray]:
        return self._held("detection_count detection_prior detection_class detection_confidence detection_xyxy")

    def _layout_of_masks(self, prefix: str) -> list[Any]:
        """Return the arguments from the sizes on. Re-scoring uses the published crop of all masks."""
        _, height, width = self._model.prototype_shape
        words = _UNLIMITED_WORDS if prefix else np.int64(self._memory.arena_words)
        return [
            np.int32(height),
            np.int32(width),
            *self._size(),
            np.float32(0 if prefix else self._model.crop_margin),
            words,
            np.int32(self._memory.wanted_tasks),
            *self._held(f"{prefix}window {prefix}offset {prefix}plan status"),
        ]

    def _mask_bits(self) -> list[Launch]:
        _, height, width = self._model.prototype_shape
        return [
            self._soft(""),
            self._launch(
                "mask_bits",
                (self._memory.filling_blocks,),
                256,
                *self._held("soft window offset detection_count"),
                np.int32(height),
                np.int32(width),
                *self._size(),
                *self._held("plan task_runs arena"),
            ),
        ]

    def _rescoring(self) -> list[Launch]:
        """Return launches of the mask-IoU network, and of its input masks if they differ from the frame's."""
        model, masks = self._model, list[Launch]()
        if prefix := model.scored_masks:
            held = self._held("detection_xyxy detection_count")
            layout = self._launch("mask_layout", (1,), 256, *held, *self._layout_of_masks(prefix))
            masks = [layout, self._soft(prefix)]
        if model.mask_iou is None:
            return masks
        return [*masks, *mask_iou_launches(self._launch, self._arrays, model.scored_masks, model.num_classes)]

    def _soft(self, prefix: str) -> Launch:
        """Return the launch that computes probabilities inside the windows.

        For re-scoring on the host with zeros around them.
        """
        model = self._model
        prototypes, height, width = model.prototype_shape
        return self._launch(
            f"mask_soft_{model.suffix}",
            (2 * self._memory.filling_blocks,),
            128,
            *self._held("prototype mask_coefficient detection_prior detection_count"),
            *self._held(f"{prefix}window {prefix}plan"),
            *map(np.int32, (prototypes, height, width, bool(prefix) and model.mask_iou is None)),
            *self._held(f"{prefix}soft status"),
        )

    def _runs(self) -> list[Launch]:
        return [
            self._launch(
                "mask_runs_write",
                (min(self._memory.filling_blocks, _BLOCKS_OF_RUNS),),
                256,
                *self._held("arena window offset detection_count plan task_runs"),
                np.int32(self._layout.height),
                np.int32(self._memory.run_capacity),
                *self._held("run_offset device_run_start device_run_end status"),
            )
        ]

    def _results(self) -> Launch:
        return self._launch(
            "mask_results",
            (min(self._kernels.device.num_multiprocessors, _BLOCKS_OF_RESULTS),),
            256,
            *self._held("results host_results"),
            np.int32(self._arrays["results"].num_bytes),
            *self._held("detection_count run_offset device_run_start device_run_end"),
            np.int32(self._memory.run_capacity),
            *self._held("run_start run_end"),
        )

    def _held(self, names: str) -> list[DeviceArray]:
        return [self._arrays[name] for name in names.split()]

    def _size(self) -> tuple[np.int32, np.int32]:
        return np.int32(self._layout.height), np.int32(self._layout.width)

    def _launch(self, name: str, grid: tuple[int, ...], block: int | tuple[int, ...], *arguments: Any) -> Launch:
        threads = block if isinstance(block, tuple) else (block,)
        config = LaunchConfig((*grid, 1, 1)[:3], (*threads, 1, 1)[:3])  # type: ignore[arg-type]  # three of each
        return self._kernels.get(name).prepare(config, arguments)
