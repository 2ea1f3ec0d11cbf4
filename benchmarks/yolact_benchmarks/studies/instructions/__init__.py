"""Executed instructions of a frame's kernels, without a GPU."""
