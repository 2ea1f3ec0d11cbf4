"""Comparison of a network's input and outputs with the manifest: names, dtypes, shapes, and finite values.

Every backend's outputs pass here: the declarations of a loaded model, and the arrays of every frame that are copied to
host memory. On the GPU the kernel ``candidates_score`` checks the values.
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

# The exponent of a float16, which is all ones for NaN and infinity; NumPy's own test of float16 takes five times as
# long.
_HALF_EXPONENT = 0x7C00


class OutputType(NamedTuple):
    """Declared type of an output or input.

    Attributes:
        dtype: Dtype as a NumPy name; any other text for dtypes that NumPy does not have.
        shape: Shape with None for dimensions that the model leaves open; None if it declares no shape.
    """

    dtype: str
    shape: tuple[int | None, ...] | None


class RawOutputs(NamedTuple):
    """The network's outputs for one image, by name.

    Attributes:
        box_regression: Box regressions, ``(P, 4)``.
        class_logit: Class logits, ``(P, C)``; class 0 is the background.
        mask_coefficient: Mask coefficients, ``(P, K)``.
        prototype: Prototypes, ``(K, Hp, Wp)``.
    """

    box_regression: Any
    class_logit: Any
    mask_coefficient: Any
    prototype: Any


def check_input_type(inputs: Mapping[str, OutputType], manifest: Manifest) -> None:
    """Compare the input of a network with batch size 1 with its manifest, before allocating memory of that size.

    Raises:
        OutputError: There is not exactly one input, or it has another dtype or shape.
    """
    if len(inputs) != 1:
        raise OutputError(f"a network of this project has one input; this one has {', '.join(inputs) or 'none'}")
    ((name, found),) = inputs.items()
    require_float(name, found.dtype, "input")
    _require_shape(name, found.shape, (1, 3, manifest.input.height, manifest.input.width), "input")


def check_declared_dtypes(
    inputs: Mapping[str, OutputType], outputs: Mapping[str, OutputType], manifest: Manifest
) -> None:
    """Compare the dtypes that a network declares with those of its manifest; further outputs are ignored.

    Args:
        inputs: Declaration of the one input.
        outputs: Declarations of the outputs, including all of :class:`RawOutputs`.
        manifest: Manifest of this network; schema versions 1 and 2 mean float32.

    Raises:
        OutputError: The dtypes differ; the message names the tensor.
    """
    stated = manifest.dtypes
    found = [("input", name, kind.dtype, stated.input) for name, kind in inputs.items()]
    found += [("output", name, outputs[name].dtype, stated.outputs) for name in RawOutputs._fields]
    for kind, name, dtype, wanted in found:
        if dtype != wanted:
            raise OutputError(
                f'the {kind} "{name}" is {dtype}, and the manifest says {wanted}: they are not of the same '
                f"export. Copy the bundle again, or export again"
            )


def check_mask_iou_type(outputs: Mapping[str, OutputType], manifest: Manifest) -> None:
    """Compare the one output of a mask-IoU network, ``(N, C - 1)``, with the manifest.

    Raises:
        OutputError: There is not exactly one output, or it has another dtype or shape.
    """
    if len(outputs) != 1:
        raise OutputError(f"the mask-IoU network should have one output, found {', '.join(outputs) or 'none'}")
    ((name, found),) = outputs.items()
    require_float(name, found.dtype)
    _require_shape(name, found.shape, ("N", len(manifest.class_names)))


def check_output_types(outputs: Mapping[str, OutputType], manifest: Manifest) -> None:
    """Compare the outputs of a network with batch size 1 with its manifest; further outputs are ignored.

    Raises:
        OutputError: An output is missing, has the wrong dtype or shape, or is empty; the message names it.
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
    """Return views of the outputs for the one image in a batch, after checking everything about them.

    Raises:
        OutputError: The outputs do not match the manifest, as for :func:`check_output_types`, or a value is NaN or
            infinite.
    """
    check_output_types({name: OutputType(str(a.dtype), a.shape) for name, a in outputs.items()}, manifest)
    for name in RawOutputs._fields:
        require_finite(outputs[name], name)
    return RawOutputs(*(outputs[name][0] for name in RawOutputs._fields))


def require_float(name: str, dtype: str, kind: str = "output") -> None:
    """Raise an error for an output, or another `kind` of tensor, that is not floating-point.

    Raises:
        OutputError: The dtype, a NumPy name, is neither float32 nor float16.
    """
    if dtype not in FLOAT_DTYPES:
        raise OutputError(
            f'the {kind} "{name}" is {dtype}; {" or ".join(FLOAT_DTYPES)} is required. Outputs stay in floating '
            f"point whatever the network computes in: export the model again"
        )


def require_finite(values: npt.NDArray[np.floating], name: str) -> None:
    """Raise an error for outputs of a network that overflowed or is damaged.

    Args:
        values: Values of float32 or float16.
        name: Name of the output, for the message.

    Raises:
        OutputError: A value is NaN or infinite.
    """
    if values.dtype == np.float16:
        exponent = values.view(np.uint16) & np.uint16(_HALF_EXPONENT)
        is_finite = bool(exponent.max(initial=0) < _HALF_EXPONENT)
    else:
        is_finite = bool(np.isfinite(values).all())
    if not is_finite:
        raise OutputError(
            f'the network output "{name}" contains NaN or infinity. Usually a half-precision overflow or a damaged '
            f"model: run the fp32 model on the same frame, and export again if it shows the same"
        )


def _require_shape(
    name: str, found: tuple[int | None, ...] | None, wanted: tuple[int | str, ...], kind: str = "output"
) -> None:
    """Compare shapes; text in `wanted` stands for any size but 0, and unknown sizes of `found` pass."""
    if found is None:
        return
    fits = len(found) == len(wanted) and all(
        side is None or (side > 0 if isinstance(other, str) else side == other)
        for side, other in zip(found, wanted, strict=True)
    )
    if not fits:
        shown, seen = str(wanted).replace("'", ""), str(found).replace("None", "?")
        raise OutputError(f'the {kind} "{name}" should have the shape {shown} for this model, found {seen}')
