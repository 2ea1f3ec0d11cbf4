"""How a segmenter turns network outputs into instances."""

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
    """How a segmenter turns network outputs into instances.

    Attributes:
        nms: Suppression method, a :class:`yolact_runtime.cpu.nms.NmsMethod` or its value such as ``"fast"``.
        min_confidence: The second score threshold: instances at or below it are left out, before suppression. 0 is the
            published behaviour, which has none and fills the list up with low scores; 0.15 to 0.3 suits pictures. It
            never changes the instances above it.
        iou_threshold: None takes the model's.
        max_instances: None takes the model's.
        crop_margin: Fraction of a box added on each side before its mask is cropped, for masks that are cut by their
            box. 0 is the published behaviour; ``inf`` does not crop.
        mask_rescoring: False skips the mask-IoU network of YOLACT++; ``mask_confidence`` is then None.
        num_threads: CPU threads of the network; 0 leaves the choice to the backend.
        cpu_postprocessing: With an engine on the GPU: download the network's outputs and do the rest on the CPU. For
            comparison, and for what the kernels do not do; slow.
        frames_in_flight: Frames that :meth:`yolact_runtime.Segmenter.stream` works on at once; on the GPU each has
            memory of its own, taken at open. 1 overlaps nothing.
        bit_depth: Significant bits of frames of uint16 in host memory, 8 to 16; None takes the model's, which it has
            from its calibration, or refuses such frames where it has none.
        frame_size: (height, width) of BGR frames to come: the GPU is made ready for them at open, otherwise when the
            first two come.

    Raises:
        UsageError: A field is no number of its kind, or out of its range; the message names it.
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
        """These options over the model's own detection settings."""
        detection = manifest.detection
        return NmsSettings(
            method=NmsMethod(self.nms),
            score_threshold=detection.score_threshold,
            min_confidence=self.min_confidence,
            iou_threshold=detection.iou_threshold if self.iou_threshold is None else self.iou_threshold,
            top_k=detection.top_k,
            max_instances=detection.max_instances if self.max_instances is None else self.max_instances,
        )
