"""Synthetic scenes of shapes with exact truth: ``python -m yolact_calibration.shapes --seed S --count N -o DIR``."""

from yolact_calibration.shapes.shapes import main

__all__ = ["main"]
