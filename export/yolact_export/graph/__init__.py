"""Conversion of a model to ONNX, layer by layer."""

__all__: list[str] = []
