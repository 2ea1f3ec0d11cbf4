"""What a series of latencies says: intervals, stability, comparison of two records."""

__all__: list[str] = []
