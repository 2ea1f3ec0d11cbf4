"""The status word of a frame has one meaning in CUDA C++ and in Python."""

from __future__ import annotations

import re
from importlib.resources import files

from yolact_plugins.frame_status import FrameStatus


def test_python_and_the_kernels_have_the_same_bits() -> None:
    text = files("yolact_plugins").joinpath("kernels", "status.cuh").read_text(encoding="utf-8")
    found = {name: int(value) for name, value in re.findall(r"^\s*STATUS_(\w+) = (\d+)u,", text, re.MULTILINE)}
    assert found == {status.name: status.value for status in FrameStatus}
    # Every bit is one of its own: a combination would be no member, and would not be iterated.
    assert text.count("STATUS_") == len(found)
