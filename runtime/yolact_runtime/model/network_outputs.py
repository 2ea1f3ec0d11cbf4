"""Input and outputs of a network, held against the manifest: names, dtypes, shapes, and values that are numbers.

Every backend's outputs pass here: what a library declares when it has loaded a model, and the arrays of every frame
that come back to host memory. On the GPU the values are looked at by the kernel ``candidates_score``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import OutputError
from yolact_runtime.model.manifest import FLOAT_DTYPES, Manifest

__all__ = [
    "OutputType",
    "RawOutputs",
    "check_declared_dtypes",
    "check_input_type",
    "check_mask_iou_type",
    "check_output_types",
    "require_finite",
    "require_float",
    "unpack_outputs",
]

# The exponent of a float16, all ones in what is no number; NumPy's own test of float16 takes five times as long.
_HALF_EXPONENT = 0x7C00


class OutputType(NamedTuple):
    """What is known of an output, or of an input, before it is computed.

    Attributes:
        dtype: By NumPy's name; any other text for what NumPy does not have.
        shape: With ``None`` for a side that the model leaves open, and ``None`` where it says nothing.
    """

    dtype: str
    shape: tuple[int | None, ...] | None


class RawOutputs(NamedTuple):
    """What the network returns for one image, by its output names.

    Attributes:
        box_regression: ``(P, 4)``.
        class_logit: ``(P, C)``, class 0 is the background.
        mask_coefficient: ``(P, K)``.
        prototype: ``(K, Hp, Wp)``.
    """

    box_regression: Any
    class_logit: Any
    mask_coefficient: Any
    prototype: Any


def check_input_type(inputs: Mapping[str, OutputType], manifest: Manifest) -> None:
    """Hold the input of a network with batch 1 against its manifest, before memory is asked for by the manifest's size.

    Raises:
        OutputError: There is not one input, or it has another dtype or shape.
    """
    if len(inputs) != 1:
        raise OutputError(f"a network of this project has one input; this one has {', '.join(inputs) or 'none'}")
    ((name, found),) = inputs.items()
    require_float(name, found.dtype, "input")
    _require_shape(name, found.shape, (1, 3, manifest.input.height, manifest.input.width), "input")


def check_declared_dtypes(
    inputs: Mapping[str, OutputType], outputs: Mapping[str, OutputType], manifest: Manifest
) -> None:
    """Hold the dtypes that a network declares against those that its manifest states; further outputs are ignored.

    Args:
        inputs: The one input.
        outputs: Among them all of :class:`RawOutputs`.
        manifest: Of this network; one of schema version 1 or 2 states float32.

    Raises:
        OutputError: They differ; the message names the tensor.
    """
    stated = manifest.dtypes
    found = [("input", name, kind.dtype, stated.input) for name, kind in inputs.items()]
    found += [("output", name, outputs[name].dtype, stated.outputs) for name in RawOutputs._fields]
    for kind, name, dtype, wanted in found:
        if dtype != wanted:
            raise OutputError(
                f'the {kind} "{name}" is {dtype}, and the manifest says {wanted}: network and manifest are not of one '
                f"export. Copy the bundle again, or export again"
            )


def check_mask_iou_type(outputs: Mapping[str, OutputType], manifest: Manifest) -> None:
    """Hold the one output of a mask-IoU network, ``(N, C - 1)``, against the manifest.

    Raises:
        OutputError: It is not one output, or has another dtype or shape.
    """
    if len(outputs) != 1:
        raise OutputError(f"the mask-IoU network should have one output, found {', '.join(outputs) or 'none'}")
    ((name, found),) = outputs.items()
    require_float(name, found.dtype)
    _require_shape(name, found.shape, ("N", len(manifest.class_names)))


def check_output_types(outputs: Mapping[str, OutputType], manifest: Manifest) -> None:
    """Hold the outputs of a network with batch 1 against its manifest; further outputs are ignored.

    Raises:
        OutputError: One is missing, has the wrong dtype or shape, or is empty; the message names it.
    """
    missing = [name for name in RawOutputs._fields if name not in outputs]
    if missing:
        raise OutputError(f"the network lacks the output {', '.join(missing)}; it has {', '.join(sorted(outputs))}")
    for name in RawOutputs._fields:
        require_float(name, outputs[name].dtype)
    prototype = outputs["prototype"].shape
    _require_shape("prototype", prototype, (1, "K", "Hp", "Wp"))
    priors, classes = manifest.priors.num_priors, len(manifest.class_names) + 1
    coefficients = "K" if prototype is None or prototype[1] is None else prototype[1]
    _require_shape("box_regression", outputs["box_regression"].shape, (1, priors, 4))
    _require_shape("class_logit", outputs["class_logit"].shape, (1, priors, classes))
    _require_shape("mask_coefficient", outputs["mask_coefficient"].shape, (1, priors, coefficients))


def unpack_outputs(outputs: Mapping[str, npt.NDArray[Any]], manifest: Manifest) -> RawOutputs:
    """Return views of the outputs of the one image in a batch, once everything about them is right.

    Raises:
        OutputError: As for :func:`check_output_types`, or a value is NaN or infinite.
    """
    check_output_types({name: OutputType(str(a.dtype), a.shape) for name, a in outputs.items()}, manifest)
    for name in RawOutputs._fields:
        require_finite(outputs[name], name)
    return RawOutputs(*(outputs[name][0] for name in RawOutputs._fields))


def require_float(name: str, dtype: str, kind: str = "output") -> None:
    """Refuse an output, or another `kind` of tensor, that does not hold floating-point values of a network.

    Raises:
        OutputError: `dtype`, by NumPy's name, is neither float32 nor float16.
    """
    if dtype not in FLOAT_DTYPES:
        raise OutputError(
            f'the {kind} "{name}" is {dtype}; {" and ".join(FLOAT_DTYPES)} are understood. Outputs stay in floating '
            f"point whatever the network computes in: export the model again"
        )


def require_finite(values: npt.NDArray[np.floating], name: str) -> None:
    """Refuse outputs of a network that overflowed or is damaged.

    Args:
        values: float32 or float16.
        name: Of the output, for the message.

    Raises:
        OutputError: A value is NaN or infinite, of either sign.
    """
    if values.dtype == np.float16:
        exponent = values.view(np.uint16) & np.uint16(_HALF_EXPONENT)
        is_finite = bool(exponent.max(initial=0) < _HALF_EXPONENT)
    else:
        is_finite = bool(np.isfinite(values).all())
    if not is_finite:
        raise OutputError(
            f'the network output "{name}" holds NaN or infinity. Usually a half-precision overflow or a damaged model: '
            f"run the fp32 model on the same frame, and export again if it shows the same"
        )


def _require_shape(
    name: str, found: tuple[int | None, ...] | None, wanted: tuple[int | str, ...], kind: str = "output"
) -> None:
    """Text among the sides of `wanted` stands for any number but 0; what is not known of `found` passes."""
    if found is None:
        return
    fits = len(found) == len(wanted) and all(
        side is None or (side > 0 if isinstance(other, str) else side == other)
        for side, other in zip(found, wanted, strict=True)
    )
    if not fits:
        shown, seen = str(wanted).replace("'", ""), str(found).replace("None", "?")
        raise OutputError(f'the {kind} "{name}" should have the shape {shown} for this model, found {seen}')
