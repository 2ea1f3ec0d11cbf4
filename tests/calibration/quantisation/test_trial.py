from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from support.precision_trials import MANIFEST, make_frames, trial_on
from support.quantised import float_network, image_of, observed_ranges, run
from support.recorder import Recorder
from support.scenes import Thing, mask_iou_model, network_model, raw_outputs, small_manifest
from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq import quantise
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.trial import GraphBackend, Trial
from yolact_runtime.errors import BackendError
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

BRIGHT, DARK = np.full((20, 30, 3), 250, np.uint8), np.zeros((40, 10, 3), np.uint8)
SCENE = small_manifest()


def scene_network() -> onnx.ModelProto:
    """Sees two things in bright frames."""
    things = [Thing((0.1, 0.1, 0.5, 0.9), 0), Thing((0.6, 0.1, 0.9, 0.9), 1)]
    return onnx.load_model_from_string(network_model(SCENE, raw_outputs(SCENE, things)))


def overflowing_network() -> onnx.ModelProto:
    """The logarithm of the darkness: no number in bright frames."""
    model = scene_network()
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Log"
    return model


def test_it_finds_what_the_runtime_finds_in_pixels_of_each_frame() -> None:
    model, frames = float_network(), make_frames(2)
    found = Trial(MANIFEST, frames, num_threads=1).find(model)
    assert list(found) == ["0.png", "1.png"]
    backend = GraphBackend(model.SerializeToString(), 1)
    with Segmenter(MANIFEST, backend, None, SegmenterOptions(num_threads=1)) as segmenter:
        for name, frame in frames:
            expected = segmenter(frame)
            np.testing.assert_array_equal(found[name].xyxy, expected.xyxy)
            np.testing.assert_array_equal(found[name].confidence, expected.confidence)


def test_low_scores_are_kept_because_average_precision_counts_them() -> None:
    outputs = raw_outputs(SCENE, [Thing((0.1, 0.1, 0.5, 0.9), 0, 0.08)])
    weak = onnx.load_model_from_string(network_model(SCENE, outputs))
    assert Trial(SCENE, [("a", BRIGHT)]).find(weak)["a"].confidence.max() == pytest.approx(0.08, abs=1e-3)


def test_progress_is_told_image_by_image() -> None:
    told = Recorder()
    Trial(SCENE, [("a", BRIGHT), ("b", DARK)]).find(scene_network(), reporter=told, label="fp16")
    assert told.told == [("progress", "fp16 1/2"), ("progress", "fp16 2/2")]


def test_no_frame_finds_nothing() -> None:
    assert Trial(SCENE, []).find(scene_network()) == {}


def test_masks_are_scored_again_by_a_mask_iou_network(tmp_path: Path) -> None:
    path = tmp_path / "mask_iou.fp32.onnx"
    path.write_bytes(mask_iou_model([1.0, 0.5, 1.0]))
    manifest = small_manifest(mask_rescoring=True)
    found = Trial(manifest, [("a", BRIGHT)], path, 1).find(scene_network())["a"]
    assert found.mask_confidence is not None
    assert (found.mask_confidence < found.confidence).all()


def test_a_graph_that_onnxruntime_refuses_is_named_so() -> None:
    model = scene_network()
    model.graph.node[0].op_type = "NoSuchOperator"
    for find in (trial_on(1).find, trial_on(1).find_if_sound):
        with pytest.raises(CalibrationError, match=r"ONNX Runtime .* refuses the graph: .*NoSuchOperator"):
            find(model)


@pytest.mark.parametrize("simulate", [True, False])
def test_simulation_keeps_onnxruntime_from_integer_kernels(simulate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    original = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, **more: (made.append(options), original(model, options, **more))[1],
    )
    Trial(SCENE, [("a", BRIGHT)], num_threads=1).find(scene_network(), simulate=simulate)
    (options,) = made
    assert options.intra_op_num_threads == 1
    if simulate:
        assert options.get_session_config_entry("session.disable_quant_qdq") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.disable_quant_qdq")


@pytest.mark.parametrize("dialect", list(Dialect))
def test_quantised_graphs_compute_what_they_say(dialect: Dialect) -> None:
    model = float_network()
    names = [convolution.name for convolution in NetworkGraph(model).convolutions]
    quantised = quantise(model, observed_ranges(model), names, dialect)
    image = image_of(model)
    for simulate in (True, False):
        found = GraphBackend(quantised.SerializeToString(), 1, simulate).infer(image)
        for name, values in run(quantised, image, simulate=simulate).items():
            np.testing.assert_array_equal(found[name], values)


# --- networks that overflow -------------------------------------------------------------------------------------------


def test_the_original_has_to_be_sound() -> None:
    with pytest.raises(BackendError, match="NaN or infinity"):
        Trial(SCENE, [("dark", DARK), ("bright", BRIGHT)]).find(overflowing_network())


def test_a_candidate_that_overflows_on_one_image_finds_nothing_on_any() -> None:
    """Not only there: a network that fails in one of a hundred frames must not lose one point in a hundred."""
    frames = [("dark", DARK), ("bright", BRIGHT)]
    found = Trial(SCENE, frames).find_if_sound(overflowing_network())
    assert {name: (len(i), i.height, i.width) for name, i in found.items()} == {
        "dark": (0, 40, 10),
        "bright": (0, 20, 30),
    }


def test_a_sound_candidate_is_left_alone() -> None:
    """Two things in the bright frame and none in the dark one, as without the question whether it is sound."""
    trial = Trial(SCENE, [("dark", DARK), ("bright", BRIGHT)])
    found, expected = trial.find_if_sound(scene_network()), trial.find(scene_network())
    assert {name: i.class_id[i.confidence > 0.5].tolist() for name, i in found.items()} == {
        "dark": [],
        "bright": [0, 1],
    }
    for name, instances in found.items():
        np.testing.assert_array_equal(instances.xyxy, expected[name].xyxy)
        np.testing.assert_array_equal(instances.confidence, expected[name].confidence)
        assert instances.mask == expected[name].mask
