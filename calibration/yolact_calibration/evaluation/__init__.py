"""How good detections are: average precision with labels, agreement without, and how sure either is."""

__all__: list[str] = []
