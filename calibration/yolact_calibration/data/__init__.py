"""Data sets and streams of images, as training and calibration need them."""

__all__: list[str] = []
