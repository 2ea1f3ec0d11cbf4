"""Errors of the simulated GPU: the driver's number, and a message that says what was wrong."""

from __future__ import annotations

import enum

__all__ = ["HostGpuError", "Status"]


class Status(enum.IntEnum):
    """Members of cuda.h's ``CUresult`` that are used here."""

    INVALID_VALUE = 1
    OUT_OF_MEMORY = 2
    INVALID_IMAGE = 200
    INVALID_CONTEXT = 201
    INVALID_HANDLE = 400
    ILLEGAL_STATE = 401
    NOT_FOUND = 500
    NOT_READY = 600
    ILLEGAL_ADDRESS = 700
    LAUNCH_FAILED = 719
    NOT_SUPPORTED = 801
    CAPTURE_UNSUPPORTED = 900
    CAPTURE_INVALIDATED = 901
    CAPTURE_ISOLATION = 905
    CAPTURED_EVENT = 907
    CAPTURE_WRONG_THREAD = 908


class HostGpuError(Exception):
    """Error that becomes the status of the call inside which it is raised, and thereby a ``CudaError``."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status
