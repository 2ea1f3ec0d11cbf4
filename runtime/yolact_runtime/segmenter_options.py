"""How a segmenter turns network outputs into instances."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.cpu.nms import NmsMethod, NmsSettings
from yolact_runtime.errors import UsageError
from yolact_runtime.model.manifest import Manifest

__all__ = ["SegmenterOptions"]

# More than any machine for this job has; a backend would take minutes and gigabytes to start a mistyped number.
_MAX_THREADS = 256
_MAX_IN_FLIGHT = 8
# More than any model keeps; memory for their masks is planned from it.
_MAX_INSTANCES = 100_000


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
        for name in ("min_confidence", "crop_margin", "iou_threshold"):
            self._keep(name, Real, float, "a number")
        for name in ("num_threads", "frames_in_flight", "max_instances", "bit_depth"):
            self._keep(name, Integral, int, "a whole number")
        for name in ("min_confidence", "iou_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} must lie between 0 and 1, found {value}")
        if not self.crop_margin >= 0:
            raise UsageError(f"crop_margin must be 0 or more, found {self.crop_margin}")
        if self.max_instances is not None and not 1 <= self.max_instances <= _MAX_INSTANCES:
            raise UsageError(
                f"max_instances must be 1 or more, found {self.max_instances}; the largest is {_MAX_INSTANCES}"
            )
        if not 1 <= self.frames_in_flight <= _MAX_IN_FLIGHT:
            raise UsageError(f"frames_in_flight must lie between 1 and {_MAX_IN_FLIGHT}, found {self.frames_in_flight}")
        if self.frame_size is not None and (len(self.frame_size) != 2 or min(self.frame_size) < 1):
            raise UsageError(f"frame_size must be (height, width) in pixels, found {self.frame_size}")
        check_bit_depth(self.bit_depth)
        if not 0 <= self.num_threads <= _MAX_THREADS:
            raise UsageError(f"num_threads must lie between 0 and {_MAX_THREADS}, found {self.num_threads}")

    def _keep(self, name: str, kind: type, convert: type, words: str) -> None:
        """Keep a number of NumPy as Python's own; True is no number, and None stays where it is the default."""
        value = getattr(self, name)
        if value is None and type(self).__dataclass_fields__[name].default is None:
            return
        if isinstance(value, bool) or not isinstance(value, kind):
            raise UsageError(f"{name} must be {words}, found {value!r}")
        try:
            object.__setattr__(self, name, convert(value))
        except OverflowError as error:
            raise UsageError(
                f"{name} must be {words} that fits a float, found one of {len(str(value))} digits"
            ) from error

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
