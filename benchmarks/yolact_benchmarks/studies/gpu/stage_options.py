"""Options of every stage of a GPU day: the file for its rows, the scale of its work, and the driver to use."""

from __future__ import annotations

import argparse
import importlib
import os
from dataclasses import dataclass
from pathlib import Path

from yolact_benchmarks.studies.gpu.record import Rows
from yolact_plugins.driver.driver import Device
from yolact_runtime.errors import UsageError

__all__ = ["DRIVER_VARIABLE", "NOT_MEASURED", "SCALE_VARIABLE", "Scale", "open_device", "stage_parser"]

DRIVER_VARIABLE = "YOLACT_GPU_DRIVER"
"""Environment variable with ``MODULE:CLASS`` of a simulated driver, for a dry run; test suites use it as well."""
SCALE_VARIABLE = "YOLACT_TEST_SCALE"
"""Environment variable with the share of the work, for stages that are test suites."""


NOT_MEASURED = 77
"""Exit status of a stage that found nothing to measure, and wrote a row ``not_measured`` with the reason."""


@dataclass(frozen=True)
class Scale:
    """The share of a stage's work that is done: 1 on a GPU, a few hundredths in a dry run."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise UsageError(f"--scale must be greater than 0 and at most 1, found {self.factor}")

    def of(self, number: int, at_least: int = 1) -> int:
        """Return that share of a number of repetitions, pixels or classes."""
        return max(round(number * self.factor), at_least)


def stage_parser(stage: str, description: str | None) -> argparse.ArgumentParser:
    """Create a parser with the options ``--rows`` and ``--scale``; a stage adds its own options."""
    parser = argparse.ArgumentParser(prog=f"python -m yolact_benchmarks.studies.gpu.{stage}", description=description)
    parser.add_argument("--rows", type=lambda text: Rows(stage, Path(text)), default=Rows(stage), metavar="FILE")
    parser.add_argument("--scale", type=lambda text: Scale(float(text)), default=Scale(), metavar="SHARE")
    return parser


def open_device() -> Device:
    """Open the GPU, or a simulated one if ``YOLACT_GPU_DRIVER`` names a driver.

    Raises:
        UsageError: The driver does not exist.
    """
    name = os.environ.get(DRIVER_VARIABLE)
    if not name:
        return Device()
    module, _, attribute = name.partition(":")
    try:
        driver = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{DRIVER_VARIABLE}={name} is not a driver ({error}); write it as MODULE:CLASS") from error
    return Device(driver=driver)
