"""No extra admits a release of a package in which a fault is known in a part that this project uses."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from support.commands import PROJECT

# Package -> last release with the fault, and its name. Looked up on 2026-11-28.
FAULTY = [
    ("torch", "2.5.1", "CVE-2025-32434"),
    ("torch", "2.9.1", "CVE-2026-24747"),
    ("onnx", "1.20.1", "CVE-2026-27489"),
    ("opencv-python-headless", "4.8.0.76", "CVE-2023-4863"),
    ("opencv-python-headless", "4.10.0.84", "CVE-2025-53644"),
    ("opencv-python-headless", "4.11.0.86", "CVE-2025-53644"),
    ("cryptography", "42.0.3", "CVE-2024-26130"),
    ("cryptography", "46.0.4", "CVE-2026-26007"),
    ("cryptography", "46.0.6", "CVE-2026-39892"),
]


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]


@pytest.mark.parametrize(("package", "version", "fault"), FAULTY)
def test_a_release_with_a_known_fault_is_not_admitted(package: str, version: str, fault: str) -> None:
    ours = [requirement for requirement in requirements() if requirement.name == package]
    assert ours, f"nothing requires {package} any more: take {fault} off the list"
    for requirement in ours:
        assert not requirement.specifier.contains(version), f"{requirement} admits {version}: {fault}"


def test_every_package_has_a_floor() -> None:
    assert len(requirements()) > 20
    for requirement in requirements():
        if requirement.name != "yolact-deploy":
            operators = {part.operator for part in requirement.specifier}
            assert operators & {">=", "==", "<"}, f"{requirement} takes any release"
