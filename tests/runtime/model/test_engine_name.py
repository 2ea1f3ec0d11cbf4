"""The manifest travels in an engine's network name, which has a limit."""

from __future__ import annotations

import dataclasses

import pytest

from support.scenes import small_manifest
from yolact_runtime.backends.tensorrt_library import load_tensorrt
from yolact_runtime.errors import BundleError, ManifestError
from yolact_runtime.model.engine_name import engine_name, manifest_from_name
from yolact_runtime.model.manifest import Artefact


@pytest.mark.parametrize("num_classes", [1, 80, 300])
def test_a_manifest_comes_back(num_classes: int) -> None:
    manifest = small_manifest(class_names=tuple(f"Straßenbahn {i}" for i in range(num_classes)))
    listed = dataclasses.replace(manifest, artefacts={"a": Artefact("network", "fp32", "0" * 64, 1)})
    name = engine_name(listed.to_json())
    assert name.isascii()
    assert len(name) <= 4095
    assert name.startswith("{") == (num_classes <= 80)
    assert manifest_from_name(name, "engine") == manifest


def test_the_limit_is_tensorrts() -> None:
    tensorrt_rtx = pytest.importorskip("tensorrt_rtx")
    library = load_tensorrt("rtx")
    network = library.module.Builder(library.logger).create_network(0)
    network.name = "a" * 4095
    assert len(network.name) == 4095
    network.name = "b" * 4096
    assert network.name == "a" * 4095
    assert tensorrt_rtx.__version__ == library.version


def test_a_manifest_without_room_is_not_half_there() -> None:
    names = tuple(f"{i * 7919:x} {i * 104729:x} {i * 1299709:x}" for i in range(1500))
    name = engine_name(small_manifest(class_names=names).to_json())
    assert len(name) < 100
    with pytest.raises(BundleError, match=r"no room for its manifest \(1500 classes\); open the bundle folder"):
        manifest_from_name(name, "engine")


@pytest.mark.parametrize("name", ["", "Unnamed Network 0", "resnet"])
def test_an_engine_of_somebody_else(name: str) -> None:
    with pytest.raises(BundleError, match="engine contains no manifest"):
        manifest_from_name(name, "engine")


@pytest.mark.parametrize("rest", ["", "@@", "0" * 40, "c$@S"])
def test_damage(rest: str) -> None:
    with pytest.raises(BundleError, match="damaged"):
        manifest_from_name(f"yolact-manifest-zlib85:{rest}", "engine")
    with pytest.raises(ManifestError):
        manifest_from_name("{" + rest, "engine")
