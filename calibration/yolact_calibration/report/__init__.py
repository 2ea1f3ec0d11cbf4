"""Pages and charts that stand alone: what a precision export or a training has done."""

__all__: list[str] = []
