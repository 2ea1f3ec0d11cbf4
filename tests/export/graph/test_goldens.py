"""The original implementation's outputs, against our model in torch and against its ONNX export.

What a bundle's network gives for the same images is compared in ``tests/e2e/test_goldens.py``.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from support import goldens
from yolact_export.checkpoint.checkpoint import LoadedCheckpoint, load_checkpoint
from yolact_export.graph.export import DeformConvForm, ExportOptions, export_network
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session
from yolact_runtime.cpu.priors import make_priors

pytestmark = pytest.mark.long
# A network of these takes a second for an image, and every image goes through every weight.
IMAGE_OF = dict(zip(goldens.CONFIG_NAMES, (*goldens.IMAGE_NAMES, goldens.IMAGE_NAMES[0]), strict=True))


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
    """For one of the images: the export is compared with torch, and in ``e2e`` with the original for all of them."""
    image_name = IMAGE_OF[loaded.golden.name]
    image = torch.from_numpy(goldens.golden_input(loaded.golden, image_name))
    with torch.no_grad():
        outputs = loaded.checkpoint.model(image)
    goldens.require_same_outputs(loaded.golden, image_name, *(output.numpy() for output in outputs))


@pytest.mark.parametrize("loaded", ["yolact_plus_resnet50"], indirect=True)
def test_onnx_outputs_match_in_the_other_form(loaded):
    """Bundles have the usual form of deformable convolutions; theirs are compared in ``e2e``."""
    assert ExportOptions().deform_conv is not DeformConvForm.GRID_SAMPLE
    exported = export_network(loaded.checkpoint, ExportOptions(deform_conv=DeformConvForm.GRID_SAMPLE))
    session = open_cpu_session(exported.SerializeToString(), SessionSettings(torch.get_num_threads()))
    image_name = IMAGE_OF[loaded.golden.name]
    outputs = session.run(None, {"image": goldens.golden_input(loaded.golden, image_name)})
    goldens.require_same_outputs(loaded.golden, image_name, *outputs)
