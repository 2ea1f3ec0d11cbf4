"""The root of the project's error tree, and the errors that array arithmetic can raise."""

from typing import ClassVar

__all__ = ["MissingDependencyError", "ShapeError", "YolactError"]


class YolactError(Exception):
    """Something the project can explain: the message says what was tried, what was found and what to do.

    ``exit_status`` is what a command line ends with when this error reaches it.
    """

    exit_status: ClassVar[int] = 1


class ShapeError(YolactError):
    """An array has the wrong shape or dtype, or two arrays disagree."""


class MissingDependencyError(YolactError):
    """An optional package is needed and not installed; the message names the extra that brings it."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(
            f'{purpose} needs the package "{package}", which is not installed: pip install "yolact-deploy[{extra}]" '
            f'(in a clone of the project: pip install ".[{extra}]")'
        )
        self.package = package
        self.extra = extra
