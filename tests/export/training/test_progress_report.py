from __future__ import annotations

import io

from support.recorder import Recorder
from yolact_calibration.training.training import Progress
from yolact_export.training.progress_report import ProgressReport
from yolact_runtime.terminal import Terminal


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_accuracy_stays_and_steps_are_the_status() -> None:
    told = Recorder()
    report = ProgressReport(told)
    for step in range(1, 51):
        report(Progress(step, 50, {"distill_mask": 1.5}, 3700.0, {"mask AP": 0.5} if step == 50 else None))
    assert told.lines == ["  step 50: mask AP 0.500"]
    assert told.of("status")[0] == "  step 1/50  loss 1.500  (mask 1.500)  1 h 01 min left"


def test_a_terminal_shows_one_line_that_fits() -> None:
    stream = _Tty()
    report = ProgressReport(Terminal(stream=stream))
    report(Progress(1, 50, {f"term_{i}": 1.0 for i in range(40)}, 3.0))
    assert "\n" not in stream.getvalue()
    assert len(stream.getvalue().removeprefix("\r\033[K")) < 200


def test_quiet_is_quiet() -> None:
    for stream in (io.StringIO(), _Tty()):
        ProgressReport(Terminal(quiet=True, stream=stream))(Progress(1, 2, {"a": 1.0}, 1.0, {"AP": 0.1}))
        assert stream.getvalue() == ""
