"""The original implementation's outputs, against our model in torch and against its ONNX export."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import onnxruntime as ort
import pytest
import torch

from support import goldens
from yolact_export.checkpoint.checkpoint import LoadedCheckpoint, load_checkpoint
from yolact_export.graph.export import DeformConvForm, ExportOptions, export_network
from yolact_runtime.cpu.priors import make_priors

# Measured: 6e-6 in torch and 1.1e-5 in ONNX Runtime. The contract is 1e-3.
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Loaded:
    golden: goldens.Golden
    checkpoint: LoadedCheckpoint


@pytest.fixture(scope="module", params=goldens.CONFIG_NAMES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    golden = goldens.load_golden(request.param)
    path = goldens.write_golden_checkpoint(golden, tmp_path_factory.mktemp("golden"))
    yield Loaded(golden, load_checkpoint(path))
    path.unlink()


def assert_matches(golden: goldens.Golden, image_name: str, box, logit, coefficient, prototype) -> None:
    outputs = {
        "loc": box[0],
        "conf": goldens.softmax(logit[0]),
        "mask": coefficient[0],
        "proto": prototype[0].transpose(1, 2, 0),
    }
    for name, value in outputs.items():
        assert list(value.shape) == golden.document["images"][image_name][name]["shape"]
        error = goldens.relative_error(goldens.sampled(value), golden.samples[f"{image_name}.{name}"])
        assert error < TOLERANCE, (image_name, name)


@pytest.mark.parametrize("name", goldens.CONFIG_NAMES)
def test_filled_weights_are_those_of_the_golden(name):
    golden = goldens.load_golden(name)
    assert goldens.weights_sha256(goldens.golden_arrays(golden)) == golden.document["weights_sha256"]


@pytest.mark.parametrize("image_name", goldens.IMAGE_NAMES)
def test_network_input_matches(image_name):
    golden = goldens.load_golden("yolact_resnet50")
    error = goldens.relative_error(
        goldens.sampled(goldens.golden_input(golden, image_name)), golden.samples[f"{image_name}.input"]
    )
    assert error < 1e-5


def test_standard_checkpoint_needs_no_assumption(loaded):
    findings = "\n".join(loaded.checkpoint.findings)
    assert "ASSUMED" not in findings
    assert "pruned" not in findings
    assert loaded.checkpoint.class_names == tuple(loaded.golden.document["classes"])
    assert loaded.checkpoint.config.name == loaded.golden.name


def test_priors_match(loaded):
    config = loaded.checkpoint.config
    priors = make_priors(config.prior_spec(), config.input_height, config.input_width)
    np.testing.assert_allclose(goldens.sampled(priors), loaded.golden.samples["priors"], rtol=0, atol=1e-7)


def test_torch_outputs_match(loaded):
    for image_name in goldens.IMAGE_NAMES:
        image = torch.from_numpy(goldens.golden_input(loaded.golden, image_name))
        with torch.no_grad():
            outputs = loaded.checkpoint.model(image)
        assert_matches(loaded.golden, image_name, *(output.numpy() for output in outputs))


def test_onnx_outputs_match(loaded):
    # Without deformable blocks both forms are one graph.
    is_deformable = any(loaded.checkpoint.config.backbone.deformable)
    for form in DeformConvForm if is_deformable else [DeformConvForm.GRID_SAMPLE]:
        exported = export_network(loaded.checkpoint, ExportOptions(deform_conv=form))
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = ort.InferenceSession(exported.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for image_name in goldens.IMAGE_NAMES:
            outputs = session.run(None, {"image": goldens.golden_input(loaded.golden, image_name)})
            assert_matches(loaded.golden, image_name, *outputs)
