"""Exported models: bundle, manifest, metadata of ONNX files and engines, signature, kernels."""

__all__: list[str] = []
