"""Builder of ONNX graphs: exact names, static shapes, each weight stored once, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from yolact_export.errors import ExportError
from yolact_export.model.layer_writer import Tensor
from yolact_runtime.model.network_parts import PROPERTY

__all__ = ["GraphBuilder", "Tensor", "int64"]

_PRODUCER = "yolact-deploy"
# The oldest IR version that knows the operator set, so that old runtimes still read the file.
_IR_VERSIONS = {17: 8, 19: 9}


class GraphBuilder:
    """Builder that collects the nodes of one graph in topological order.

    A node has the given name, and its output tensor the same name. The caller states each output's shape, which is
    stored for every tensor, so that no tool has to infer it. So is the part of the model that a node belongs to.
    """

    def __init__(self, name: str, *, batch: int | str, opset: int) -> None:
        """Start an empty graph.

        Args:
            name: Name of the graph.
            batch: Size of the batch dimension, or its symbolic name if it is dynamic.
            opset: Version of the ONNX operator set.
        """
        self.batch = batch
        self.opset = opset
        self._model = onnx.ModelProto(ir_version=_IR_VERSIONS[opset], producer_name=_PRODUCER)
        self._model.opset_import.append(helper.make_opsetid("", opset))
        self._graph = self._model.graph
        self._graph.name = name
        self._constants: set[str] = set()
        self._nodes: set[str] = set()
        self._part: str | Callable[[tuple[int, ...]], str] | None = None

    @contextmanager
    def part(self, part: str | Callable[[tuple[int, ...]], str]) -> Iterator[None]:
        """Write `part` into the nodes that are appended inside the context; an inner context counts.

        Args:
            part: Name of a part of the model, of :mod:`yolact_runtime.model.network_parts`; or a function that gives
                one for the shape of a node's first output.
        """
        before, self._part = self._part, part
        try:
            yield
        finally:
            self._part = before

    def input(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Declare an input; `shape` is without the batch dimension."""
        tensor = Tensor(name, shape)
        self._graph.input.append(self._value_info(tensor))
        return tensor

    def has_constant(self, name: str) -> bool:
        """Return whether a constant of that name is already stored."""
        return name in self._constants

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Store a constant, unless one of that name exists already, and return its name."""
        if name not in self._constants:
            self._constants.add(name)
            # Written in place: a TensorProto created elsewhere would be copied once more.
            proto = self._graph.initializer.add()
            proto.name = name
            proto.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
            proto.dims.extend(value.shape)
            proto.raw_data = value.tobytes()
        return name

    def node(
        self,
        op_type: str,
        name: str,
        inputs: Sequence[Tensor | str],
        shape: tuple[int, ...],
        *,
        output: str | None = None,
        **attributes: Any,
    ) -> Tensor:
        """Append a node with one output.

        Args:
            op_type: ONNX operator.
            name: Name of the node.
            inputs: Tensors, and names of constants; an empty string omits an optional input.
            shape: Shape of the output, without the batch dimension.
            output: Name of the output tensor, if it differs from that of the node.
            **attributes: Attributes of the operator.
        """
        return self.nodes(op_type, name, inputs, {output or name: shape}, **attributes)[0]

    def nodes(
        self,
        op_type: str,
        name: str,
        inputs: Sequence[Tensor | str],
        outputs: Mapping[str, tuple[int, ...]],
        **attributes: Any,
    ) -> tuple[Tensor, ...]:
        """Append a node whose `outputs` map names to shapes; otherwise like :meth:`node`.

        Raises:
            ExportError: A node of that name exists already, because two modules have the same path; or no part of the
                model is named. Both are mistakes in the program.
        """
        if name in self._nodes:
            raise ExportError(f'two nodes of graph "{self._graph.name}" are called "{name}"')
        if self._part is None:
            raise ExportError(f'node "{name}" of graph "{self._graph.name}" belongs to no part of the model')
        self._nodes.add(name)
        names = [item.name if isinstance(item, Tensor) else item for item in inputs]
        tensors = tuple(Tensor(key, shape) for key, shape in outputs.items())
        node = helper.make_node(op_type, names, list(outputs), name=name, **attributes)
        part = self._part if isinstance(self._part, str) else self._part(tensors[0].shape)
        node.metadata_props.add(key=PROPERTY, value=part)
        self._graph.node.append(node)
        self._graph.value_info.extend(self._value_info(tensor) for tensor in tensors)
        return tensors

    def build(self, outputs: Sequence[Tensor], metadata: Mapping[str, str]) -> onnx.ModelProto:
        """Finish the graph.

        Args:
            outputs: Tensors that become the graph's outputs, in that order.
            metadata: Entries for ``metadata_props``, which are sorted by key.

        Returns:
            The model; the builder keeps no other copy and must not be used again.
        """
        names = {tensor.name for tensor in outputs}
        inner = [info for info in self._graph.value_info if info.name not in names]
        del self._graph.value_info[:]
        self._graph.value_info.extend(inner)
        self._graph.output.extend(self._value_info(tensor) for tensor in outputs)
        helper.set_model_props(self._model, dict(sorted(metadata.items())))
        return self._model

    def _value_info(self, tensor: Tensor) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor.name, onnx.TensorProto.FLOAT, (self.batch, *tensor.shape))


def int64(*values: int) -> npt.NDArray[np.int64]:
    """Return values as a one-dimensional constant, the form of shapes and sizes."""
    return np.array(values, np.int64)
