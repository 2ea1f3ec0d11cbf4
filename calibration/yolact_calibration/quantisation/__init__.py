"""INT8 quantisation: ranges, Q/DQ placement, and the search for the layers that tolerate it."""

__all__: list[str] = []
