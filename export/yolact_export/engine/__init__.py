"""TensorRT engines from ONNX networks, built in a process of their own."""

__all__: list[str] = []
