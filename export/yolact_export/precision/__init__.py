"""Float16 and INT8 networks of a bundle: made, judged, and reported."""

__all__: list[str] = []
