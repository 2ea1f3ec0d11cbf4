"""Networks in float16: written, bounded, and judged as an engine would compute them."""

__all__: list[str] = []
