"""The frame pipeline on the CPU: preprocessing, priors, Fast NMS, mask assembly, in NumPy."""

__all__: list[str] = []
