"""The measuring of a model: frames, timers of host and device, processes."""

__all__: list[str] = []
