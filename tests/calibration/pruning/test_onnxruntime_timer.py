import sys

import onnx
import pytest

from yolact_calibration.errors import MissingDependencyError, PruningError
from yolact_calibration.pruning.layer_shape import LayerShape
from yolact_calibration.pruning.onnxruntime_timer import OnnxRuntimeTimer

SHAPES = {
    "plain": LayerShape(16, 32, (3, 3), (1, 1), 1, (12, 10), (12, 10)),
    "stem": LayerShape(3, 16, (7, 7), (2, 2), 1, (33, 20), (17, 10)),
    "strided 1x1": LayerShape(16, 8, (1, 1), (2, 2), 1, (9, 8), (5, 4)),
    "depthwise": LayerShape(24, 24, (5, 5), (2, 2), 24, (10, 10), (5, 5)),
    "one channel": LayerShape(1, 1, (3, 3), (1, 1), 1, (10, 10), (10, 10)),
    "deformable": LayerShape(16, 24, (3, 3), (2, 2), 1, (10, 9), (5, 5), deformable=True),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_kind_of_layer_is_measured(name):
    timer = OnnxRuntimeTimer(repeats=2, warm_up=1)
    # The checker infers the shape of the output and compares it with the one that the layer claims.
    onnx.checker.check_model(timer._graph(SHAPES[name]), full_check=True)
    (ms,) = timer.times_ms([SHAPES[name]])
    assert 0 < ms < 1000


def test_wide_layers_take_longer_than_narrow_ones():
    def layer(width):
        return LayerShape(width, width, (3, 3), (1, 1), 1, (32, 32), (32, 32))

    # Eight times the width is 64 times the work: no mood of the machine turns that around.
    narrow, wide = OnnxRuntimeTimer(repeats=3).times_ms([layer(16), layer(128)])
    assert wide > 4 * narrow


def test_layers_that_do_not_fit_into_memory_together_are_measured_in_portions(monkeypatch):
    monkeypatch.setattr("yolact_calibration.pruning.onnxruntime_timer._BYTES_AT_ONCE", 1)
    times = OnnxRuntimeTimer(repeats=1, warm_up=0).times_ms([*SHAPES.values()])
    assert len(times) == len(SHAPES)
    assert min(times) > 0


def test_the_backend_says_what_times_depend_on():
    one, two = OnnxRuntimeTimer(1).backend, OnnxRuntimeTimer(2).backend
    assert one.startswith("ONNX Runtime ")
    assert one.endswith(", 1 thread")
    assert two.endswith(", 2 threads")


@pytest.mark.parametrize("options", [{"num_threads": 0}, {"repeats": 0}, {"warm_up": -1}])
def test_senseless_options_are_refused(options):
    with pytest.raises(PruningError, match="at least 1"):
        OnnxRuntimeTimer(**options)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="onnxruntime"):
        OnnxRuntimeTimer()
