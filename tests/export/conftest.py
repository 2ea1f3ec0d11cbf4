"""Fixtures of the export tests: models small enough to run in milliseconds."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.narrow_models import narrow_state_dict
from yolact_export.engine import gpus as engine_gpus
from yolact_export.model.registry import CONFIGS
from yolact_export.model.widths import fit_widths, make_skeleton
from yolact_export.model.yolact import Yolact
from yolact_runtime.backends.cuda_driver import Gpu
from yolact_runtime.errors import BackendUnavailableError


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    """Two threads for a run; xdist's workers share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, 2 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds for no named GPU depend on the one in this machine, and are refused on some."""

    def fail() -> Gpu:
        raise BackendUnavailableError("no NVIDIA driver here")

    monkeypatch.setattr(engine_gpus, "find_gpu", fail)


@pytest.fixture(scope="session")
def narrow_state() -> Callable[[str], dict[str, torch.Tensor]]:
    """The state dict of a known configuration, pruned to a sixteenth of its width."""
    # Tests change what they get.
    return lambda name: {key: value.clone() for key, value in narrow_state_dict(name).items()}


@pytest.fixture
def narrow_model(narrow_state: Callable[[str], dict[str, torch.Tensor]]) -> Callable[..., Yolact]:
    """A narrow model of a known configuration at a small input size, in eval mode."""

    def make(name: str, height: int = 97, width: int = 135) -> Yolact:
        state = narrow_state(name)
        model = make_skeleton(replace(CONFIGS[name], input_height=height, input_width=width))
        fit_widths(model, {key: tuple(value.shape) for key, value in state.items()})
        model.load_state_dict(state, strict=True, assign=True)
        return model

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write anything as a checkpoint file; its name tells how a small model is fed."""

    def write(content: object, name: str = "yolact_small.pth", *, zipped: bool = True) -> Path:
        path = tmp_path / name
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        return path

    return write
