"""What a frame's result is made of: instances and their compact masks, as RLE, polygons or pixels."""

__all__: list[str] = []
