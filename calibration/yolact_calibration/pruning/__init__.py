"""Which channels may go, what they are worth, and what a layer's width costs in measured time."""

__all__: list[str] = []
