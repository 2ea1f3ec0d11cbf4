"""Networks in INT8 and float16 made from a float32 network, and judged against it."""

__all__: list[str] = []
