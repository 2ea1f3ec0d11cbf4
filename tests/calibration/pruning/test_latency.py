import json

import pytest

from support.pruning import SMALL, MacTimer, random_image, random_model
from support.recorder import Recorder
from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.channel_groups import find_channel_groups
from yolact_calibration.pruning.latency import CachedTimer, measure_latency
from yolact_calibration.pruning.layer_shape import LayerShape, trace_layers

LAYER = LayerShape(16, 32, (3, 3), (1, 1), 1, (8, 8), (8, 8))


@pytest.fixture(scope="module")
def model():
    return random_model(SMALL)


@pytest.fixture(scope="module")
def groups(model):
    return find_channel_groups(model)


@pytest.fixture(scope="module")
def calls(model):
    return trace_layers(model, random_image(SMALL))


def test_a_model_takes_the_sum_of_its_layers(calls, groups):
    table = measure_latency(calls, groups, MacTimer())
    assert table.backend == "multiplications"
    assert table.total_ms({}) == pytest.approx(sum(call.shape.macs for call in calls) / 1e6 + 0.01 * len(calls))
    assert sum(table.block_ms({}).values()) == pytest.approx(table.total_ms({}))
    assert table.macs({}) == sum(call.shape.macs for call in calls)


def test_widths_of_both_sides_count(calls, groups):
    table = measure_latency(calls, groups, MacTimer())
    dense = table.block_ms({})["proto_net"]
    widths = {"proto_net.0": 32, "fpn.pred_layers.0": 16}
    # proto_net.0 reads a quarter and writes a half; proto_net.2 reads a half. They run on an 8 x 8 map.
    layer_ms = 64 * 64 * 9 * 64 / 1e6
    assert dense - table.block_ms(widths)["proto_net"] == pytest.approx(layer_ms * (1 - 1 / 8) + layer_ms / 2)


def test_equal_shapes_are_measured_once(calls, groups):
    timer = MacTimer()
    told = Recorder()
    table = measure_latency(calls, groups, timer, told)
    assert timer.num_measured == len(table.ms)
    done, totals = zip(*(text.removeprefix("  latency ").split("/") for text in told.of("status")), strict=True)
    assert set(totals) == {str(len(table.ms))}
    assert [int(count) for count in done] == sorted(int(count) for count in done)
    assert done[-1] == totals[-1]


def test_widths_that_were_not_measured_are_named(calls, groups):
    table = measure_latency(calls, groups, MacTimer())
    with pytest.raises(PruningError, match=r"conv 64>7 .* was not measured"):
        table.total_ms({"proto_net.0": 7})


def test_a_cache_measures_once(tmp_path):
    path, timer = tmp_path / "layers.json", MacTimer()
    first = CachedTimer(timer, path).times_ms([LAYER, LAYER.with_channels(8, 8), LAYER])
    assert timer.num_measured == 2
    assert first[0] == first[2] != first[1]
    again = CachedTimer(timer, path)
    assert again.times_ms([LAYER.with_channels(8, 8), LAYER]) == [first[1], first[0]]
    assert again.backend == "multiplications"
    assert timer.num_measured == 2


def test_a_cache_keeps_backends_apart(tmp_path):
    path, one, other = tmp_path / "layers.json", MacTimer(), MacTimer()
    other.backend = "another"
    CachedTimer(one, path).times_ms([LAYER])
    CachedTimer(other, path).times_ms([LAYER])
    assert (one.num_measured, other.num_measured) == (1, 1)
    (content,) = json.loads(path.read_text()).values()
    assert set(content) == {"multiplications", "another"}


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"layer_ms_v1": 3}', "[" * 100_000),
        *(
            f'{{"layer_ms_v1": {{"a": {{"b": {ms}}}}}}}'
            for ms in ('"soon"', "NaN", "-1", "0", "true", '"1.5"', "1e999")
        ),
    ],
)
def test_other_files_are_no_cache(tmp_path, content):
    path = tmp_path / "layers.json"
    path.write_text(content)
    with pytest.raises(PruningError, match=r"layers\.json is not a file of layer times .* delete it"):
        CachedTimer(MacTimer(), path)
    assert path.read_text() == content
