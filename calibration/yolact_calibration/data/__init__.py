"""Data sets and streams of images for training and calibration."""

__all__: list[str] = []
