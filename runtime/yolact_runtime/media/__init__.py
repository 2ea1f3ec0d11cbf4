"""Reading and writing of pictures, videos and result files, for commands. The segmenter imports nothing of it."""

__all__: list[str] = []
