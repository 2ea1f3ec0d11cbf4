"""The properties of a model and its settings that the kernels need, checked once when the model is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_runtime.backends.base import TensorSpec
from yolact_runtime.cpu.nms import NmsMethod, NmsSettings
from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.errors import BackendError, FrameError, UsageError
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.mask_iou_network import MIN_SIDE, MaskIouNetwork
from yolact_runtime.model.network_outputs import OutputType, RawOutputs, check_input_type, check_output_types

__all__ = ["FrameModel"]

# Limits of the kernels; see their header comments.
_MAX_TOP, _MAX_PROTOTYPES, _MAX_CLASSES, _MAX_PRIORS = 256, 256, 1 << 14, 1 << 20
# Limits of the product of a frame's side, rounded up to a block of pixels, with that of the input or of the prototypes;
# and of a frame's pixels, which are positions of runs.
_MAX_PRODUCT, _BLOCK_SIDE, _MAX_PIXELS = 1 << 30, 64, (1 << 31) - 64
_CPU = "or open the segmenter with SegmenterOptions(cpu_postprocessing=True)"


@dataclass(frozen=True)
class FrameModel:
    """A model with its settings.

    Attributes:
        manifest: Manifest of the model.
        settings: Suppression method and thresholds.
        crop_margin: Fraction of a box added on each side of its crop; see
            :class:`yolact_runtime.segmenter.SegmenterOptions`.
        rescore: Whether a second network re-scores masks, reading probabilities at prototype resolution.
        tensors: Tensors of the network: its input and the four outputs.
        input_name: Name of the network's input.
        suffix: Suffix of the kernels that read the outputs: ``"f32"`` or ``"f16"``.
        mask_iou: The mask-IoU network for the kernels; None if there is none, or if it runs on the host.
    """

    manifest: Manifest
    settings: NmsSettings
    crop_margin: float
    rescore: bool
    tensors: Mapping[str, TensorSpec]
    input_name: str
    suffix: str
    mask_iou: MaskIouNetwork | None = None

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        settings: NmsSettings,
        crop_margin: float,
        rescore: bool,
        tensors: tuple[TensorSpec, ...],
        mask_iou: MaskIouNetwork | None = None,
    ) -> FrameModel:
        """Create a model after checking it.

        Raises:
            BackendError: The network's tensors are not those of the manifest.
            UsageError: The settings exceed the limits of the kernels.
        """
        by_name = {tensor.name: tensor for tensor in tensors}
        inputs = {tensor.name: _type_of(tensor) for tensor in tensors if tensor.is_input}
        check_input_type(inputs, manifest)
        (input_name,) = inputs
        suffix = _check_outputs(by_name, manifest)
        _check_settings(settings)
        model = cls(manifest, settings, crop_margin, rescore, by_name, input_name, suffix, mask_iou)
        _, *sides = model.prototype_shape
        if mask_iou is not None and min(sides) < MIN_SIDE:
            raise BackendError(
                f"prototypes of {sides[0]} x {sides[1]} are too small for mask re-scoring, which needs {MIN_SIDE} x "
                f"{MIN_SIDE}: leave it out (--no-mask-rescoring, SegmenterOptions(mask_rescoring=False))"
            )
        return model

    @property
    def num_priors(self) -> int:
        """Number of priors, P."""
        return self.manifest.priors.num_priors

    @property
    def num_classes(self) -> int:
        """Number of classes without the background, C - 1."""
        return len(self.manifest.class_names)

    @property
    def prototype_shape(self) -> tuple[int, int, int]:
        """Shape of the prototypes, ``(K, Hp, Wp)``."""
        _, prototypes, height, width = self.tensors["prototype"].shape
        return prototypes, height, width

    @property
    def scored_masks(self) -> str:
        """Prefix of the arrays of masks that are re-scored: those with the published crop, without margin."""
        # On the host the network reads whole masks, with the zeros around their windows.
        return "" if self.mask_iou is not None and self.crop_margin == 0 else "rescoring_"

    @property
    def max_detections(self) -> int:
        """Number of rows of the detection buffers."""
        cross = self.settings.method is NmsMethod.CROSS_CLASS
        return self.settings.top_k if cross else self.settings.max_instances

    def check_frame(self, height: int, width: int) -> None:
        """Check that frames of a size do not overflow the kernels' 32-bit arithmetic.

        Raises:
            FrameError: The frames are too large.
        """
        _, *prototype = self.prototype_shape
        others = zip((height, width), (self.manifest.input.height, self.manifest.input.width), prototype, strict=True)
        products = [(side + _BLOCK_SIDE) * (max(other) + _BLOCK_SIDE) for side, *other in others]
        if max(products) >= _MAX_PRODUCT or height * width > _MAX_PIXELS:
            raise FrameError(
                f"a frame of {width} x {height} pixels is too large for the kernels of the GPU: make it smaller, {_CPU}"
            )

    def priors(self) -> npt.NDArray[np.float32]:
        """Compute the centre-size priors, ``(P, 4)``."""
        spec = self.manifest.input
        return make_priors(self.manifest.priors, spec.height, spec.width)


def _check_outputs(tensors: Mapping[str, TensorSpec], manifest: Manifest) -> str:
    outputs = {name: tensor for name, tensor in tensors.items() if not tensor.is_input}
    check_output_types({name: _type_of(tensor) for name, tensor in outputs.items()}, manifest)
    priors, classes = manifest.priors.num_priors, len(manifest.class_names) + 1
    prototypes = outputs["prototype"].shape[1]
    dtypes = {outputs[name].dtype for name in RawOutputs._fields}
    if len(dtypes) != 1:
        raise BackendError(
            f"the network's outputs have several dtypes ({', '.join(sorted(map(str, dtypes)))}); kernels read one: "
            f"export the model again"
        )
    if classes - 1 > _MAX_CLASSES or prototypes > _MAX_PROTOTYPES or priors > _MAX_PRIORS:
        raise UsageError(
            f"the GPU post-processing takes up to {_MAX_CLASSES} classes, {_MAX_PROTOTYPES} prototypes and "
            f"{_MAX_PRIORS} priors; this model has {classes - 1}, {prototypes} and "
            f"{priors}. Use another backend, {_CPU}"
        )
    return "f16" if dtypes == {np.dtype(np.float16)} else "f32"


def _type_of(tensor: TensorSpec) -> OutputType:
    return OutputType(str(tensor.dtype), tensor.shape)


def _check_settings(settings: NmsSettings) -> None:
    if settings.method is NmsMethod.TRADITIONAL:
        raise UsageError(f"traditional NMS runs on the CPU only: use nms fast or cross-class, {_CPU}")
    if settings.top_k > _MAX_TOP or settings.max_instances > _MAX_TOP:
        raise UsageError(
            f"the GPU post-processing keeps up to {_MAX_TOP} boxes; top_k {settings.top_k} and max_instances "
            f"{settings.max_instances} are requested: lower them, {_CPU}"
        )
