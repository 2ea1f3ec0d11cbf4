"""Every package's public functions mention only types that can be imported from a package's root.

The same for `yolact_runtime`, and what its modules promise besides: ``tests/runtime/test_public_surface.py``.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.public_surface import documented_errors, is_builtin, mentioned_types, public_names
from yolact_plugins.errors import MissingDependencyError
from yolact_plugins.lazy_names import lazy_names

PACKAGES = ("yolact_export", "yolact_calibration", "yolact_benchmarks", "yolact_plugins")
PUBLIC = {
    name: public_names(importlib.import_module(name))
    for name in (*PACKAGES, "yolact_runtime", "yolact_runtime.errors", "yolact_plugins.errors")
}
# Results and arguments that are passed on as they are; the types of their fields are internal.
OPAQUE = {
    *(
        "Accuracy",
        "Agreement",
        "BuiltEngine",
        "Candidate",
        "QuantisedNetwork",
        "ExtendedBundle",
        "LayerTimer",
        "PrecisionResult",
        "PrunedCheckpoint",
    ),
    *("Variant", "Verification", "WrittenEngine"),
}
# Methods for other modules of the package.
INTERNAL = {"ExportOptions.require_effects"}
# Only what these packages define: names that they pass on belong to the package that defines them.
CALLABLE = [
    (package, name)
    for package in PACKAGES
    for name, thing in PUBLIC[package].items()
    if callable(thing) and thing.__module__.startswith(package) and name not in OPAQUE
]


@pytest.mark.parametrize(("package", "name"), CALLABLE)
def test_every_type_that_a_signature_mentions_is_public(package: str, name: str) -> None:
    public = {id(thing) for names in PUBLIC.values() for thing in names.values()}
    private = {(where, found) for where, found in mentioned_types(PUBLIC[package][name]) if id(found) not in public}
    assert {(where, found) for where, found in private if where not in INTERNAL} == set()


@pytest.mark.parametrize(("package", "name"), CALLABLE)
def test_every_error_that_a_docstring_names_is_public(package: str, name: str) -> None:
    for where, error in documented_errors(PUBLIC[package][name]):
        assert error in PUBLIC[package] or is_builtin(error), f"{where} raises {error}"


@pytest.mark.parametrize("package", PACKAGES[:3])
def test_lazy_names_are_those_that_type_checkers_see(package: str) -> None:
    module = importlib.import_module(package)
    text = Path(str(module.__file__)).read_text(encoding="utf-8")
    checked = text.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0].replace("(\n", "").replace(",\n    )", "")
    for source, names in module._LAZY.items():
        line = next(part for part in checked.split("from ") if part.startswith(f"{source} import "))
        assert {word.strip(" ,()\n") for word in line.partition(" import ")[2].split(",")} - {""} == set(names), source
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    code = f"import sys, json, {package}\nprint(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"numpy", "torch", "onnx", "onnxruntime", "cv2"} & set(json.loads(done.stdout))


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_nowhere.py").write_text("import nowhere.at_all\n\ndef work(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    load, names = lazy_names("yolact_any", {"needs_nowhere": ("work",)}, {"own": 1}, "train")
    assert names() == ["own", "work"]
    with pytest.raises(MissingDependencyError, match=r'yolact_any\.work needs the package "nowhere".*\[train\]'):
        load("work")
