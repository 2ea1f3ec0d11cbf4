"""Alternatives to this project (PyTorch, ONNX Runtime, OpenVINO), measured side by side with it."""

__all__: list[str] = []
