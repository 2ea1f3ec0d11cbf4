from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper

from support.activations import SPEC, TENSORS, make_frames, small_network
from support.recorder import Recorder
from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation import segmented_network
from yolact_calibration.quantisation.histogram import Histogram
from yolact_calibration.quantisation.observer import Observation, frame_digest, observe
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.model.manifest import InputSpec

FRAMES = [(f"frame {number}", frame) for number, frame in enumerate(make_frames(5))]


def reference(tensors: tuple[str, ...]) -> dict[str, npt.NDArray[np.float32]]:
    """All values, from a session that runs the whole network, unoptimised."""
    model = small_network()
    del model.graph.output[:]
    inner = [name for name in tensors if name != "image"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    session = open_cpu_session(model.SerializeToString(), SessionSettings(optimisation="none"))
    images = [preprocess(frame, SPEC) for _, frame in FRAMES]
    values = [dict(zip(inner, session.run(None, {"image": image}), strict=True)) | {"image": image} for image in images]
    return {name: np.concatenate([found[name] for found in values]) for name in tensors}


@pytest.mark.parametrize("bytes_at_once", [1, 20_000, 10**9])
@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_it_counts_what_the_whole_network_computes(
    bytes_at_once: int, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmented_network, "_BYTES_AT_ONCE", bytes_at_once)
    found = observe(small_network(), TENSORS, FRAMES, SPEC, num_threads=num_threads)
    assert list(found) == list(TENSORS)
    for name, values in reference(TENSORS).items():
        assert found[name].num_values == values.size
        scale = float(np.abs(values).max())
        assert found[name].low == pytest.approx(float(values.min()), abs=1e-5 * scale)
        assert found[name].high == pytest.approx(float(values.max()), abs=1e-5 * scale)
        # Values at the edge of a bin may fall to the other side.
        expected = Histogram()
        expected.add(values)
        assert np.abs(found[name].counts - expected.counts).sum() <= 0.01 * values.size


@pytest.mark.parametrize("bytes_at_once", [1, 10**9])
def test_order_and_repetition_do_not_matter(bytes_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmented_network, "_BYTES_AT_ONCE", bytes_at_once)
    found = observe(small_network(), TENSORS, FRAMES, SPEC)
    assert observe(small_network(), TENSORS[::-1], FRAMES[::-1], SPEC, num_threads=1) == found
    assert observe(small_network(), TENSORS, FRAMES + FRAMES[:2], SPEC, num_threads=1) == found


def test_a_relu_is_counted_or_derived_alike() -> None:
    both = observe(small_network(), ["conv1", "relu1"], FRAMES, SPEC)
    alone = observe(small_network(), ["relu1"], FRAMES, SPEC)
    assert both["relu1"].num_values == alone["relu1"].num_values
    assert np.abs(both["relu1"].counts - alone["relu1"].counts).sum() <= 0.01 * both["relu1"].num_values
    assert both["relu1"].low == alone["relu1"].low == 0


def test_models_come_as_they_are(tmp_path: Path) -> None:
    model = small_network()
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    content = model.SerializeToString()
    expected = observe(model, TENSORS, FRAMES, SPEC)
    assert observe(path, TENSORS, FRAMES, SPEC) == observe(content, TENSORS, FRAMES, SPEC) == expected
    assert model.SerializeToString() == content


def test_progress_counts_every_image() -> None:
    told = Recorder()
    observe(small_network(), ["late"], FRAMES, SPEC, reporter=told)
    assert told.told == [("progress", f"calibration {done}/5") for done in range(1, 6)]


class Broken:
    """Frames of which one raises."""

    def __init__(self, after: int, error: BaseException) -> None:
        self.after = after
        self.error = error

    def __len__(self) -> int:
        return len(FRAMES)

    def __iter__(self) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        yield from FRAMES[: self.after]
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), OSError("unplugged")])
def test_an_interruption_saves_and_the_rest_follows(error: BaseException) -> None:
    saved: list[Observation] = []
    with pytest.raises(type(error)):
        observe(small_network(), TENSORS, Broken(3, error), SPEC, save=lambda seen: saved.append(copy.deepcopy(seen)))
    assert len(saved) == 1
    assert saved[0].digests == {frame_digest(frame) for _, frame in FRAMES[:3]}
    # In another order: what is known is told by what the frames show.
    found = observe(small_network(), TENSORS, FRAMES[::-1], SPEC, begun=saved[0])
    assert found == observe(small_network(), TENSORS, FRAMES, SPEC)


def test_a_frame_that_failed_half_way_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Observation] = []
    add = Histogram.add

    def fail(self: Histogram, values: Any) -> None:
        if self.num_values > 2 * 3 * 24 * 32:
            raise MemoryError
        add(self, values)

    monkeypatch.setattr(Histogram, "add", fail)
    with pytest.raises(MemoryError):
        observe(small_network(), TENSORS, FRAMES, SPEC, save=saved.append)
    assert saved == []


def test_values_that_are_not_finite_are_an_error_that_names_the_first_tensor() -> None:
    with pytest.raises(CalibrationError, match=r'tensors .* first of all "conv1" \(\d+ of \d+ values over 5 images\)'):
        observe(small_network(gain=1e38), TENSORS, FRAMES, SPEC)


def test_what_cannot_be_observed_is_refused() -> None:
    with pytest.raises(CalibrationError, match="there are no images"):
        observe(small_network(), TENSORS, [], SPEC)
    with pytest.raises(CalibrationError, match="cannot read an ONNX model from 4 bytes"):
        observe(b"junk", TENSORS, FRAMES, SPEC)
    with pytest.raises(CalibrationError, match="cannot read an ONNX model from /nowhere"):
        observe(Path("/nowhere/model.onnx"), TENSORS, FRAMES, SPEC)
    with pytest.raises(CalibrationError, match=r'"image" is \[0, 3, 24, 32\], .* images are \[1, 3, 20, 32\]'):
        observe(small_network(), TENSORS, FRAMES, InputSpec(20, 32, (0, 0, 0), (1, 1, 1)))
    model = small_network()
    model.graph.node[0].op_type = "Convolve"
    with pytest.raises(CalibrationError, match="ONNX Runtime refuses the network"):
        observe(model, TENSORS, FRAMES, SPEC)
    model = small_network()
    model.graph.input.append(helper.make_tensor_value_info("other", 1, [1]))
    with pytest.raises(CalibrationError, match="one input, the image; found image, other"):
        observe(model, TENSORS, FRAMES, SPEC)
    model = small_network()
    model.graph.node.append(helper.make_node("Shape", ["late"], ["length"]))
    with pytest.raises(CalibrationError, match='"length" is int64; only float32'):
        observe(model, ["length"], FRAMES, SPEC)


_PEAK = """
import resource, sys
import numpy as np
from support.activations import SPEC, TENSORS, small_network
from yolact_calibration.quantisation.observer import observe
from yolact_runtime.model.manifest import InputSpec

class Frames:
    def __len__(self):
        return int(sys.argv[1])
    def __iter__(self):
        for seed in range(len(self)):
            yield "", np.random.default_rng(seed).integers(0, 256, (480, 640, 3), dtype=np.uint8)

observe(small_network(), TENSORS, Frames(), SPEC)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_images() -> None:
    peaks = []
    for count in ("4", "80"):
        command = [sys.executable, "-c", _PEAK, count]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        peaks.append(int(done.stdout))
    # Held in memory, 76 frames more would be 70 MB.
    assert peaks[1] < peaks[0] + 20_000
