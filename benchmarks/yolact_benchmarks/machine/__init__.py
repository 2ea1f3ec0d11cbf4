"""State of the machine during a measurement: load, clocks, temperature, power, memory."""

__all__: list[str] = []
