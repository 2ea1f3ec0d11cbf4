"""INT8: ranges, Q/DQ placement, and the search for the layers that bear it."""

__all__: list[str] = []
