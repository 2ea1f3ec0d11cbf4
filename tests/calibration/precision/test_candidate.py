"""Whether outputs may be float16: networks planted so that it costs nothing, too much, or cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from support.precision_trials import MANIFEST, add_to_bias, make_frames, rely_on_fine_coefficients
from support.quantised import float_network, image_of, observed_ranges, run
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_calibration.evaluation.judge import Judge
from yolact_calibration.precision.candidate import Candidate, CandidateJudge
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq import quantise
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.trial import Trial
from yolact_runtime.model.manifest import NetworkDtypes

HALF, OUTPUTS_SINGLE = NetworkDtypes("float16", "float16"), NetworkDtypes("float16", "float32")
AIM = 2.0


def examiner(model: onnx.ModelProto, aim: float = AIM) -> CandidateJudge:
    trial = Trial(MANIFEST, make_frames(2), num_threads=1)
    judge = Judge(trial.find(model), MANIFEST.class_names, settings=BootstrapSettings(num_resamples=20))
    return CandidateJudge(trial, judge, aim)


def largest_of(model: onnx.ModelProto) -> dict[str, float]:
    return {name: max(-found.low, found.high) for name, found in observed_ranges(model).items()}


def examine(model: onnx.ModelProto, aim: float = AIM) -> Candidate:
    return examiner(model, aim).examine_in_half(model, largest_of(model))


def test_outputs_that_cost_nothing_are_float16_and_half_the_size() -> None:
    model = float_network()
    found = examine(model)
    assert found.dtypes == HALF
    assert found.holds(AIM)
    assert found.half is not None
    assert found.half.float32_outputs is None
    whole = Candidate(model, None, {}, found.judgement, True)
    rows = MANIFEST.priors.num_priors
    values = sum(output.size for output in run(model, image_of(model)).values())
    assert values > rows * (4 + len(MANIFEST.class_names) + 1)
    assert (whole.output_bytes, found.output_bytes) == (4 * values, 2 * values)


def test_they_cost_what_the_same_network_with_float32_outputs_does_but_for_the_last_digit_of_coefficients() -> None:
    model = float_network()
    judge = examiner(model)
    half = judge.examine_in_half(model, largest_of(model))
    single = CandidateJudge(judge.trial, judge.judge, AIM, half_io=False).examine_in_half(
        model, largest_of(model), lambda *_: None
    )
    assert (half.dtypes, single.dtypes) == (HALF, NetworkDtypes())
    for name, instances in single.predictions.items():
        found = half.predictions[name]
        assert len(found) == len(instances) > 0
        for field in ("xyxy", "confidence", "class_id"):
            assert np.array_equal(getattr(found, field), getattr(instances, field))
        iou = found.mask.iou(instances.mask).diagonal()
        assert iou[instances.mask.area() > 100].min() > 0.97


def test_outputs_that_cost_more_than_may_be_lost_are_float32_and_say_what_was_measured() -> None:
    model = rely_on_fine_coefficients(float_network())
    found = examine(model)
    assert found.dtypes == OUTPUTS_SINGLE
    assert found.holds(AIM)
    assert found.half is not None
    assert found.half.float32_outputs is not None
    told = re.fullmatch(
        r"in float16 (\S+) points are lost; in float32 (\S+) points are lost, 2 allowed", found.half.float32_outputs
    )
    assert told is not None
    assert float(told[1]) > 20
    assert float(told[2]) == pytest.approx(found.judgement.worst, abs=0.005)
    # Whoever may lose as much gets them.
    assert examine(model, 100.0).dtypes == HALF


def test_logits_near_the_end_of_float16_keep_the_outputs_in_float32() -> None:
    """Softmax does not see what all classes have in common; float16 does."""
    found = examine(add_to_bias(float_network(), "prediction_layers.0.conf_layer", 40_000))
    assert found.dtypes == OUTPUTS_SINGLE
    assert found.holds(AIM)
    assert found.half is not None
    assert found.half.float32_outputs is not None
    assert re.match(r"prediction_layers\.0\.conf_layer\.concat: .*4e\+04", found.half.float32_outputs)


def overflow(model: onnx.ModelProto) -> onnx.ModelProto:
    return add_to_bias(model, "prediction_layers.0.conf_layer", 70_000)


def tie(model: onnx.ModelProto) -> onnx.ModelProto:
    """Between 16,384 and 32,768 a step of float16 is 16: every class of every prior has the same logit."""
    return add_to_bias(model, "prediction_layers.0.conf_layer", 20_000)


@pytest.mark.parametrize(("plant", "is_sound"), [(overflow, False), (tie, True)])
def test_where_float32_outputs_would_not_mend_it_the_outputs_are_not_blamed(
    plant: Callable[[onnx.ModelProto], onnx.ModelProto], is_sound: bool
) -> None:
    """The layer itself rounds: the network is no good in float16, and its judge says so of all of it."""
    model = plant(float_network())
    found = examiner(model).examine_in_half(model, {})
    assert found.is_sound == is_sound
    assert not found.holds(AIM)
    assert found.judgement.worst > 20
    assert found.half is not None
    assert found.half.float32_outputs is None


def test_int8_networks_for_engines_hand_over_float16() -> None:
    model = float_network()
    names = [convolution.name for convolution in NetworkGraph(model).convolutions]
    quantised = quantise(model, observed_ranges(model), names, Dialect.TENSORRT)
    found = examiner(model, 100.0).examine_in_half(quantised, largest_of(model))
    assert found.dtypes == HALF
    assert found.is_sound
