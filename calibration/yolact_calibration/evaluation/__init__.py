"""Quality of detections: average precision with labels, agreement without labels, and confidence intervals of both."""

__all__: list[str] = []
