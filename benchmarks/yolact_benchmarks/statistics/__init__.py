"""Statistics of latency series: intervals, stability, comparison of two records."""

__all__: list[str] = []
