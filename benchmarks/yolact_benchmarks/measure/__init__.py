"""Measurement of a model: frames, timers on host and device, processes."""

__all__: list[str] = []
