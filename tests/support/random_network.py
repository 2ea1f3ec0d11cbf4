"""A network of convolutions with random weights, as a real ONNX model: what it finds depends on every pixel."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from yolact_runtime.model.manifest import METADATA_KEY, Manifest, NetworkDtypes

__all__ = ["random_network"]

_PROTOTYPES = 3


def random_network(
    manifest: Manifest, seed: int, *, batch: int | str = 1, dtype: npt.DTypeLike = np.float32, extra: bool = False
) -> bytes:
    """Write the network of :func:`support.scenes.small_manifest`: a convolution for each output and pyramid level.

    Args:
        manifest: Manifest with three priors in each cell of its levels.
        seed: Seed of the weights.
        batch: Batch size of the input, or a name for a dynamic one.
        dtype: Dtype of everything, float32 or float16.
        extra: Whether to add an output of integers.
    """
    import onnx
    from onnx import helper, numpy_helper

    rng, kind = np.random.default_rng(seed), helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    height, width = manifest.input.height, manifest.input.width
    classes = len(manifest.class_names) + 1
    nodes, constants = [], []

    def constant(name: str, array: npt.NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    def convolution(name: str, channels: int, side: int, spread: float) -> str:
        weights = rng.normal(0, spread / np.sqrt(3 * side * side), (channels, 3, side, side)).astype(dtype)
        inputs = ["image", constant(f"{name}.weight", weights)]
        nodes.append(helper.make_node("Conv", inputs, [name], kernel_shape=[side, side], strides=[side, side]))
        return name

    spreads = {"box_regression": (4, 1.0), "class_logit": (classes, 4.0), "mask_coefficient": (_PROTOTYPES, 2.0)}
    outputs: list[tuple[str, list[int | str]]] = []
    for output, (values, spread) in spreads.items():
        levels = []
        for rows, _ in manifest.priors.feature_sizes:
            name = convolution(f"{output}.{rows}", 3 * values, height // rows, spread)
            nodes.append(helper.make_node("Transpose", [name], [f"{name}.last"], perm=[0, 2, 3, 1]))
            shape = constant(f"{name}.shape", np.array([0, -1, values], np.int64))
            nodes.append(helper.make_node("Reshape", [f"{name}.last", shape], [f"{name}.rows"]))
            levels.append(f"{name}.rows")
        nodes.append(helper.make_node("Concat", levels, [output], axis=1))
        outputs.append((output, [batch, manifest.priors.num_priors, values]))
    nodes.append(helper.make_node("Relu", [convolution("mask", _PROTOTYPES, 4, 3.0)], ["prototype"]))
    outputs.append(("prototype", [batch, _PROTOTYPES, height // 4, width // 4]))
    declared = [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs]
    if extra:
        nodes.append(helper.make_node("ArgMax", ["class_logit"], ["best"], axis=2, keepdims=0))
        declared.append(
            helper.make_tensor_value_info("best", onnx.TensorProto.INT64, [batch, manifest.priors.num_priors])
        )
    image = helper.make_tensor_value_info("image", kind, [batch, 3, height, width])
    graph = helper.make_graph(nodes, "random", [image], declared, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    name = np.dtype(dtype).name
    stated = dataclasses.replace(manifest, artefacts={}, dtypes=NetworkDtypes(input=name, outputs=name))
    helper.set_model_props(model, {METADATA_KEY: stated.to_json()})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
