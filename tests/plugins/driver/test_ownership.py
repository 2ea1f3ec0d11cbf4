from __future__ import annotations

import subprocess
import sys

import pytest

from yolact_plugins.driver.ownership import Owned, close_after_failure, close_all
from yolact_plugins.errors import CudaContextLostError, CudaError


class Resource(Owned):
    def __init__(self, log: list[str], name: str, *held: Owned, fails: bool = False) -> None:
        self.log, self.name, self.fails = log, name, fails
        super().__init__(*held)

    def _release(self) -> None:
        self.log.append(self.name)
        if self.fails:
            raise CudaError(f"the driver refuses {self.name}")


def test_released_once() -> None:
    log: list[str] = []
    with Resource(log, "a") as resource:
        assert not resource.closed
    resource.close()
    assert (log, resource.closed) == (["a"], True)
    with pytest.raises(CudaError, match="this Resource is closed"):
        resource.require_open()


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_what_is_stood_on_goes_last_whatever_is_closed_first(order: str) -> None:
    log: list[str] = []
    a = Resource(log, "a")
    b = Resource(log, "b", a)
    for name in order:
        {"a": a, "b": b}[name].close()
    assert log == ["b", "a"]


def test_a_held_resource_lives_on_but_takes_nothing_new() -> None:
    log: list[str] = []
    resource = Resource(log, "a")
    resource.hold()
    resource.hold()
    resource.close()
    with pytest.raises(CudaError):
        resource.hold()
    resource.drop()
    assert log == []
    resource.drop()
    assert log == ["a"]


def test_a_release_that_fails_still_lets_go_of_what_was_held() -> None:
    log: list[str] = []
    a = Resource(log, "a")
    b = Resource(log, "b", a, fails=True)
    a.close()
    with pytest.raises(CudaError, match="the driver refuses"):
        b.close()
    assert log == ["b", "a"]


def test_closing_takes_every_step_and_tells_of_the_first_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    resources = [Resource(log, name, fails=name in "bc") for name in "abcd"]
    with pytest.raises(CudaError, match="the driver refuses b"):
        close_all(*(resource.close for resource in resources))
    assert log == ["a", "b", "c", "d"]
    assert "something else could not be freed: the driver refuses c" in caplog.text


def test_closing_after_a_failure_leaves_its_error_alone(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    close_after_failure(Resource(log, "b", fails=True).close, Resource(log, "a").close)
    assert log == ["b", "a"]
    assert "something could not be freed: the driver refuses b" in caplog.text


def test_what_goes_with_the_context_is_no_failure_of_closing() -> None:
    class Lost(Resource):
        def _release(self) -> None:
            super()._release()
            raise CudaContextLostError("lost")

    log: list[str] = []
    held = Resource(log, "held")
    lost = Lost(log, "lost", held)
    held.close()
    lost.close()
    assert log == ["lost", "held"]


def test_forgetting_to_close_is_said_and_done() -> None:
    log: list[str] = []
    resource = Resource(log, "a")
    with pytest.warns(ResourceWarning, match="a Resource was not closed"):
        del resource
    assert log == ["a"]


def test_an_object_that_was_never_made_is_not_released() -> None:
    closed = Resource([], "a")
    closed.close()
    log: list[str] = []
    with pytest.raises(CudaError):
        Resource(log, "b", closed)
    assert log == []


# The modules are cleared while `logging`, which was imported earlier, still keeps what was not closed.
_LEFT_OPEN = """
import logging, sys
import numpy as np
from yolact_plugins.driver import dlpack, ownership

class Resource(ownership.Owned):
    def _release(self):
        raise AssertionError("released while the interpreter ends")

logging.left_open = {left_open}
sys.kept_alive = logging, dlpack, ownership
"""


@pytest.mark.parametrize("left_open", ["Resource()", "dlpack.import_capsule(np.arange(3.0).__dlpack__())"])
def test_what_is_still_open_when_the_interpreter_ends_is_left_in_silence(left_open: str) -> None:
    program = f"import sys; sys.path[:] = {sys.path!r}" + _LEFT_OPEN.format(left_open=left_open)
    ended = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
