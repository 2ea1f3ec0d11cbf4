"""The functions and options that :mod:`yolact_benchmarks` exports."""

__all__: list[str] = []
