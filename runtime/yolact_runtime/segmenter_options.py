"""Thresholds and methods of a segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.cpu.nms import NmsMethod, NmsSettings
from yolact_runtime.errors import UsageError
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.option_numbers import MAX_INSTANCES, MAX_THREADS, check_between, keep_numbers, shown_number

__all__ = ["SegmenterOptions"]

_MAX_IN_FLIGHT = 8
_MAX_SIDE_PX = 65_536


@dataclass(frozen=True)
class SegmenterOptions:
    """Thresholds and methods with which a segmenter turns a network's outputs into instances.

    Example:
        ```python
        options = SegmenterOptions(min_confidence=0.3, nms="cross-class", max_instances=20)
        ```

    Attributes:
        nms: Suppression method: a :class:`yolact_runtime.NmsMethod`, or its value: ``"fast"``, ``"cross-class"``,
            ``"traditional"``.
        min_confidence: Second score threshold, 0 to 1: instances at or below it are dropped before suppression, which
            never changes those above it. 0 is the published behaviour and fills the list with low scores; 0.15 to 0.3
            suits pictures.
        iou_threshold: Overlap, 0 to 1, from which the box with the lower score is suppressed; None takes the model's.
        max_instances: Largest number of instances of a frame; None takes the model's.
        crop_margin: Fraction of a box that is added on each side before its mask is cropped, for masks that their box
            cuts off. 0 is the published behaviour; ``inf`` does not crop.
        mask_rescoring: Whether the mask-IoU network of YOLACT++ runs; without it ``mask_confidence`` is None.
        num_threads: CPU threads of the network; 0 leaves the choice to the backend.
        cpu_postprocessing: Whether the CPU computes boxes and masks although the network runs on a GPU. The network's
            outputs are then downloaded, which is slow: for comparison, and for what the kernels do not do.
        frames_in_flight: Frames that :meth:`Segmenter.stream` processes at once, 1 to 8. Each has GPU memory of its
            own, allocated at open. 1 overlaps nothing.
        frame_size: Size (height, width) of the BGR frames to come. The GPU is prepared for them at open; otherwise that
            happens during the first two frames.
        bit_depth: Significant bits of uint16 frames in host memory, 8 to 16. None takes the model's, which calibration
            has set; such frames are refused where the model has none.

    Raises:
        UsageError: A field has the wrong type or is out of range; the message names it.
    """

    nms: NmsMethod | str = NmsMethod.FAST
    min_confidence: float = 0.0
    iou_threshold: float | None = None
    max_instances: int | None = None
    crop_margin: float = 0.0
    mask_rescoring: bool = True
    num_threads: int = 0
    cpu_postprocessing: bool = False
    frames_in_flight: int = 2
    frame_size: tuple[int, int] | None = None
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        try:
            # A frozen dataclass is set this way; "fast" is accepted for NmsMethod.FAST.
            object.__setattr__(self, "nms", NmsMethod(self.nms))
        except ValueError as error:
            methods = ", ".join(method.value for method in NmsMethod)
            raise UsageError(f"nms must be one of {methods}, found {self.nms!r}") from error
        keep_numbers(
            self,
            whole=("num_threads", "frames_in_flight", "max_instances", "bit_depth"),
            real=("min_confidence", "crop_margin", "iou_threshold"),
        )
        for name in ("min_confidence", "iou_threshold"):
            check_between(name, getattr(self, name), 0, 1)
        if not self.crop_margin >= 0:
            raise UsageError(f"crop_margin must be 0 or more, found {self.crop_margin}")
        if self.max_instances is not None and not 1 <= self.max_instances <= MAX_INSTANCES:
            raise UsageError(
                f"max_instances must be 1 or more, found {shown_number(self.max_instances)}; the largest is "
                f"{MAX_INSTANCES}"
            )
        check_between("frames_in_flight", self.frames_in_flight, 1, _MAX_IN_FLIGHT)
        self._keep_frame_size()
        check_bit_depth(self.bit_depth)
        check_between("num_threads", self.num_threads, 0, MAX_THREADS)

    def _keep_frame_size(self) -> None:
        if self.frame_size is None:
            return
        sides = tuple(self.frame_size)
        whole = [side for side in sides if isinstance(side, Integral) and not isinstance(side, bool)]
        if len(sides) != 2 or len(whole) != 2 or not all(1 <= side <= _MAX_SIDE_PX for side in whole):
            raise UsageError(
                f"frame_size must be (height, width) in pixels, each from 1 to {_MAX_SIDE_PX}, found "
                f"({', '.join(map(shown_number, sides))})"
            )
        object.__setattr__(self, "frame_size", tuple(map(int, sides)))

    def nms_settings(self, manifest: Manifest) -> NmsSettings:
        """Return the settings of suppression: these options, and the model's own where they are None."""
        detection = manifest.detection
        return NmsSettings(
            method=NmsMethod(self.nms),
            score_threshold=detection.score_threshold,
            min_confidence=self.min_confidence,
            iou_threshold=detection.iou_threshold if self.iou_threshold is None else self.iou_threshold,
            top_k=detection.top_k,
            max_instances=detection.max_instances if self.max_instances is None else self.max_instances,
        )
