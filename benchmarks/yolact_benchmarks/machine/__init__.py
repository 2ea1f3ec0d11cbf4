"""The machine while it is measured: load, clocks, heat, power, memory."""

__all__: list[str] = []
