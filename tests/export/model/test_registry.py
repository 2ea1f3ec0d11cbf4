"""Families of backbones: each knows everything of itself, and nobody else knows any of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from support import toy_backbone
from support.pruning import MacTimer, priors_of, random_image
from support.toy_backbone import ToyBackbone, ToyConfig
from yolact_calibration.pruning.prune import PruneOptions, prune
from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint
from yolact_export.checkpoint.imagenet import load_imagenet
from yolact_export.checkpoint.note import CheckpointNote, write_checkpoint
from yolact_export.errors import CheckpointError, ConfigError, ExportError
from yolact_export.graph.export import ExportOptions, export_network
from yolact_export.model.backbone import Backbone
from yolact_export.model.config import BackboneConfig
from yolact_export.model.registry import CONFIGS, FAMILIES, families, family_of, family_of_module, find_config
from yolact_export.model.yolact import Yolact, create_model
from yolact_export.pipeline import export_checkpoint
from yolact_export.training.training_start import StartOptions, start_model
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.network_parts import read_parts

ROOT = Path(__file__).parents[3]
ROOM = "yolact_export.model.backbones"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Yolact:
    """A model of a family that is registered by one line."""
    monkeypatch.setitem(FAMILIES, "support.toy_backbone", "yolact_toy")
    torch.manual_seed(3)
    model = create_model(CONFIGS["yolact_toy"])
    with torch.no_grad():  # As a training leaves it: batch norms that do something.
        model(torch.randn(2, 3, 128, 96))
    return model.eval()


def test_a_family_takes_one_file_and_one_line(toy: Yolact, tmp_path: Path) -> None:
    path = tmp_path / "toy.pth"
    write_checkpoint(path, toy.state_dict(), CheckpointNote(toy.config, ("cup", "can")))
    loaded = load_checkpoint(path)
    assert loaded.config == toy.config
    assert any("toy backbone, width 32, pyramid of 32 channels" in finding for finding in loaded.findings)
    for more in (ExportOptions(), ExportOptions(normalise_in_graph=True)):
        # Raises unless ONNX Runtime computes what torch does.
        result = export_checkpoint(path, tmp_path / "toy.bundle", export_options=more)
        assert result.verification.passed
    parts = Counter(read_parts(ModelFile.read(tmp_path / "toy.bundle" / "model.fp32.onnx")).values())
    assert {name: parts[name] for name in ("stem", "backbone /8", "backbone /16", "backbone /32")} == {
        "stem": 3,
        "backbone /8": 2,
        "backbone /16": 2,
        "backbone /32": 2,
    }


def test_a_pruned_model_of_it_is_recognised(toy: Yolact, tmp_path: Path) -> None:
    pruned = prune(toy, [random_image(toy.config, 2)], priors_of(toy.config), PruneOptions(0.3), timer=MacTimer())
    assert "backbone.toy_stem" in {group.name for group in pruned.report.groups}
    path = tmp_path / "pruned.pth"
    write_checkpoint(path, pruned.model.state_dict(), CheckpointNote(toy.config, ("cup", "can")))
    loaded = load_checkpoint(path)
    image = random_image(toy.config)
    with torch.no_grad():
        assert all(map(torch.equal, loaded.model(image), pruned.model(image)))


def test_the_names_of_its_configurations_and_its_weights_count(toy: Yolact, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(toy.state_dict(), path)
    with pytest.raises(CheckpointError, match="--config yolact_toy"):
        load_checkpoint(path)
    assert load_checkpoint(path, CheckpointOptions(config="yolact_toy")).config == toy.config
    with pytest.raises(CheckpointError, match="means ResNet-50, the tensors are of a toy backbone, width 32"):
        load_checkpoint(path, CheckpointOptions(config="yolact_resnet50"))
    weights = {f"net.{key}": value for key, value in toy.backbone.state_dict().items()}
    torch.save({**weights, "toy.sign": torch.zeros(1)}, tmp_path / "imagenet.pth")
    with pytest.raises(CheckpointError, match="these are keys of a toy classifier"):
        load_checkpoint(tmp_path / "imagenet.pth")
    start = start_model(StartOptions("yolact_toy", ("cup",), backbone_weights=tmp_path / "imagenet.pth"))
    assert torch.equal(start.model.backbone.toy_stem.weight, toy.backbone.toy_stem.weight)


def test_what_cannot_be_normalised_in_the_graph_is_refused(toy: Yolact, monkeypatch: pytest.MonkeyPatch) -> None:
    emit = toy_backbone.FAMILY.emit
    monkeypatch.setattr(
        type(toy_backbone.FAMILY), "emit", lambda _, graph, image, net: emit(graph, graph.relu(image, "first"), net)
    )
    export_network(toy)
    with pytest.raises(ExportError, match=r"does not begin with a plain convolution.*without --normalise-in-graph"):
        export_network(toy, ExportOptions(normalise_in_graph=True))


def test_a_stranger_is_refused_with_the_families_there_are(tmp_path: Path) -> None:
    names = "ResNet, DarkNet-53, MobileNetV2, EfficientNet-Lite0, small ResNet"
    with pytest.raises(ConfigError, match=f"a ToyConfig belongs to no family of backbones; there are: {names}"):
        family_of(ToyConfig())
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=f"a ToyBackbone belongs to no family of backbones; there are: {names}"):
        load_imagenet(ToyBackbone(ToyConfig()), tmp_path / "x.pth")


def test_a_registration_that_differs_from_the_family_is_refused(toy: Yolact, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_config("yolact_toy") is toy.config
    monkeypatch.setitem(FAMILIES, "support.toy_backbone", "yolact_toy yolact_more")
    with pytest.raises(
        ConfigError, match=r"toy_backbone has the configurations .*yolact_toy.*, and is registered with"
    ):
        families()


@pytest.mark.parametrize(
    ("module", "names", "message"),
    [
        ("support.no_backbone", "mine", "and there is no such module"),
        ("support.scenes", "mine", "and has no FAMILY"),
        (
            "support.toy_backbone",
            "yolact_toy yolact_tiny",
            r'both have a configuration called "yolact_tiny"; rename one',
        ),
    ],
)
def test_a_registration_that_cannot_be_is_refused(
    module: str, names: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, module, names)
    with pytest.raises(ConfigError, match=f"{module} .*{message}"):
        families()


def test_tensors_of_two_families_are_of_neither(toy: Yolact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is registered first must not win."""
    resnet = CONFIGS["yolact_resnet50"].backbone
    monkeypatch.setattr(type(family_of(resnet)), "infer", lambda *_: resnet)
    path = tmp_path / "both.pth"
    torch.save(toy.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"both\.pth: the backbone is recognised by ResNet and by toy backbone"):
        load_checkpoint(path, CheckpointOptions(config="yolact_toy"))


