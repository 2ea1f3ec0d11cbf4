"""Results of a frame: instances and their compact masks, as RLE, polygons, pixels or supervision's detections."""

__all__: list[str] = []
