"""What an exported model says of itself: bundle, manifest, metadata of ONNX files and engines, signature, kernels."""

__all__: list[str] = []
