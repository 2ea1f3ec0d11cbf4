"""Pictures, videos and result files: what the command line reads and writes. The segmenter imports nothing of it."""

__all__: list[str] = []
