"""The segmenter: an open model. Frame in, instances out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from yolact_runtime.backends import Backend, create_backend
from yolact_runtime.bundle import CPU_PRECISIONS, CUDA_PRECISIONS, Bundle, open_bundle
from yolact_runtime.errors import BackendError, UsageError
from yolact_runtime.instances import Instances
from yolact_runtime.manifest import Manifest
from yolact_runtime.nms import NmsMethod, NmsSettings
from yolact_runtime.postprocess import MaskIou, Postprocessor
from yolact_runtime.preprocess import as_bgr, preprocess

__all__ = ["Segmenter", "SegmenterOptions"]


# More than any machine for this job has; a backend would take minutes and gigabytes to start a mistyped number.
_MAX_THREADS = 256


@dataclass(frozen=True)
class SegmenterOptions:
    """How a segmenter turns network outputs into instances.

    Attributes:
        nms: Suppression method, a :class:`yolact_runtime.nms.NmsMethod` or its value such as ``"fast"``.
        min_confidence: The second score threshold: instances at or below it are left out, before suppression. 0 is the
            published behaviour, which has none and fills the list up with low scores; 0.15 to 0.3 suits pictures. It
            never changes the instances above it.
        iou_threshold: None takes the model's.
        max_instances: None takes the model's.
        crop_margin: Fraction of a box added on each side before its mask is cropped, for masks that are cut by their
            box. 0 is the published behaviour; ``inf`` does not crop.
        mask_rescoring: False skips the mask-IoU network of YOLACT++; ``mask_confidence`` is then None.
        num_threads: CPU threads of the network; 0 leaves the choice to the backend.
    """

    nms: NmsMethod | str = NmsMethod.FAST
    min_confidence: float = 0.0
    iou_threshold: float | None = None
    max_instances: int | None = None
    crop_margin: float = 0.0
    mask_rescoring: bool = True
    num_threads: int = 0

    def __post_init__(self) -> None:
        try:
            # A frozen dataclass is set this way; "fast" is accepted for NmsMethod.FAST.
            object.__setattr__(self, "nms", NmsMethod(self.nms))
        except ValueError as error:
            methods = ", ".join(method.value for method in NmsMethod)
            raise UsageError(f"nms must be one of {methods}, found {self.nms!r}") from error
        for name in ("min_confidence", "crop_margin", "num_threads"):
            if not isinstance(getattr(self, name), int | float):
                raise UsageError(f"{name} must be a number, found {getattr(self, name)!r}")
        for name in ("min_confidence", "iou_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} must lie between 0 and 1, found {value}")
        if not self.crop_margin >= 0:
            raise UsageError(f"crop_margin must be 0 or more, found {self.crop_margin}")
        if self.max_instances is not None and self.max_instances < 1:
            raise UsageError(f"max_instances must be 1 or more, found {self.max_instances}")
        if not 0 <= self.num_threads <= _MAX_THREADS:
            raise UsageError(f"num_threads must lie between 0 and {_MAX_THREADS}, found {self.num_threads}")

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


class Segmenter:
    """An open model on a backend. Use it as a context manager, or call :meth:`close`.

    Thread-safe: calls share the model and nothing else, and every result belongs to its caller.
    """

    def __init__(
        self, manifest: Manifest, network: Backend, mask_iou: Backend | None, options: SegmenterOptions
    ) -> None:
        """Take ownership of open backends; most callers want :meth:`open`."""
        self.manifest = manifest
        self.options = options
        self._network = network
        self._mask_iou = mask_iou
        rescore = _rescorer(mask_iou) if mask_iou is not None and options.mask_rescoring else None
        self._postprocess = Postprocessor.of(manifest, options.nms_settings(manifest), options.crop_margin, rescore)

    @classmethod
    def open(
        cls,
        path: Path | str | Bundle,
        backend: str = "auto",
        options: SegmenterOptions | None = None,
        precision: str | None = None,
    ) -> Segmenter:
        """Open a bundle folder or a model file.

        Args:
            path: A bundle folder, an ``.onnx`` file, or an opened bundle.
            backend: ``"auto"`` or a key of :data:`yolact_runtime.backends.BACKENDS`.
            options: Thresholds and methods; None means the defaults.
            precision: Which network of a folder, such as ``"fp32"``; None takes what the backend runs best:
                ``"int8-cpu"`` before ``"fp32"`` on the CPU, ``"fp16"`` before ``"fp32"`` on CUDA.

        Raises:
            BundleError, ManifestError: The model is missing, damaged, or not of this project.
            BackendUnavailableError: No backend can run here; the message says why for each.
            BackendError: The backend refuses the model.
        """
        options = options or SegmenterOptions()
        opened: list[Bundle] = []

        def network_for(name: str) -> Path:
            preferred = CUDA_PRECISIONS if name == "onnxruntime-cuda" else CPU_PRECISIONS
            opened.append(path if isinstance(path, Bundle) else open_bundle(path, precision, preferred))
            return opened[-1].network

        network = create_backend(backend, network_for, options.num_threads)
        bundle = opened[-1]
        mask_iou = None
        if bundle.mask_iou is not None and options.mask_rescoring:
            try:
                mask_iou = create_backend(network.name, bundle.mask_iou, options.num_threads)
            except BaseException:
                network.close()
                raise
        return cls(bundle.manifest, network, mask_iou, options)

    @property
    def backend_name(self) -> str:
        """Of the backend in use."""
        return self._network.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Indexed by ``class_id``."""
        return self.manifest.class_names

    def __call__(self, frame: npt.NDArray[np.uint8]) -> Instances:
        """Find the instances in one frame.

        Args:
            frame: ``(H, W, 3)`` uint8, blue first; grayscale ``(H, W)`` and BGRA are accepted. Only read.

        Returns:
            Instances in the pixels of the frame, best first.

        Raises:
            FrameError: `frame` is not an image.
            BackendError: The backend failed, or the network's outputs are not finite.
        """
        height, width = as_bgr(frame).shape[:2]
        outputs = self._network.infer(preprocess(frame, self.manifest.input))
        return self._postprocess(outputs, height, width)

    def close(self) -> None:
        """Free the backends. May be called again; a later frame raises BackendError."""
        self._network.close()
        if self._mask_iou is not None:
            self._mask_iou.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _rescorer(backend: Backend) -> MaskIou:
    def predict(masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        outputs = backend.infer(masks)
        if len(outputs) != 1:
            raise BackendError(f"the mask-IoU network should have one output, found {', '.join(outputs)}")
        (predicted,) = outputs.values()
        return predicted.astype(np.float32, copy=False)

    return predict
