"""From ONNX to TensorRT engines, built in a process of their own."""

__all__: list[str] = []