def test_every_module_of_the_room_is_registered() -> None:
    room = ROOT / "export" / "yolact_export" / "model" / "backbones"
    found = {path.stem for path in room.glob("*.py") if "FAMILY = " in path.read_text(encoding="utf-8")}
    assert {f"{ROOM}.{name}" for name in found} == set(FAMILIES)
    for kind, base in (("config_type", BackboneConfig), ("module_type", Backbone)):
        types = [getattr(family, kind) for family in families()]
        assert len(set(types)) == len(types)
        assert all(issubclass(one, base) for one in types)


@pytest.mark.parametrize("name", {config.backbone: name for name, config in CONFIGS.items()}.values())
def test_a_family_recognises_its_own_tensors_and_no_other(name: str) -> None:
    config = CONFIGS[name]
    with torch.device("meta"):
        backbone = family_of(config.backbone).build(config.backbone)
    shapes = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    inferred = {family.name: found for family in families() if (found := family.infer(shapes)) is not None}
    assert inferred == {family_of(config.backbone).name: config.backbone}
    assert family_of_module(backbone) is family_of(config.backbone)
    likely = family_of(config.backbone).likely_config(config.backbone, config.priors_per_cell)
    assert likely in family_of(config.backbone).configs


def test_nobody_imports_a_family() -> None:
    """But the registry, by its module's name; and no family imports another one."""
    offenders = []
    for package in ("benchmarks", "calibration", "export", "plugins", "runtime"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "model.backbones" not in text and "model import backbones" not in text:
                continue
            for node in ast.walk(ast.parse(text)):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                named = [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
                if path.name != "registry.py" and any(module in FAMILIES for module in (*modules, *named)):
                    offenders.append(path.relative_to(ROOT))
                if any(module == ROOM or module == "yolact_export.model" for module in modules):
                    offenders.append(path.relative_to(ROOT))
    assert offenders == []


def test_configurations_are_listed_without_torch() -> None:
    lines = (
        "import sys",
        "from yolact_export.commands import cli, finetune_cli",
        "from yolact_export.model.registry import CONFIGS",
        "assert 'yolact_base' in CONFIGS and len(CONFIGS) == len(list(CONFIGS)) == 15",
        "assert 'torch' not in sys.modules",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
